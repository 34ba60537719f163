// Node kinds: nodes that look alike to the solver (layers repeat) share rule, strategies and costs.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ir/graph.h"
#include "shard/constraints.h"
#include "shard/cost.h"
#include "shard/solve.h"

namespace shardwright::shard {

// Numbers for equal keys, in order of first sight.
template <typename Key>
class Interner {
 public:
  int operator()(const Key& key) {
    const auto [it, added] = ids_.try_emplace(key, static_cast<int>(keys_.size()));
    if (added) keys_.push_back(&it->first);
    return it->second;
  }
  const Key& operator[](int id) const { return *keys_[static_cast<size_t>(id)]; }

 private:
  std::map<Key, int> ids_;
  std::vector<const Key*> keys_;
};

using States = std::vector<State>;  // one a value of a variable

// Rules of nodes, bound once for equal operators, attributes and operand types.
class RuleCache {
 public:
  std::shared_ptr<const ops::Rule> rule_of(const ir::Graph& graph, const ir::Node& node);

 private:
  struct Entry {
    const ir::Graph* graph;
    const ir::Node* node;
    std::shared_ptr<const ops::Rule> rule;
  };
  std::unordered_map<size_t, std::vector<Entry>> entries_;  // by hash of operator and types
};

struct NodeKind {
  std::vector<Strategy> strategies = {};  // that the constraints leave
  std::vector<Cost> costs = {};           // of each
  Reason reason;
  std::string note;
  std::vector<int> operand_states = {};  // ids of States: of each operand by strategy
  std::vector<int> result_states = {};
};

// What is known of a graph before kinds can be told apart.
struct GraphFacts {
  const ir::Graph* graph = nullptr;
  const Colours* colours = nullptr;
  std::vector<std::shared_ptr<const ops::Rule>> rules = {};
  std::vector<ir::NodeId> producers = {};               // of each value
  std::vector<std::vector<ir::NodeId>> consumers = {};  // of each value
  std::vector<int> readers = {};                        // of each value: nodes and outputs
  // Of each value: the parameter that it is computed from alone (an index of Graph::inputs; casts,
  // transposes), or -1.
  std::vector<int> origin = {};
  std::vector<int> value_kinds = {};  // of each value: equal types, cut alike
};

class Kinds {
 public:
  explicit Kinds(const SolveOptions& options) : options_(options) {}

  // Value kinds of a graph, once its colours are known.
  void number_values(GraphFacts* facts);
  // The kind of a node; `graph` is its graph's index.
  int kind_of(const GraphFacts& facts, int graph, ir::NodeId node);
  const NodeKind& operator[](int kind) const { return *kinds_[static_cast<size_t>(kind)]; }
  Interner<States>& states() { return states_; }
  const Interner<States>& states() const { return states_; }

 private:
  NodeContext context_of(const GraphFacts& facts, ir::NodeId node) const;
  NodeKind make(const GraphFacts& facts, ir::NodeId node, const SolveOptions::Fixed* fixed,
                const SolveOptions::WhatIf* what_if, const NodeContext& context);
  int colour_class(const Colours& colours, int colour);

  const SolveOptions& options_;
  Interner<std::pair<std::string, std::string>> fixed_;  // factors and reasons
  Interner<std::vector<int64_t>> classes_;               // of colours that cut alike
  std::vector<int> class_of_colour_;
  Interner<std::vector<int64_t>> value_kinds_;
  std::map<std::vector<int64_t>, int> ids_;
  std::vector<std::unique_ptr<NodeKind>> kinds_;
  Interner<States> states_;
};

GraphFacts facts_of(const ir::Graph& graph, RuleCache* rules);

}  // namespace shardwright::shard
