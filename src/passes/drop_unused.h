// drop_unused: what has no effect on the outputs.
#pragma once

#include "ir/graph.h"

namespace shardwright::passes {

// Removes nodes whose results nobody reads, and parameters, buffers and constants without readers.
void drop_unused(ir::Module& module, ir::Graph& graph);

}  // namespace shardwright::passes
