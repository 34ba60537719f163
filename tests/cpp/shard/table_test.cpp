// The table test: every sample of every operator and every node of the small models, under every
// strategy, on 2 to 5 chips, by the reference and by the kernel.
#include <gtest/gtest.h>

#include "base/check.h"
#include "shard/chips.h"
#include "shard/models.h"

namespace shardwright::shard {
namespace {

struct Counts {
  int nodes = 0;
  int strategies = 0;  // times numbers of chips
};

void check_node(NodeCase c, const std::string& what, Counts* counts) {
  ++counts->nodes;
  for (const Strategy& strategy : strategies_of(c.graph, c.node, c.rule, c.colours)) {
    ++counts->strategies;
    const std::string where =
        what + ", " + strategy.name + ", " + std::to_string(c.colours.n_chips) + " chips, seed 1";
    c.tolerance = 1e-9;
    EXPECT_EQ(check_strategy(c, strategy, run_reference_node, 1), "") << where << ", reference";
    if (c.node.op->make_kernel == nullptr) continue;
    c.tolerance = kernel_tolerance(c.whole, c.operands);
    EXPECT_EQ(check_strategy(c, strategy, run_kernel_node, 1), "") << where << ", kernel";
  }
}

TEST(Table, EverySampleOfEveryOperator) {
  Counts counts;
  for (const ops::OpDef* op : ops::all_ops()) {
    if (op->reference == nullptr) continue;
    for (const std::string_view text : op->samples) {
      const ops::Sample sample = ops::parse_sample(*op, text);
      if (!is_canonical(*op, sample.attrs, sample.operands)) continue;
      const OneNode one = one_node(*op, sample, 3);
      const ir::Node& node = one.graph.nodes[0];
      const ops::Rule rule = ops::rule_of(*op, node.attrs, one.graph.operand_types(node));
      for (int n = 2; n <= 5; ++n) {
        const Colours colours = colour(one.graph, {rule}, n);
        check_node({one.graph, node, rule, colours, one.operands, one.whole},
                   std::string(op->name) + "(" + std::string(text) + ")", &counts);
      }
    }
  }
  std::printf("%d samples x chips, %d strategies\n", counts.nodes, counts.strategies);
  EXPECT_GT(counts.strategies, 1000);
}

void check_model(const Model& model, Counts* counts) {
  const ir::Graph& graph = model.graph();
  const std::vector<ops::RefTensor> values = all_values(model.module, graph, model.inputs);
  std::vector<ops::Rule> rules;
  for (const ir::Node& node : graph.nodes)
    rules.push_back(ops::rule_of(*node.op, node.attrs, graph.operand_types(node)));
  for (int n = 2; n <= 5; ++n) {
    const Colours colours = colour(graph, rules, n);
    for (size_t i = 0; i < graph.nodes.size(); ++i) {
      const ir::Node& node = graph.nodes[i];
      Tensors operands;
      for (const ir::ValueId id : node.inputs)
        operands.push_back(id == ir::kNoValue ? std::nullopt
                                              : std::optional(values[static_cast<size_t>(id)]));
      std::vector<ops::RefTensor> whole;
      for (const ir::ValueId id : node.outputs) whole.push_back(values[static_cast<size_t>(id)]);
      check_node({graph, node, rules[i], colours, operands, whole}, graph.describe(node), counts);
    }
  }
}

TEST(Table, EveryNodeOfTheModels) {
  Counts counts;
  check_model(llama({}), &counts);
  check_model(llama({.heads = 5, .kv_heads = 1, .hidden = 10}), &counts);
  check_model(llama({.batch = 3}, true), &counts);
  check_model(gpt2({}), &counts);
  check_model(bert({.batch = 3}), &counts);
  std::printf("%d nodes x chips, %d strategies\n", counts.nodes, counts.strategies);
  EXPECT_GT(counts.strategies, 2000);
}

}  // namespace
}  // namespace shardwright::shard
