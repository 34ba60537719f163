// fold_constants: computes now what depends on no input.
#pragma once

#include "ir/graph.h"

namespace shardwright::passes {

// Every node with no path from a user input, a parameter or a buffer that is written is run by the
// interpreter, in the precision of its types; what others read of it becomes a constant. Results of
// more than 64 MB are left to the run.
void fold_constants(ir::Module& module, ir::Graph& graph);

}  // namespace shardwright::passes
