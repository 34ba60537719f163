// merge_common: equal nodes become one.
#pragma once

#include "ir/graph.h"

namespace shardwright::passes {

// Same operator, attributes and operands.
void merge_common(ir::Module& module, ir::Graph& graph);

}  // namespace shardwright::passes
