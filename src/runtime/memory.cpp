// A chip's memory: anonymous pages of its own.
#include <sys/mman.h>

#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "runtime/chip.h"

namespace shardwright::runtime {

Memory::Memory(int64_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  void* address = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) {
    bytes_ = 0;
    throw Error(
        ErrorCode::kDoesNotFit,
        fmt::format(
            "the system refuses {} MiB of memory for a chip; give more chips, or a smaller batch",
            bytes / (1 << 20)));
  }
  data_ = static_cast<std::byte*>(address);
  constexpr int64_t kHugePage = 2 << 20;
  if (bytes >= kHugePage) madvise(address, static_cast<size_t>(bytes), MADV_HUGEPAGE);
}

Memory::~Memory() {
  if (data_ != nullptr) munmap(data_, static_cast<size_t>(bytes_));
}

Memory& Memory::operator=(Memory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace shardwright::runtime
