// .pt2 archives. The CRC-32 of each record is mended first: else no change to a record would get
// past it.
#include <zlib.h>

#include <cstdlib>

#include "frontend/pt2.h"
#include "fuzz.h"

namespace shardwright::fuzz {
namespace {

constexpr std::string_view kDirectoryEntry = "PK\x01\x02";
constexpr size_t kEntryBytes = 46, kLocalBytes = 30;

template <typename T>
T number_at(const std::string& file, size_t offset) {
  T value;
  std::memcpy(&value, file.data() + offset, sizeof(T));
  return value;
}

std::string mended(std::string file) {
  for (size_t at = file.find(kDirectoryEntry); at != std::string::npos;
       at = file.find(kDirectoryEntry, at + 1)) {
    if (file.size() - at < kEntryBytes) break;
    const size_t local = number_at<uint32_t>(file, at + 42);
    if (local > file.size() || file.size() - local < kLocalBytes) continue;
    const size_t begin = local + kLocalBytes + number_at<uint16_t>(file, local + 26) +
                         number_at<uint16_t>(file, local + 28);
    const uint32_t size = number_at<uint32_t>(file, at + 24);
    if (begin > file.size() || file.size() - begin < size) continue;
    const auto crc = static_cast<uint32_t>(
        crc32(0, reinterpret_cast<const unsigned char*>(file.data() + begin), size));
    std::memcpy(file.data() + at + 16, &crc, sizeof(crc));
  }
  return file;
}

}  // namespace
}  // namespace shardwright::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shardwright;
  const std::string file = fuzz::mended(std::string(fuzz::Input(data, size).rest()));
  fuzz::expect_error_at_most([&] { (void)frontend::read_pt2(fuzz::copy_of(file), "fuzz.pt2"); });
  return 0;
}
