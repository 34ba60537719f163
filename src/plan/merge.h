// From the steps of a fusion group to one step.
#pragma once

#include <string>
#include <vector>

#include "pef/fused.h"
#include "plan/graph_planner.h"

namespace shardwright::plan {

// What became of a fusion group.
struct GroupPlan {
  int parts = 0;        // operators that do something (views that are aliases don't)
  int steps = 0;        // that they became: 1 where all run as one
  std::string why_not;  // "" if they do
  // On each chip: bytes of the operands and results of the parts, less those of the steps.
  std::vector<int64_t> saved_bytes;
};

// Steps that stand side by side and are of one group become a fused step; where `why_not_fused`
// refuses, the longest runs that it allows. What no step outside reads or writes becomes scratch.
// `pieces[chip]`. Returns a plan for each of the graph's `n_groups`.
std::vector<GroupPlan> merge_groups(GraphPlan& graph, size_t n_groups,
                                    const std::vector<const std::vector<pef::Piece>*>& pieces,
                                    pef::WhyNotFused why_not_fused);

}  // namespace shardwright::plan
