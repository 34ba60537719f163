// quantize_weights: which parameters it takes, and that they mean what they meant.
#include "passes/quantize_weights.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "base/error.h"
#include "ir/interpret.h"
#include "ir/text.h"
#include "ir/verify.h"

namespace shardwright::passes {
namespace {

std::vector<std::string> names_of(const ir::Module& module) {
  std::vector<std::string> names;
  for (const ir::LogicalTensor& tensor : module.tensors)
    names.push_back(tensor.name + " " + to_string(tensor.type));
  return names;
}

int count_nodes(const ir::Graph& graph, std::string_view op) {
  int count = 0;
  for (const ir::Node& node : graph.nodes) count += node.op->name == op ? 1 : 0;
  return count;
}

// Weights of whole numbers up to 127 that some element of each row reaches: int8 holds them.
TEST(QuantizeWeights, KeepsWhatInt8Holds) {
  ir::Module module = ir::parse(R"(tensor 0 "table": f32[3, 2] parameter = [127, 1, 2, -127, 0, 0]
tensor 1 "w": f32[2, 4] parameter = [254, 2, 0, -4, 8, 63.5, 1, 0]
tensor 2 "norm": f32[2] parameter = [1, 2]
graph g {
  input %ids: i64[4] = user_input "ids"
  input %table: f32[3, 2] = parameter "table" of 0 offset 0 strides [2, 1]
  input %a: f32[2, 2] = parameter "w[1:0:2]" of 1 offset 0 strides [4, 1]
  input %b: f32[2, 2] = parameter "w.T[1:2:4]" of 1 offset 2 strides [1, 4]
  input %norm: f32[2] = parameter "norm" of 2 offset 0 strides [1]
  %h: f32[4, 2] = embedding(%table, %ids)
  %n: f32[4, 2] = mul(%h, %norm)
  %y: f32[4, 2] = linear(%n, %a, -)
  %z: f32[4, 2] = linear(%y, %b, -)
  %logits: f32[4, 3] = linear(%z, %table, -)
  output %logits = user_output "logits"
})");
  ir::RefMap inputs;
  inputs["ids"] = ops::RefTensor(TensorType{DType::kI64, {4}});
  inputs["ids"].data = {2, 0, 1, 1};
  const ir::RefMap want = ir::interpret(module, module.graphs[0], inputs);
  quantize_weights(module);
  ir::verify(module, module.graphs[0], ir::Stage::kCanonical);
  EXPECT_EQ(names_of(module),
            (std::vector<std::string>{"norm f32[2]", "table.int8 i8[3, 2]", "table.scale f32[3]",
                                      "w[1:0:2].int8 i8[2, 2]", "w[1:0:2].scale f32[2]",
                                      "w.T[1:2:4].int8 i8[2, 2]", "w.T[1:2:4].scale f32[2]"}));
  EXPECT_EQ(count_nodes(module.graphs[0], "linear_int8"), 3);
  EXPECT_EQ(count_nodes(module.graphs[0], "embedding_int8"), 1);
  const ir::RefMap got = ir::interpret(module, module.graphs[0], inputs);
  for (size_t i = 0; i < want.at("logits").data.size(); ++i) {
    const double expected = want.at("logits").data[i];
    EXPECT_NEAR(got.at("logits").data[i], expected, 1e-5 * std::abs(expected)) << i;
  }
}

TEST(QuantizeWeights, ErrorIsHalfAStepAtMost) {
  const std::string text = R"(tensor 0 "w": f32[5, 33] parameter
graph g {
  input %x: f32[33, 33] = user_input "x"
  input %w: f32[5, 33] = parameter "w" of 0 offset 0 strides [33, 1]
  %y: f32[33, 5] = linear(%x, %w, -)
  output %y = user_output "y"
})";
  ir::Module module = ir::parse(text);
  ops::RefTensor x(TensorType{DType::kF32, {33, 33}});
  for (size_t i = 0; i < 33; ++i) x.data[i * 33 + i] = 1;  // y is the weight, transposed
  std::mt19937 random(3);
  std::normal_distribution<float> number(0, 1);
  std::byte* data = nullptr;
  module.tensors[0].bytes = SharedBytes::allocate(5 * 33 * 4, &data);
  std::vector<float> w(5 * 33);
  for (size_t i = 0; i < 4 * 33; ++i) w[i] = number(random);  // and a row of zeros
  std::memcpy(data, w.data(), sizeof(float) * w.size());
  quantize_weights(module);
  const ir::RefMap got = ir::interpret(module, module.graphs[0], {{"x", x}});
  for (size_t n = 0; n < 5; ++n) {
    float most = 0;
    for (size_t k = 0; k < 33; ++k) most = std::max(most, std::abs(w[n * 33 + k]));
    for (size_t k = 0; k < 33; ++k)
      EXPECT_LE(std::abs(got.at("y").data[k * 5 + n] - w[n * 33 + k]), 0.5001 * most / 127);
  }
}

TEST(QuantizeWeights, LeavesWhatOthersRead) {
  const std::string head = R"(tensor 0 "w": f32[2, 2] parameter = [1, 2, 3, 4]
graph g {
  input %x: f32[2, 2] = user_input "x"
  input %w: f32[2, 2] = parameter "w" of 0 offset 0 strides [2, 1]
  %y: f32[2, 2] = linear(%x, %w, -)
)";
  for (const char* rest :
       {"  %z: f32[2, 2] = add(%y, %w) {alpha=1}\n", "  %z: f32[2, 2] = matmul(%y, %w)\n",
        "  %z: f32[2, 2] = linear(%w, %w, -)\n"}) {
    ir::Module module = ir::parse(head + rest + "  output %z = user_output \"z\"\n}");
    quantize_weights(module);
    EXPECT_EQ(names_of(module), std::vector<std::string>{"w f32[2, 2]"}) << rest;
  }
  // What one graph needs whole stays whole in all.
  ir::Module two =
      ir::parse(head + "  output %y = user_output \"y\"\n}\ngraph h {\n" +
                "  input %x: f32[2, 2] = user_input \"x\"\n"
                "  input %w: f32[2, 2] = parameter \"w\" of 0 offset 0 strides [2, 1]\n"
                "  %y: f32[2, 2] = mul(%x, %w)\n  output %y = user_output \"y\"\n}");
  quantize_weights(two);
  EXPECT_EQ(names_of(two), std::vector<std::string>{"w f32[2, 2]"});
}

TEST(QuantizeWeights, RefusesWhatIsNotFinite) {
  ir::Module module = ir::parse(R"(tensor 0 "w": f32[1, 2] parameter = [1, inf]
graph g {
  input %x: f32[2, 2] = user_input "x"
  input %w: f32[1, 2] = parameter "w" of 0 offset 0 strides [2, 1]
  %y: f32[2, 1] = linear(%x, %w, -)
  output %y = user_output "y"
})");
  try {
    quantize_weights(module);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(),
                 "weight w holds inf, which int8 can't; compile with precision f32 or bf16");
  }
}

}  // namespace
}  // namespace shardwright::passes
