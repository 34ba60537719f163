// Header and index.
#include "pef/format.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "base/bytes.h"
#include "base/check.h"
#include "pef/flatbuffer.h"
#include "pef/manifest_generated.h"
#include "pef/program.h"

namespace shardwright::pef {
namespace {

constexpr std::string_view kMagic = "\x89PEF\r\n\x1a\n";
constexpr size_t kProducerOffset = 96;
constexpr size_t kProducerBytes = 64;
constexpr size_t kSignedBytes = 160;  // of the header: what its own digest covers

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

[[noreturn]] void broken(const std::string& message) {
  throw Error(ErrorCode::kBrokenFile, message);
}

// The producer as far as it can be shown, whatever the bytes are.
std::string printable_producer(std::span<const std::byte> file) {
  std::string producer;
  for (const char c : text_of(file.subspan(kProducerOffset, kProducerBytes))) {
    if (c < ' ' || c > '~') break;
    producer += c;
  }
  return producer.empty() ? "an unknown version" : producer;
}

SegmentInfo decode_segment(const fb::Segment& segment) {
  SegmentInfo info;
  if (segment.kind() > static_cast<uint8_t>(SegmentKind::kFile))
    broken(fmt::format("the index has a segment of unknown kind {}", segment.kind()));
  info.kind = static_cast<SegmentKind>(segment.kind());
  if (segment.name() == nullptr || segment.name()->size() > kMaxNameBytes)
    broken("the index has a segment without a name");
  info.name = segment.name()->str();
  info.plan = segment.plan();
  info.chip = segment.chip();
  info.graph = segment.graph();
  info.offset_bytes = segment.offset_bytes();
  info.size_bytes = segment.size_bytes();
  info.crc32 = segment.crc32();
  if (info.offset_bytes < 0 || info.size_bytes < 0)
    broken("segment " + info.name + " has a negative offset or size");
  const auto leaf_count = static_cast<size_t>(info.size_bytes / kLeafBytes +
                                              (info.size_bytes % kLeafBytes != 0 ? 1 : 0));
  const auto* leaves = segment.leaves();
  const size_t leaf_bytes = leaves == nullptr ? 0 : leaves->size();
  if (leaf_bytes % sizeof(Digest) != 0 || leaf_bytes / sizeof(Digest) != leaf_count)
    broken(fmt::format("segment {} of {} bytes has {} bytes of digests, not {} digests", info.name,
                       info.size_bytes, leaf_bytes, leaf_count));
  info.leaves.resize(leaf_count);
  if (leaf_count > 0) std::memcpy(info.leaves.data(), leaves->data(), leaf_bytes);
  return info;
}

}  // namespace

std::string encode_header(const Header& header) {
  std::string bytes(kMagic);
  append_number<uint32_t>(bytes, kMajor);
  append_number<uint32_t>(bytes, kMinor);
  append_number<uint64_t>(bytes, header.required_features);
  append_number<uint64_t>(bytes, 0);  // optional features
  append_number<int64_t>(bytes, header.file_bytes);
  append_number<int64_t>(bytes, header.index_offset_bytes);
  append_number<int64_t>(bytes, header.index_bytes);
  append_number<uint32_t>(bytes, kStateComplete);
  append_number<uint32_t>(bytes, 0);
  bytes += text_of(header.index_digest);
  bytes += header.producer.substr(0, kProducerBytes - 1);
  bytes.resize(kSignedBytes, '\0');
  bytes += text_of(sha256(std::as_bytes(std::span(bytes))));
  CHECK(bytes.size() == static_cast<size_t>(kHeaderBytes));
  return bytes;
}

Header decode_header(std::span<const std::byte> file, const std::string& path) {
  if (!text_of(file).starts_with(kMagic))
    broken(path + " is not a PEF (it does not start as one); `shardwright compile` writes them");
  if (file.size() < static_cast<size_t>(kPageBytes))
    broken(fmt::format("{} is truncated: it has {} bytes, a PEF has at least {}; copy it again",
                       path, file.size(), kPageBytes));
  ByteReader reader(file, path);
  reader.take(kMagic.size());
  const auto major = reader.number<uint32_t>();
  const auto minor = reader.number<uint32_t>();
  const auto required = reader.number<uint64_t>();
  reader.number<uint64_t>();
  const uint64_t unknown = required & ~kKnownFeatures;
  if (major != kMajor || minor < kOldestMinor || unknown != 0)
    broken(fmt::format(
        "{} has PEF version {}.{}{}, written by {}; this program reads version {}.{} and later "
        "{}.x."
        " Compile the model again with this one",
        path, major, minor, unknown != 0 ? fmt::format(" with features {:#x}", unknown) : "",
        printable_producer(file), kMajor, kOldestMinor, kMajor));
  Header header;
  header.required_features = required;
  header.file_bytes = reader.number<int64_t>();
  header.index_offset_bytes = reader.number<int64_t>();
  header.index_bytes = reader.number<int64_t>();
  if (reader.number<uint32_t>() != kStateComplete)
    broken(path + " is incomplete: the compile that wrote it did not finish. Compile it again");
  reader.number<uint32_t>();
  std::memcpy(header.index_digest.data(), reader.take(sizeof(Digest)).data(), sizeof(Digest));
  header.producer = printable_producer(file);
  const Digest digest = sha256(file.first(kSignedBytes));
  if (std::memcmp(digest.data(), file.data() + kSignedBytes, sizeof(Digest)) != 0)
    broken(path + " is damaged: its header does not have the digest that it states");
  const auto size = static_cast<int64_t>(file.size());
  if (header.file_bytes != size)
    broken(fmt::format("{} is {}: it has {} bytes, its header states {}; copy it again", path,
                       size < header.file_bytes ? "truncated" : "damaged", size,
                       header.file_bytes));
  if (header.index_offset_bytes < kPageBytes || header.index_bytes < 0 ||
      !range_fits(static_cast<uint64_t>(header.index_offset_bytes),
                  static_cast<uint64_t>(header.index_bytes), file.size()))
    broken(path + " is damaged: its index lies outside");
  return header;
}

std::string encode_index(const std::vector<SegmentInfo>& segments) {
  flatbuffers::FlatBufferBuilder builder;
  builder.ForceDefaults(true);  // the size must not depend on digests and checksums
  std::vector<flatbuffers::Offset<fb::Segment>> encoded;
  for (const SegmentInfo& info : segments) {
    const auto name = builder.CreateString(info.name);
    const auto leaves = builder.CreateVector(reinterpret_cast<const uint8_t*>(info.leaves.data()),
                                             info.leaves.size() * sizeof(Digest));
    encoded.push_back(fb::CreateSegment(builder, name, static_cast<uint8_t>(info.kind), info.plan,
                                        info.chip, info.graph, info.offset_bytes, info.size_bytes,
                                        info.crc32, leaves));
  }
  builder.Finish(fb::CreateIndex(builder, builder.CreateVector(encoded)));
  return bytes_of(builder);
}

std::vector<SegmentInfo> decode_index(std::span<const std::byte> bytes,
                                      int64_t index_offset_bytes) {
  const auto& index = verified_root<fb::Index>(bytes, "the index");
  std::vector<SegmentInfo> segments;
  if (index.segments() == nullptr) broken("the index lists no segments");
  int64_t end = kHeaderBytes;
  for (const fb::Segment* segment : *index.segments()) {
    const SegmentInfo& info = segments.emplace_back(decode_segment(*segment));
    if (info.offset_bytes != segment_start(end, info.name) ||
        !range_fits(static_cast<uint64_t>(info.offset_bytes),
                    static_cast<uint64_t>(info.size_bytes),
                    static_cast<uint64_t>(index_offset_bytes)))
      broken("segment " + info.name + " does not lie where it should");
    end = info.end_bytes();
  }
  if (round_up(end, kPageBytes) != index_offset_bytes)
    broken("the index does not lie where it should");
  return segments;
}

}  // namespace shardwright::pef
