// check_supported: all operators without a kernel at once, with the place of the first of each.
#include "passes/check_supported.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "ir/text.h"

namespace shardwright::passes {
namespace {

TEST(CheckSupported, ListsEveryOperatorOnce) {
  const ir::Module module = ir::parse(R"(graph forward {
  %a: i64[3] = arange() {start=0, end=3, step=1, dtype=i64} @ "model.positions" "model.py":4
  %b: i64[3] = arange() {start=3, end=6, step=1, dtype=i64} @ "model.later" "model.py":5
  %c: f32[3] = full() {size=[3], fill_value=1.0, dtype=f32} @ "model.ones" "model.py":6
  %y: f32[3] = neg(%c)
  output %y = user_output "y"
})");
  try {
    check_supported(module.graphs[0]);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_EQ(std::string(error.what()),
              "graph forward uses 2 operators that can only be computed on constants:\n"
              "  arange (2 times), first in model.positions (arange), model.py:4\n"
              "  full (1 time), first in model.ones (full), model.py:6\n"
              "Express them by supported operators (docs/ops.md lists these) and capture again.");
  }
}

TEST(CheckSupported, AcceptsOperatorsWithKernels) {
  const ir::Module module = ir::parse(R"(graph forward {
  input %x: f32[3] = user_input "x"
  %y: f32[3] = neg(%x)
  output %y = user_output "y"
})");
  EXPECT_NO_THROW(check_supported(module.graphs[0]));
}

}  // namespace
}  // namespace shardwright::passes
