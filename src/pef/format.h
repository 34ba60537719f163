// The bytes of a PEF around its segments: header, index, and the ZIP structures that make each
// segment a member. All of them follow from the list of segments, so a reader rebuilds them and
// compares: no byte is left unexplained.
//
//   0     header (kHeaderBytes): see Header; zeros up to the first local header
//   4096  segments: each starts at a page, behind zeros and its ZIP local header
//         index: starts at a page
//         ZIP central directory, up to the end of the file
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "pef/hash.h"

namespace shardwright::pef {

inline constexpr int64_t kPageBytes = 4096;
inline constexpr int64_t kTensorAlignBytes = 256;
inline constexpr int64_t kHeaderBytes = 192;
inline constexpr int64_t kStateOffset = 56;  // of the state, a u32, in the header
inline constexpr uint32_t kStateComplete = 1;
inline constexpr size_t kMaxNameBytes = 1024;

enum class SegmentKind : uint8_t { kManifest, kChip, kProgram, kWeights, kReport, kFile };

inline constexpr const char* kFilesFolder = "files/";  // of the names of kFile segments

struct SegmentInfo {
  SegmentKind kind = SegmentKind::kManifest;
  std::string name;  // of the ZIP member: "plan/2/chip/0/forward.fb"
  int plan = -1;     // index into Manifest::plans
  int chip = -1;
  int graph = -1;
  int64_t offset_bytes = 0;
  int64_t size_bytes = 0;
  uint32_t crc32 = 0;
  std::vector<Digest> leaves;
  int64_t end_bytes() const { return offset_bytes + size_bytes; }
};

struct Header {
  int64_t file_bytes = 0;
  int64_t index_offset_bytes = 0;
  int64_t index_bytes = 0;
  Digest index_digest{};
  uint64_t required_features = 0;
  std::string producer;  // at most 63 bytes; says what wrote the file to readers of any version
};

// With state `complete`.
std::string encode_header(const Header& header);
// Throws Error(kBrokenFile): no PEF, another version, incomplete, damaged. `path` for messages.
Header decode_header(std::span<const std::byte> file, const std::string& path);

std::string encode_index(const std::vector<SegmentInfo>& segments);
// Throws Error(kBrokenFile) unless the segments follow each other as the writer lays them out,
// the last one ending at or before `index_offset_bytes`.
std::vector<SegmentInfo> decode_index(std::span<const std::byte> bytes, int64_t index_offset_bytes);

// Where a segment called `name` starts that follows what ends at `end_bytes`.
int64_t segment_start(int64_t end_bytes, const std::string& name);
// The bytes from `begin_bytes` to the start of the segment: zeros and a ZIP local header.
std::string gap_before(int64_t begin_bytes, const SegmentInfo& segment);
// The ZIP central directory of a file where it starts at `offset_bytes`.
std::string central_directory(const std::vector<SegmentInfo>& segments, int64_t offset_bytes);

}  // namespace shardwright::pef
