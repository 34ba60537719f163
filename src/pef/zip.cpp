// The ZIP structures of a PEF: stored ZIP64 members, so that `unzip -l` shows the segments
// (PKWARE APPNOTE 6.3, sections 4.3.7 to 4.3.16).
#include "base/bytes.h"
#include "base/check.h"
#include "pef/format.h"

namespace shardwright::pef {
namespace {

constexpr uint16_t kVersion = 45;               // the first with ZIP64
constexpr uint16_t kUtf8 = 0x0800;              // names are UTF-8
constexpr uint16_t kDate = 0x0021;              // 1 January 1980: files carry no time
constexpr uint32_t kIn64 = 0xffffffff;          // the value stands in the ZIP64 field
constexpr int64_t kLocalHeaderBytes = 30 + 20;  // + name

int64_t local_header_bytes(const std::string& name) {
  return kLocalHeaderBytes + static_cast<int64_t>(name.size());
}

// What a local header and an entry of the central directory have in common.
void append_common(std::string& out, const SegmentInfo& segment, uint16_t extra_bytes) {
  append_number<uint16_t>(out, kVersion);
  append_number<uint16_t>(out, kUtf8);
  append_number<uint16_t>(out, 0);  // stored
  append_number<uint16_t>(out, 0);  // time
  append_number<uint16_t>(out, kDate);
  append_number<uint32_t>(out, segment.crc32);
  append_number<uint32_t>(out, kIn64);
  append_number<uint32_t>(out, kIn64);
  append_number<uint16_t>(out, static_cast<uint16_t>(segment.name.size()));
  append_number<uint16_t>(out, extra_bytes);
}

void append_zip64_field(std::string& out, const SegmentInfo& segment, bool with_offset) {
  append_number<uint16_t>(out, 1);
  append_number<uint16_t>(out, with_offset ? 24 : 16);
  append_number<int64_t>(out, segment.size_bytes);
  append_number<int64_t>(out, segment.size_bytes);
  if (with_offset)
    append_number<int64_t>(out, segment.offset_bytes - local_header_bytes(segment.name));
}

}  // namespace

int64_t segment_start(int64_t end_bytes, const std::string& name) {
  return round_up(end_bytes + local_header_bytes(name), kPageBytes);
}

std::string gap_before(int64_t begin_bytes, const SegmentInfo& segment) {
  const int64_t zeros = segment.offset_bytes - begin_bytes - local_header_bytes(segment.name);
  CHECK(zeros >= 0);
  std::string gap(static_cast<size_t>(zeros), '\0');
  gap += "PK\3\4";
  append_common(gap, segment, 20);
  gap += segment.name;
  append_zip64_field(gap, segment, false);
  return gap;
}

std::string central_directory(const std::vector<SegmentInfo>& segments, int64_t offset_bytes) {
  std::string out;
  for (const SegmentInfo& segment : segments) {
    out += "PK\1\2";
    append_number<uint16_t>(out, kVersion);  // made by
    append_common(out, segment, 28);
    append_number<uint16_t>(out, 0);  // comment
    append_number<uint16_t>(out, 0);  // disk
    append_number<uint16_t>(out, 0);  // internal attributes
    append_number<uint32_t>(out, 0);  // external attributes
    append_number<uint32_t>(out, kIn64);
    out += segment.name;
    append_zip64_field(out, segment, true);
  }
  const auto directory_bytes = static_cast<int64_t>(out.size());
  const auto count = static_cast<int64_t>(segments.size());
  out += "PK\6\6";  // ZIP64 end of central directory
  append_number<int64_t>(out, 44);
  append_number<uint16_t>(out, kVersion);
  append_number<uint16_t>(out, kVersion);
  append_number<uint32_t>(out, 0);
  append_number<uint32_t>(out, 0);
  append_number<int64_t>(out, count);
  append_number<int64_t>(out, count);
  append_number<int64_t>(out, directory_bytes);
  append_number<int64_t>(out, offset_bytes);
  out += "PK\6\7";  // its locator
  append_number<uint32_t>(out, 0);
  append_number<int64_t>(out, offset_bytes + directory_bytes);
  append_number<uint32_t>(out, 1);
  out += "PK\5\6";  // the end of a ZIP without 64
  append_number<uint32_t>(out, 0);
  append_number<uint16_t>(out, 0xffff);
  append_number<uint16_t>(out, 0xffff);
  append_number<uint32_t>(out, kIn64);
  append_number<uint32_t>(out, kIn64);
  append_number<uint16_t>(out, 0);
  return out;
}

}  // namespace shardwright::pef
