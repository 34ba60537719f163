// Strategies: the ways in which one node can run on n chips, read off its rule.
#pragma once

#include <string>
#include <vector>

#include "ir/graph.h"
#include "shard/colours.h"

namespace shardwright::shard {

// One way to run a node: the states of its operands and results.
struct Strategy {
  std::string name;  // "none", "split m", "split h own", "split m even", "linear x y"
  int factor = -1;   // of the node's rule that is split; -1: none or a linear group
  Variant variant = Variant::kSame;  // of that split
  std::vector<State> operands;       // absent operands: whole
  std::vector<State> results;
};

// All strategies of a node (before constraints), in a fixed order: "none" first.
std::vector<Strategy> strategies_of(const ir::Graph& graph, const ir::Node& node,
                                    const ops::Rule& rule, const Colours& colours);

// What a strategy makes of a node on one chip; partition and the tests are built on these.
// The rows of each dimension of `value` that a chip holds.
std::vector<Range> piece_of(const ir::Graph& graph, ir::ValueId value, const State& state,
                            const Colours& colours, int chip);
// Cuts of the factor that a strategy splits.
Cuts strategy_cuts(const ir::Graph& graph, const ir::Node& node, const ops::Rule& rule,
                   const Strategy& strategy, const Colours& colours);
// Cuts of the dimension that a split state cuts: own_cuts for own, even_cuts for even.
Cuts state_cuts(const ir::Graph& graph, ir::ValueId value, const State& state,
                const Colours& colours);
TensorType local_type(const ir::Graph& graph, ir::ValueId value, const State& state,
                      const Colours& colours, int chip);
// Node::begins on a chip: where its range of the split factor starts.
std::vector<std::pair<std::string, int64_t>> begins_of(const ir::Graph& graph, const ir::Node& node,
                                                       const ops::Rule& rule,
                                                       const Strategy& strategy,
                                                       const Colours& colours, int chip);

}  // namespace shardwright::shard
