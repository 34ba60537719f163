// drop_unused.
#include "passes/drop_unused.h"

#include "passes/rewrite.h"

namespace shardwright::passes {

void drop_unused(ir::Module&, ir::Graph& graph) { remove_unused(graph); }

}  // namespace shardwright::passes
