// Building graphs: names, scalars, producers and consumers.
#include "ir/graph.h"

#include <gtest/gtest.h>

#include "ir/text.h"
#include "ir/verify.h"

namespace shardwright::ir {
namespace {

const ops::OpDef& op(const char* name) { return *ops::find_op(name); }

TEST(Graph, NamesAreUnique) {
  Graph graph;
  EXPECT_EQ(graph.values[graph.add_value({}, "x")].name, "x");
  EXPECT_EQ(graph.values[graph.add_value({}, "x")].name, "x_1");
  EXPECT_EQ(graph.values[graph.add_value({}, "v3")].name, "v3");
  EXPECT_EQ(graph.values[graph.add_value({})].name, "v3_4");
  EXPECT_EQ(graph.values[graph.add_value({}, "a b/c")].name, "a_b_c");
}

TEST(Graph, AppendInfersTypesAndFillsDefaults) {
  Module module;
  Graph graph;
  const ValueId x = graph.add_value({DType::kF32, {2, 3}}, "x");
  const ValueId w = graph.add_value({DType::kF32, {4, 3}}, "w");
  graph.inputs.push_back({x, InputRole::kUserInput, "x", {}});
  graph.inputs.push_back({w, InputRole::kUserInput, "w", {}});
  const ValueId y = append(graph, op("linear"), {x, w});
  EXPECT_EQ(graph.type(y), (TensorType{DType::kF32, {2, 4}}));
  EXPECT_EQ(graph.nodes[0].inputs, (std::vector<ValueId>{x, w, kNoValue}));
  const ValueId z = append(graph, op("add"), {y, y});
  EXPECT_EQ(graph.nodes[1].attrs.integer("alpha"), 1);
  graph.outputs.push_back({z, OutputRole::kUserOutput, "z"});
  EXPECT_EQ(graph.producers(), (std::vector<NodeId>{-1, -1, 0, 1}));
  EXPECT_EQ(graph.consumers()[static_cast<size_t>(y)], (std::vector<NodeId>{1}));
  verify(module, graph, Stage::kImported);
}

TEST(Graph, ScalarsAreShared) {
  Module module;
  Graph graph;
  const ValueId half = add_scalar(module, graph, DType::kF32, 0.5);
  EXPECT_EQ(add_scalar(module, graph, DType::kF32, 0.5), half);
  EXPECT_NE(add_scalar(module, graph, DType::kBF16, 0.5), half);
  EXPECT_NE(add_scalar(module, graph, DType::kF32, -0.5), half);
  EXPECT_EQ(module.tensors.size(), 3U);
}

}  // namespace
}  // namespace shardwright::ir
