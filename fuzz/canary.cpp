// Must crash: `./dev fuzz` fails unless the sanitizers stop it at its seed, and unless the fuzzer
// finds such an input by itself, which it can only with coverage of the code under test.
#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shardwright;
  const SharedBytes bytes = fuzz::copy_of(fuzz::Input(data, size).rest());
  const auto at = [&](int64_t i) {
    return i < bytes.size ? std::to_integer<char>(bytes.data[i]) : '\0';
  };
  if (at(0) == 's' && at(1) == 'w' && at(2) == '!') {
    [[maybe_unused]] volatile const std::byte past_the_end = bytes.data[size];
  }
  return 0;
}
