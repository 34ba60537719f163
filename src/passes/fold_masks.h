// fold_masks: constant attention masks.
#pragma once

#include "ir/graph.h"

namespace shardwright::passes {

// A constant mask that lets everything through is dropped, one that is the lower triangle becomes
// is_causal, and of any other the repeated dimensions are stored once.
void fold_masks(ir::Module& module, ir::Graph& graph);

}  // namespace shardwright::passes
