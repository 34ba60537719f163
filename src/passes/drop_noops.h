// drop_noops: nodes that give their operand back.
#pragma once

#include "ir/graph.h"

namespace shardwright::passes {

// Copies, casts to the same dtype, x * 1, x + 0, views that change nothing, chains of views, and
// expands before operators that broadcast by themselves.
void drop_noops(ir::Module& module, ir::Graph& graph);

}  // namespace shardwright::passes
