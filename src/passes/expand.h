// expand: writes operators that have an expansion as what they stand for.
#pragma once

#include "ir/graph.h"

namespace shardwright::passes {

// Until none is left.
void expand(ir::Module& module, ir::Graph& graph);

}  // namespace shardwright::passes
