// .npy arrays.
#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"
#include "cli/npy.h"
#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shardwright;
  const int descriptor = memfd_create("fuzz.npy", 0);
  CHECK(descriptor >= 0 && ::write(descriptor, data, size) == static_cast<ssize_t>(size));
  fuzz::expect_error_at_most([&] {
    const cli::NpyArray array = cli::read_npy("/proc/self/fd/" + std::to_string(descriptor));
    CHECK(array.type.bytes() == array.bytes.size);
  });
  close(descriptor);
  return 0;
}
