// Hard constraints: which strategies of a node the mode and the user's rules leave.
#pragma once

#include <string>
#include <vector>

#include "ir/graph.h"
#include "shard/solve.h"

namespace shardwright::shard {

struct Allowed {
  std::vector<int> strategies;  // indices; never empty
  Reason reason;                // empty `who`: left to cost
  std::string note;             // for people, "" for none; printed once with the nodes it is about
};

// What the constraints see of a node.
struct ConstraintView {
  const ir::Graph& graph;
  const ir::Node& node;
  const ops::Rule& rule;
  const Colours& colours;
  const std::vector<Strategy>& strategies;
  const std::vector<bool>& is_weight;  // of each operand: computed from parameters alone
  const SolveOptions::Fixed* fixed = nullptr;
  const SolveOptions::WhatIf* what_if = nullptr;
};

// Throws Error(kUsage) if a fixed split can't be had.
Allowed allowed_strategies(const ConstraintView& view, const SolveOptions& options);

// M1: throws Error(kUsage) if the batch of a graph is smaller than the number of chips.
void check_batch(const ir::Graph& graph, int n_chips);

}  // namespace shardwright::shard
