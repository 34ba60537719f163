// SHA-256 and CRC-32: what proves that a PEF's bytes are those that were written.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace shardwright::pef {

using Digest = std::array<std::byte, 32>;

inline constexpr int64_t kLeafBytes = 1 << 20;

Digest sha256(std::span<const std::byte> bytes);
// CRC-32 as ZIP has it; `before` that of the bytes before.
uint32_t crc32_of(std::span<const std::byte> bytes, uint32_t before = 0);

// Digests of the leaves (1 MiB each, the last may be shorter) of bytes that come piece by piece.
class LeafHasher {
 public:
  LeafHasher();
  ~LeafHasher();
  LeafHasher(const LeafHasher&) = delete;
  LeafHasher& operator=(const LeafHasher&) = delete;

  void add(std::span<const std::byte> bytes);
  // Ends the last leaf.
  std::vector<Digest> finish();

 private:
  void end_leaf();

  struct Context;
  std::unique_ptr<Context> context_;
  int64_t in_leaf_ = 0;  // bytes
  std::vector<Digest> leaves_;
};

std::vector<Digest> leaf_digests(std::span<const std::byte> bytes);

}  // namespace shardwright::pef
