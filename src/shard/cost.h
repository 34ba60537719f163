// The cost model: seconds of a node's largest local piece, and of conversions.
#pragma once

#include "ir/graph.h"
#include "shard/machine.h"
#include "shard/strategies.h"

namespace shardwright::shard {

// Costs in the solver are whole numbers, so that sums don't depend on their order: picoseconds
// times 1024, and in the lower bits what decides between equal times.
using Cost = int64_t;
inline constexpr Cost kCostPerPicosecond = 1024;
inline constexpr Cost kCollectiveTie = 8;  // fewer collectives
inline constexpr Cost kWholeTie = 1;       // a parameter that costs nothing to split is split
Cost cost_of_seconds(double seconds);      // capped far below overflow
double seconds_of(Cost cost);

// Where a node stands, as far as its cost depends on it.
struct NodeContext {
  // It adds a gemm's result that nothing else reads: the gemm accumulates instead.
  bool adds_gemm_result = false;
};

double node_seconds(const ir::Graph& graph, const ir::Node& node, const ops::Rule& rule,
                    const Strategy& strategy, const Colours& colours, const Machine& machine,
                    const NodeContext& context);

// Adds up products over a factor (linear, matmul) or picks rows of one operand (embedding).
bool is_gemm(const ir::Node& node, const ops::Rule& rule);

// Converting `value` from one state to another.
double conversion_seconds(const ir::Graph& graph, ir::ValueId value, const State& from,
                          const State& to, const Colours& colours, const Machine& machine);
// The same of an exchange that converts it.
double exchange_seconds(const ops::Exchange& exchange, DType dtype, const Machine& machine);

}  // namespace shardwright::shard
