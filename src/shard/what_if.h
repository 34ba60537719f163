// What choices not taken would have cost: the module solved again with one node forced.
#pragma once

#include <vector>

#include "shard/solve.h"

namespace shardwright::shard {

struct Alternative {
  int factor = -1;           // of the node's rule; -1: whole on every chip
  double seconds = 0;        // modelled, of all graphs, more than the plan's; negative: less
  int64_t weight_bytes = 0;  // more parameters on the chip that holds most
};

// Each other factor that the node could split, and running whole, forced, with all else solved anew
// (exact, not a guess from the neighbours); the fastest first. `plan` is solve()'s of `module`.
// Constraints on the node itself don't count: an alternative may be faster than what the mode
// demands, and cost memory. Takes about the time of solve() for each.
std::vector<Alternative> alternatives_of(const ir::Module& module,
                                         const std::vector<Solution>& plan, int graph,
                                         ir::NodeId node);

}  // namespace shardwright::shard
