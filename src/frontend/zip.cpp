// ZIP: the end record, the central directory, and where each payload starts (APPNOTE 6.3.9,
// sections 4.3.7 to 4.3.16).
#include "frontend/zip.h"

#include <cstring>

#include <fmt/format.h>
#include <zlib.h>

#include "base/checked.h"
#include "base/error.h"

namespace shardwright::frontend {
namespace {

constexpr uint32_t kLocalHeader = 0x04034b50, kCentralHeader = 0x02014b50, kEnd = 0x06054b50,
                   kEnd64 = 0x06064b50, kEnd64Locator = 0x07064b50;
constexpr uint64_t kEndBytes = 22, kLocatorBytes = 20, kEnd64Bytes = 56, kCentralBytes = 46,
                   kLocalBytes = 30;
constexpr uint64_t kMaxComment = 65535;
constexpr uint64_t kMaxRecords = 1 << 20;

// Little-endian fields at checked offsets.
class Fields {
 public:
  Fields(const SharedBytes& bytes, const std::string& name)
      : data_(bytes.data), size_(static_cast<uint64_t>(bytes.size)), name_(name) {}

  uint64_t size() const { return size_; }
  [[noreturn]] void broken(const std::string& what) const {
    throw Error(
        ErrorCode::kBrokenFile,
        fmt::format("{}: not a readable .pt2 archive: {}; write it again with torch.export.save",
                    name_, what));
  }
  template <typename T>
  T at(uint64_t offset) const {
    if (!range_fits(offset, sizeof(T), size_))
      broken(fmt::format("it ends at byte {}, where a field at {} is expected", size_, offset));
    T value;
    std::memcpy(&value, data_ + offset, sizeof(T));
    return value;
  }
  std::string_view text(uint64_t offset, uint64_t length) const {
    if (!range_fits(offset, length, size_))
      broken(fmt::format("{} bytes at {} lie outside of its {}", length, offset, size_));
    return {reinterpret_cast<const char*>(data_) + offset, length};
  }

 private:
  const std::byte* data_;
  uint64_t size_;
  const std::string& name_;
};

struct Directory {
  uint64_t offset = 0;
  uint64_t count = 0;
};

Directory find_directory(const Fields& f) {
  if (f.size() < kEndBytes) f.broken(fmt::format("it has only {} bytes", f.size()));
  const uint64_t last = f.size() - kEndBytes;
  const uint64_t first = last > kMaxComment ? last - kMaxComment : 0;
  for (uint64_t at = last + 1; at-- > first;) {
    if (f.at<uint32_t>(at) != kEnd) continue;
    Directory d{f.at<uint32_t>(at + 16), f.at<uint16_t>(at + 10)};
    if (at >= kLocatorBytes && f.at<uint32_t>(at - kLocatorBytes) == kEnd64Locator) {
      const auto end64 = f.at<uint64_t>(at - kLocatorBytes + 8);
      if (!range_fits(end64, kEnd64Bytes, f.size()) || f.at<uint32_t>(end64) != kEnd64)
        f.broken("its ZIP64 end record is missing");
      d = {f.at<uint64_t>(end64 + 48), f.at<uint64_t>(end64 + 32)};
    }
    return d;
  }
  f.broken("its end is missing (truncated?)");
}

// Sizes and offset that do not fit 32 bits stand in the extra field 0x0001, in this order, each
// only if its 32-bit field is all ones.
void read_zip64(const Fields& f, uint64_t extra, uint64_t length, uint64_t* uncompressed,
                uint64_t* compressed, uint64_t* offset) {
  const uint64_t end = extra + length;
  while (extra + 4 <= end) {
    const auto id = f.at<uint16_t>(extra);
    const auto bytes = f.at<uint16_t>(extra + 2);
    extra += 4;
    if (id == 1) {
      uint64_t at = extra;
      for (uint64_t* field : {uncompressed, compressed, offset}) {
        if (*field != 0xffffffffU) continue;
        if (at + 8 > extra + bytes) f.broken("a ZIP64 field is cut short");
        *field = f.at<uint64_t>(at);
        at += 8;
      }
      return;
    }
    extra += bytes;
  }
}

}  // namespace

ZipArchive::ZipArchive(SharedBytes bytes, std::string name)
    : bytes_(std::move(bytes)), name_(std::move(name)) {
  const Fields f(bytes_, name_);
  const Directory directory = find_directory(f);
  if (directory.count > kMaxRecords) f.broken(fmt::format("it claims {} records", directory.count));
  uint64_t at = directory.offset;
  for (uint64_t i = 0; i < directory.count; ++i) {
    if (!range_fits(at, kCentralBytes, f.size()) || f.at<uint32_t>(at) != kCentralHeader)
      f.broken(fmt::format("record {} of its directory is damaged", i));
    const auto method = f.at<uint16_t>(at + 10);
    const auto crc = f.at<uint32_t>(at + 16);
    uint64_t compressed = f.at<uint32_t>(at + 20), uncompressed = f.at<uint32_t>(at + 24),
             offset = f.at<uint32_t>(at + 42);
    const uint64_t name_length = f.at<uint16_t>(at + 28), extra_length = f.at<uint16_t>(at + 30),
                   comment = f.at<uint16_t>(at + 32);
    const std::string_view entry = f.text(at + kCentralBytes, name_length);
    read_zip64(f, at + kCentralBytes + name_length, extra_length, &uncompressed, &compressed,
               &offset);
    at += kCentralBytes + name_length + extra_length + comment;
    if (entry.ends_with('/')) continue;
    if (method != 0 || compressed != uncompressed)
      f.broken(fmt::format("record '{}' is compressed", entry));
    if (!range_fits(offset, kLocalBytes, f.size()) || f.at<uint32_t>(offset) != kLocalHeader)
      f.broken(fmt::format("record '{}' has no header", entry));
    const uint64_t local_name_length = f.at<uint16_t>(offset + 26);
    if (f.text(offset + kLocalBytes, local_name_length) != entry)
      f.broken(fmt::format("record '{}' has another name in its header", entry));
    const uint64_t payload = offset + kLocalBytes + local_name_length + f.at<uint16_t>(offset + 28);
    add_entry(entry, {f.text(payload, uncompressed), crc});
  }
  if (const auto next = f.at<uint32_t>(at); next != kEnd && next != kEnd64)
    f.broken(fmt::format("its directory does not end after its {} records", directory.count));
  if (records_.empty()) f.broken("it has no records");
}

void ZipArchive::add_entry(std::string_view entry, const Record& record) {
  const size_t slash = entry.find('/');
  const std::string_view root =
      slash == std::string_view::npos ? std::string_view() : entry.substr(0, slash + 1);
  if (records_.empty()) root_ = root;
  if (root_.empty() || root != root_)
    throw Error(ErrorCode::kBrokenFile, fmt::format("{}: record '{}' is outside of the folder "
                                                    "'{}'; this is no archive of torch.export.save",
                                                    name_, entry, root_));
  if (!records_.emplace(std::string(entry.substr(root.size())), record).second)
    throw Error(ErrorCode::kBrokenFile, fmt::format("{}: record '{}' occurs twice", name_, entry));
}

std::string_view ZipArchive::read(std::string_view name) const {
  const auto found = records_.find(name);
  if (found == records_.end())
    throw Error(ErrorCode::kBrokenFile, fmt::format("{}: record '{}' is missing", name_, name));
  const Record& record = found->second;
  const uLong crc =
      crc32_z(crc32_z(0, nullptr, 0), reinterpret_cast<const Bytef*>(record.bytes.data()),
              record.bytes.size());
  if (crc != record.crc32)
    throw Error(ErrorCode::kBrokenFile,
                fmt::format("{}: record '{}' is damaged (CRC-32 {:08x}, expected {:08x}); copy or "
                            "export the file again",
                            name_, name, crc, record.crc32));
  return record.bytes;
}

}  // namespace shardwright::frontend
