// check_supported: every operator of a canonical graph has a kernel.
#pragma once

#include "ir/graph.h"

namespace shardwright::passes {

// Throws Error(kUnsupported) that lists all operators without a kernel, how often each occurs and
// where first.
void check_supported(const ir::Graph& graph);

}  // namespace shardwright::passes
