// group_heads: repeated KV heads become grouped attention.
#pragma once

#include "ir/graph.h"

namespace shardwright::passes {

// attention over keys and values whose heads are each repeated r times (reshape, expand, reshape)
// reads the unrepeated heads with group = r.
void group_heads(ir::Module& module, ir::Graph& graph);

}  // namespace shardwright::passes
