// SHA-256 by libcrypto, CRC-32 by zlib.
#include "pef/hash.h"

#include <openssl/evp.h>
#include <zlib.h>

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace shardwright::pef {

Digest sha256(std::span<const std::byte> bytes) {
  Digest digest{};
  unsigned length = 0;
  CHECK(EVP_Digest(bytes.data(), bytes.size(), reinterpret_cast<unsigned char*>(digest.data()),
                   &length, EVP_sha256(), nullptr) == 1 &&
        length == digest.size());
  return digest;
}

uint32_t crc32_of(std::span<const std::byte> bytes, uint32_t before) {
  return static_cast<uint32_t>(
      crc32_z(before, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size()));
}

struct LeafHasher::Context {
  EVP_MD_CTX* evp = EVP_MD_CTX_new();
  void start() { CHECK(EVP_DigestInit_ex(evp, EVP_sha256(), nullptr) == 1); }
};

LeafHasher::LeafHasher() : context_(std::make_unique<Context>()) { context_->start(); }

LeafHasher::~LeafHasher() { EVP_MD_CTX_free(context_->evp); }

void LeafHasher::add(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const auto count =
        static_cast<size_t>(std::min(static_cast<int64_t>(bytes.size()), kLeafBytes - in_leaf_));
    CHECK(EVP_DigestUpdate(context_->evp, bytes.data(), count) == 1);
    bytes = bytes.subspan(count);
    in_leaf_ += static_cast<int64_t>(count);
    if (in_leaf_ == kLeafBytes) end_leaf();
  }
}

void LeafHasher::end_leaf() {
  Digest digest{};
  CHECK(EVP_DigestFinal_ex(context_->evp, reinterpret_cast<unsigned char*>(digest.data()),
                           nullptr) == 1);
  leaves_.push_back(digest);
  in_leaf_ = 0;
  context_->start();
}

std::vector<Digest> LeafHasher::finish() {
  if (in_leaf_ > 0) end_leaf();
  return std::exchange(leaves_, {});
}

std::vector<Digest> leaf_digests(std::span<const std::byte> bytes) {
  LeafHasher hasher;
  hasher.add(bytes);
  return hasher.finish();
}

}  // namespace shardwright::pef
