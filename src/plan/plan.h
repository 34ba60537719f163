// From local graphs to programs: order, aliases of views, layouts of parameters, arena offsets.
#pragma once

#include <vector>

#include "ir/graph.h"
#include "pef/program.h"
#include "plan/merge.h"

namespace shardwright::plan {

struct Planned {
  pef::Plan plan;
  std::vector<std::vector<GroupPlan>> groups;  // [graph][fusion group]
};

// `local[graph][chip]`: the partitioned graphs of the module. All graphs of a chip share its pieces
// and its arena.
//  - Views (OpDef::view) become aliases where all readers take their strides, else a copying step.
//  - A value whose only reader is a view may be produced right into the view's layout (attention
//  writes [b, s, h, d]).
//  - A parameter is kept in panels if every reader takes it as its panel operand or can read
//  panels; else strided.
//  - User inputs are read and user outputs written in the user's arrays where the kernels take the
//  strides.
//  - The nodes of a fusion group become one step where they can; else as few as possible.
//  - Arena: lifetimes, best fit, in place where OpDef::in_place and the operand dies; exchanges
//  that are ready together merge.
Planned make_plan(const ir::Module& module, const std::vector<std::vector<ir::Graph>>& local,
                  pef::WhyNotFused why_not_fused = ops::why_not_fused);

// The logical tensors that any plan uses, as PEF tensors (order of the module, unused ones left out
// is not needed: indices agree).
std::vector<pef::Tensor> tensors_of(const ir::Module& module);
pef::GraphSignature signature_of(const ir::Graph& global);

}  // namespace shardwright::plan
