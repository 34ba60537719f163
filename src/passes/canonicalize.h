// From the imported graph to the canonical one: the passes, in order.
#pragma once

#include <vector>

#include "ir/graph.h"

namespace shardwright::passes {

struct Pass {
  const char* name;
  void (*run)(ir::Module&, ir::Graph&);
};

// A name may occur more than once.
const std::vector<Pass>& canonical_passes();

// Once, after the passes of all graphs: logical tensors that no graph reads.
void drop_unused_tensors(ir::Module& module);

// All of it, with ir::verify after each pass. Afterwards every graph is ir::Stage::kCanonical.
void canonicalize(ir::Module& module);

}  // namespace shardwright::passes
