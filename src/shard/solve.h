// Which split each operator gets: strategies from rules, constraints from the mode, one exact
// solver.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ir/graph.h"
#include "shard/colours.h"
#include "shard/machine.h"
#include "shard/strategies.h"

namespace shardwright::shard {

enum class Mode : uint8_t { kNone, kBatch, kWeight, kAuto };
const char* mode_name(Mode mode);  // "none", "batch", "weight", "auto"

struct SolveOptions {
  Mode mode = Mode::kNone;
  int n_chips = 1;
  Machine machine = {};
  // Fixed by a rule, in weight and auto mode: (index of the graph, node) -> name of the factor of
  // the node's rule ("m", "k"), and who said so ("rules.yaml:12 llama2_qkv").
  struct Fixed {
    std::string factor;
    std::string reason;
  };
  std::map<std::pair<int, ir::NodeId>, Fixed> fixed = {};
  // One node that splits this factor of its rule (-1: runs whole), whatever mode, rules and cost
  // say of it: what another choice would have cost.
  struct WhatIf {
    int graph;
    ir::NodeId node;
    int factor;
  };
  std::optional<WhatIf> what_if = {};
};

struct Reason {
  std::string who;             // "mode weight", "rules.yaml:12 llama2_qkv", "cost"
  std::string text;            // "clean dimension m", "2.1 us less than the next best (split k)"
  std::string fell_back = {};  // why what the mode prefers can't be had; "" if it could
};

// The plan of one graph.
struct Solution {
  SolveOptions options;
  Colours colours;
  std::vector<std::shared_ptr<const ops::Rule>> rules;  // of each node
  std::vector<int> kinds;  // of each node: equal where nodes are alike to the solver (layers)
  std::vector<Strategy> strategies;   // chosen, of each node
  std::vector<State> inputs;          // state of each graph input
  std::map<ir::ValueId, State> hubs;  // the state that a value with several consumers is kept in
  std::vector<State> outputs;         // state of each graph output
  std::vector<Reason> reasons;        // of each node
  std::vector<std::string> notes;  // for people: heads that don't divide, gemms that fell back, ...
  double seconds = 0;              // modelled, of this graph
};

// Solves the graphs of a module one after another, that of least work first; parameters and buffers
// that it shares with later ones stay as it stores them. Each is solved exactly (bucket
// elimination). Throws Error(kUsage): batch smaller than the chips (M1: says
// the smallest batch that works), a fixed split that can't be had.
std::vector<Solution> solve(const ir::Module& module, const SolveOptions& options);

// What solve() minimises, for tests: {"variables": [{"name", "costs"}], "tables": [{"a", "b",
// "costs": rows of a by columns of b}], "optimum": cost, "choice": [index]}.
std::string problem_json(const ir::Module& module, const SolveOptions& options);

// A random valid strategy for every node, hub, input and output: any combination is legal. For
// tests.
Solution random_solution(const ir::Graph& graph, int n_chips, uint64_t seed);

}  // namespace shardwright::shard
