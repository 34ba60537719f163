// The text form: print(parse(text)) is the text; broken text says where.
#include "ir/text.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"
#include "ir/verify.h"

namespace shardwright::ir {
namespace {

constexpr const char* kModule =
    R"(tensor 0 "layers.0.weight": f32[4, 3] parameter trainable also "head.weight", "x \"y\""
tensor 1 "cache": bf16[2] buffer
tensor 2 "half": f32[] constant = [0.5]
tensor 3 "ids": i64[3] constant = [-1, 9223372036854775807, 0]
tensor 4 "mask": bool[2] constant = [1, 0]
tensor 5 "odd": f32[4] constant = [inf, -inf, 0.10000000149011612, -0.0]

graph forward {
  group 0 "tail" from "rules.yaml:3" split "m"
  input %x: f32[2, 3] = user_input "input_ids"
  input %w: f32[4, 3] = parameter "layers.0.weight" of 0 offset 0 strides [3, 1]
  input %part: f32[2, 3] = parameter "layers.0.weight[0:2:4]" of 0 offset 6 strides [3, 1]
  input %half: f32[] = constant "half" of 2 offset 0 strides []
  %y: f32[2, 4] = linear(%x, %w, -) @ "model.layers.0" "modeling_llama.py":41
  %z: f32[2, 4] = mul(%y, %half) group 0
  %s: f32[2, 4] = softmax(%z) {dim=-1, half_to_float=false} group 0
  output %s = user_output "logits"
  output %z = loss "loss"
}
)";

constexpr const char* kLocal = R"(graph chip1 {
  input %x: f32[1, 3] = user_input "x" piece [1:2, 0:3]
  %e: f32[2, 3] = exchange(%x) {kind="all_gather", combine="copy", from_dim=0, from_cuts=[0, 1, 1, 2], to_dim=-1, to_cuts=[], shape=[2, 3], n=2}
  %y: f32[2, 3] = mul(%e, %e) begin {h=5, q0=0}
  output %y = user_output "y" piece [0:2, 0:3]
}
)";

void expect_broken(const std::string& text, const std::string& message) {
  try {
    parse(text);
    FAIL() << "parsed: " << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBrokenFile);
    EXPECT_NE(std::string(error.what()).find(message), std::string::npos) << error.what();
  }
}

TEST(Text, RoundTrip) {
  EXPECT_EQ(print(parse(kModule)), kModule);
  EXPECT_EQ(print(parse(kLocal)), kLocal);
}

TEST(Text, ParsesWhatItSays) {
  const Module module = parse(kModule);
  verify(module, module.graphs[0], Stage::kImported);
  EXPECT_EQ(module.tensors[0].other_names.size(), 2U);
  EXPECT_TRUE(module.tensors[0].trainable);
  EXPECT_EQ(module.tensors[0].bytes.data, nullptr);
  int64_t largest = 0;
  std::memcpy(&largest, module.tensors[3].view().data + 8, 8);
  EXPECT_EQ(largest, INT64_MAX);
  const Graph& graph = module.graphs[0];
  EXPECT_EQ(graph.nodes[0].inputs[2], kNoValue);
  EXPECT_EQ(graph.describe(graph.nodes[0]), "model.layers.0 (linear), modeling_llama.py:41");
  EXPECT_EQ(graph.describe(graph.nodes[1]), "mul");
  EXPECT_EQ(graph.inputs[2].ref.offset, 6);
}

TEST(Text, CommentsAndSpace) {
  const Module module = parse("# first\ngraph g{input %x:f32[]=user_input \"x\" # here\n\n}");
  EXPECT_EQ(print(module), "graph g {\n  input %x: f32[] = user_input \"x\"\n}\n");
}

TEST(Text, Broken) {
  expect_broken("graph g {\n  input %x: f31[]", "line 2, column 16: 'f31' is not a dtype");
  expect_broken("graph g {\n  %y: f32[] = add(%x)", "%x is not defined above");
  expect_broken("graph g {\n  %y: f32[] = sofmax()", "'sofmax' is not an operator; the nearest");
  expect_broken("graph g {\n  %y: f32[] = neg(%y)", "reads its own result");
  expect_broken("graph g { input %x: f32[] = user \"x\" }", "'user' is not a role");
  expect_broken("graph g { input %x: f32[-1] = user_input \"x\" }", "negative");
  expect_broken("graph g {", "expected group, input, output, a %value or }");
  expect_broken("tensor 1 \"x\": f32[] constant", "numbered 0, 1, 2");
  expect_broken("tensor 0 \"x\": f32[2] constant = [1.0]", "fewer elements");
  expect_broken("tensor 0 \"x\": f32[2] constant = [1.0, 2.0, 3.0]", "more elements");
  expect_broken("tensor 0 \"x\": f32[4611686018427387904] constant", "overflows");
}

// Every prefix of a good text is an error or parses, and never crashes.
TEST(Text, EveryPrefix) {
  const std::string_view text = kModule;
  for (size_t length = 0; length < text.size(); ++length) {
    try {
      parse(text.substr(0, length));
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBrokenFile) << error.what();
    }
  }
}

}  // namespace
}  // namespace shardwright::ir
