// Which split each operator gets: strategies from rules, constraints from the mode, one exact
// solver.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ir/graph.h"
#include "shard/machine.h"
#include "shard/state.h"

namespace shardwright::shard {

enum class Mode : uint8_t { kNone, kBatch, kWeight, kAuto };

struct SolveOptions {
  Mode mode = Mode::kNone;
  int n_chips = 1;
  Machine machine;
  // Fixed by a rule: node -> name of the factor of its rule ("m", "k"), and who said so
  // ("rules.yaml:12 llama2_qkv").
  struct Fixed {
    std::string factor;
    std::string reason;
  };
  std::map<ir::NodeId, Fixed> fixed;
};

// One way to run a node: the states of its operands and results.
struct Strategy {
  std::string name;             // "none", "split m", "linear x y", "split h own"
  int factor = -1;              // of the node's rule that is split; -1: none or a linear group
  std::vector<State> operands;  // absent operands: whole
  std::vector<State> results;
};

// (value, dim) pairs that are cut alike.
struct Colours {
  // colour of each value's dimension; -1: a dimension of size 1
  std::vector<std::vector<int>> of;
  struct Colour {
    int64_t grains = 1;
    int follows = -1;  // a KV colour covers the cuts of this one, `share` rows of it a row
    int64_t share = 1;
    bool dirty = false;  // some operator needs one of its dimensions whole
    bool batch = false;  // holds dimension 0 of a user input
    std::vector<std::pair<ir::ValueId, int>> members;
  };
  std::vector<Colour> colours;
  int n_chips = 1;

  // The cuts of dimension `dim` of `value`, whose size is `size`, over the chips.
  Cuts cuts(ir::ValueId value, int dim, int64_t size) const;
};

struct Reason {
  std::string who;   // "mode weight", "rules.yaml:12 llama2_qkv", "cost"
  std::string text;  // "clean dimension m", "2.1 us less than the next best (split k)"
};

struct Solution {
  SolveOptions options;
  Colours colours;
  std::vector<ops::Rule> rules;       // of each node
  std::vector<Strategy> strategies;   // chosen, of each node
  std::vector<State> inputs;          // state of each graph input
  std::map<ir::ValueId, State> hubs;  // the state that a value with several consumers is kept in
  std::vector<State> outputs;         // state of each graph output
  std::vector<Reason> reasons;        // of each node
  std::vector<std::string>
      notes;           // for people: heads that don't divide, gemms that fell back to K, ...
  double seconds = 0;  // modelled
};

// All strategies of a node (before constraints), in a fixed order: "none" first.
std::vector<Strategy> strategies_of(const ir::Graph& graph, const ir::Node& node,
                                    const ops::Rule& rule, const Colours& colours);
Colours colour(const ir::Graph& graph, const std::vector<ops::Rule>& rules, int n_chips);

// Solves all graphs of a module together: one variable for each parameter or buffer that graphs
// share. Exact (bucket elimination). Throws Error(kUsage): batch smaller than the chips (M1: says
// the smallest batch that works), a fixed split that can't be had.
std::vector<Solution> solve(const ir::Module& module, const SolveOptions& options);

// A random valid strategy for every node, hub and input: any combination is legal. For tests.
Solution random_solution(const ir::Graph& graph, int n_chips, uint64_t seed);

}  // namespace shardwright::shard
