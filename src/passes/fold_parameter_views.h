// fold_parameter_views: views of parameters become parts of them.
#pragma once

#include "ir/graph.h"

namespace shardwright::passes {

// A slice, permutation or reshape of a parameter, buffer or constant that is no copy becomes an
// input of its own over the same logical tensor. Inputs of equal parts are merged (tied weights).
void fold_parameter_views(ir::Module& module, ir::Graph& graph);

}  // namespace shardwright::passes
