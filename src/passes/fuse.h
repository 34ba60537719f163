// fuse: which operators run as one step, as -o3 sees it.
#pragma once

#include "ir/graph.h"

namespace shardwright::passes {

// Marks groups in a canonical graph that has none (ir::Node::group):
//   gemm   linears that read the same x, each with the elementwise operators that follow it
//          (bias, activation, gate, residual, cast); behind them the norms of their results and
//          what follows these row by row
//   rows   elementwise operators, norms, softmax, sums over the last dimension and cats in it that
//          feed each other row by row
// A group is closed: no path leaves it and comes back. A single operator is no group.
void fuse(ir::Module& module, ir::Graph& graph);

}  // namespace shardwright::passes
