// Each broken graph is caught, and the message says what is wrong.
#include "ir/verify.h"

#include <gtest/gtest.h>

#include <functional>

#include "base/error.h"
#include "ir/text.h"

namespace shardwright::ir {
namespace {

constexpr const char* kGood = R"(tensor 0 "w": f32[4, 3] parameter
graph g {
  input %x: f32[2, 3] = user_input "x"
  input %w: f32[4, 3] = parameter "w" of 0 offset 0 strides [3, 1]
  %y: f32[2, 4] = linear(%x, %w, -)
  %z: f32[2, 4] = add(%y, %y) {alpha=1}
  output %z = user_output "z"
}
)";

constexpr const char* kGoodLocal = R"(graph chip0 {
  input %x: f32[1, 3] = user_input "x" piece [0:1, 0:3]
  %e: f32[2, 3] = exchange(%x) {kind="all_gather", combine="copy", from_dim=0, from_cuts=[0, 1, 1, 2], to_dim=-1, to_cuts=[], shape=[2, 3], n=2}
  %y: f32[2, 3] = mul(%e, %e) begin {a0=1}
  output %y = user_output "y" piece [0:2, 0:3]
}
)";

void expect_bug(const char* text, Stage stage, const std::string& message,
                const std::function<void(Graph&)>& damage = {}) {
  Module module = parse(text);
  if (damage) damage(module.graphs[0]);
  try {
    verify(module, module.graphs[0], stage);
    FAIL() << "not caught: " << message;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBug);
    EXPECT_NE(std::string(error.what()).find(message), std::string::npos) << error.what();
  }
}

TEST(Verify, GoodGraphs) {
  const Module module = parse(kGood);
  for (const Stage stage : {Stage::kImported, Stage::kCanonical, Stage::kSolved})
    verify(module, module.graphs[0], stage);
  const Module local = parse(kGoodLocal);
  verify(local, local.graphs[0], Stage::kLocal);
}

TEST(Verify, Values) {
  const Stage stage = Stage::kImported;
  expect_bug(kGood, stage, "%x occurs twice", [](Graph& g) { g.values[1].name = "x"; });
  expect_bug(kGood, stage, "not made before", [](Graph& g) { std::swap(g.nodes[0], g.nodes[1]); });
  expect_bug(kGood, stage, "is made twice", [](Graph& g) { g.nodes[1].outputs[0] = 2; });
  expect_bug(kGood, stage, "has no value", [](Graph& g) { g.outputs[0].value = 9; });
  expect_bug(kGood, stage, "operand weight is absent",
             [](Graph& g) { g.nodes[0].inputs[1] = kNoValue; });
  expect_bug(kGood, stage, "has 4 operands", [](Graph& g) { g.nodes[0].inputs.push_back(0); });
  expect_bug(kGood, stage, "its rule gives f32[2, 4]",
             [](Graph& g) { g.values[2].type.dtype = DType::kBF16; });
}

TEST(Verify, Refs) {
  const Stage stage = Stage::kImported;
  expect_bug(kGood, stage, "outside its tensor", [](Graph& g) { g.inputs[1].ref.offset = 1; });
  expect_bug(kGood, stage, "no such tensor", [](Graph& g) { g.inputs[1].ref.tensor = 1; });
  expect_bug(kGood, stage, "input w occurs twice", [](Graph& g) { g.inputs[0].name = "w"; });
}

TEST(Verify, Stages) {
  expect_bug(kGoodLocal, Stage::kImported, "the graph is global");
  const auto with_bias = [](Graph& g) {
    const ValueId bias = g.add_value({DType::kF32, {4}}, "bias");
    g.inputs.push_back({bias, InputRole::kUserInput, "bias", {}});
    g.nodes[0].inputs[2] = bias;
  };
  expect_bug(kGood, Stage::kCanonical, "is not canonical", with_bias);
}

TEST(Verify, Local) {
  const Stage stage = Stage::kLocal;
  expect_bug(kGoodLocal, stage, "does not have the value's shape",
             [](Graph& g) { g.inputs[0].piece[0].end = 2; });
  expect_bug(kGoodLocal, stage, "are the pieces of no chip", [](Graph& g) {
    g.values[1].type.shape = {3, 3};
  });
  expect_bug(kGoodLocal, stage, "begin of a0", [](Graph& g) { g.nodes[1].begins[0].second = -1; });
  expect_bug(kGoodLocal, stage, "CHECK(numbers.size() % 2 == 0)", [](Graph& g) {
    g.nodes[0].attrs.set("from_cuts", std::vector<int64_t>{0, 1, 1});
  });
}

}  // namespace
}  // namespace shardwright::ir
