// The text form of graphs: what parses, prints, and what is printed parses to the same text.
#include "base/check.h"
#include "fuzz.h"
#include "ir/text.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shardwright;
  fuzz::expect_error_at_most([&] {
    const std::string text = ir::print(ir::parse(fuzz::Input(data, size).rest()));
    try {
      CHECK(ir::print(ir::parse(text)) == text);
    } catch (const Error& error) {
      CHECK(false, std::string("what was printed does not parse: ") + error.what());
    }
  });
  return 0;
}
