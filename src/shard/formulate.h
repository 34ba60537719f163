// The problem that solve() minimises: a variable for each node, for each value that several read
// (its hub), and for each stored tensor; a table for each conversion.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "shard/kinds.h"
#include "shard/minimise.h"

namespace shardwright::shard {

// A graph's variables in the problem.
struct GraphVariables {
  std::vector<int> kinds;           // of each node
  std::vector<int> nodes;           // variable of each node
  std::vector<int> inputs;          // variable of each graph input
  std::map<ir::ValueId, int> hubs;  // variable of each value that has a hub
};

class Formulation {
 public:
  Formulation(const ir::Module& module, const SolveOptions& options);

  Problem problem;
  std::vector<std::vector<State>> states;  // of each input and hub variable, by choice
  std::vector<int> graph_of_variable;      // of each variable: the graph that pays its costs
  std::vector<int> graph_of_table;
  std::vector<Colours> colours;  // of each graph
  std::vector<GraphFacts> facts;
  std::vector<GraphVariables> graphs;

  const NodeKind& kind(size_t graph, size_t node) const {
    return kinds_[graphs[graph].kinds[node]];
  }
  Mode mode() const { return options_.mode; }
  // The cheapest state in which an output can leave: not partial, copies equal.
  State output_state(size_t graph, const ir::Output& output, const State& from) const;

 private:
  // The variable that decides a value's state, and the id of its States.
  struct Source {
    int variable = -1;
    int states = -1;
  };
  struct Reader {
    int variable = -1;
    std::vector<int> operands;  // ids of the States of the operands that are this value
    bool in_panels = false;     // it would be read as the gemm's packed weight
  };
  using Tables = std::map<std::vector<int>, std::shared_ptr<const std::vector<Cost>>>;

  int add_variable(size_t graph, std::string name, std::vector<Cost> costs,
                   std::vector<State> states = {});
  void add_nodes(size_t graph);
  void add_inputs();
  void add_edges(size_t graph);
  void add_table(size_t graph, ir::ValueId value, Source from, const Reader& to);
  void charge_outputs(size_t graph, ir::ValueId value, Source source);
  States input_states(const std::vector<std::pair<size_t, size_t>>& uses);
  void find_stored_split(size_t graph);
  std::vector<Reader> readers_of(size_t graph, ir::ValueId value) const;
  Cost conversion_cost(size_t graph, ir::ValueId value, const State& from, const State& to) const;

  const ir::Module& module_;
  const SolveOptions& options_;
  RuleCache rules_;
  Kinds kinds_;
  std::vector<std::vector<bool>> stored_split_;  // of each graph's inputs: never kept whole
  Tables tables_;  // by value kind, states from, states to...; null: all zero
};

}  // namespace shardwright::shard
