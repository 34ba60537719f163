// split_linear: a linear whose result is cut into pieces becomes one linear a piece.
#pragma once

#include "ir/graph.h"

namespace shardwright::passes {

// Fused QKV or gate_up weights. Where a piece is no plain part of the weight (rows interleaved by
// head), it becomes a logical tensor of its own over the same bytes.
void split_linear(ir::Module& module, ir::Graph& graph);

}  // namespace shardwright::passes
