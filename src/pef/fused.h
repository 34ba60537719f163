// A fused step of a program as the kernels' description of it (ops/fused.h).
#pragma once

#include "ops/fused.h"
#include "pef/program.h"

namespace shardwright::pef {

// `why_not_fused` of ops/fused.h; tests of plans give their own.
using WhyNotFused = std::string (*)(const ops::FusedSpec&);

// Of a step that is_fused(), on a chip that keeps `pieces`. Parts without a single element in their
// results are left out: there is nothing to compute.
ops::FusedSpec fused_spec(const Step& step, const std::vector<Piece>& pieces, int n_threads);

// How a buffer of a step (not of a part) lies in memory.
ops::Layout layout_of(const Buffer& buffer, const std::vector<Piece>& pieces);

// Whether result `result` of the step may lie in the memory of operand `operand`: both are the same
// elements, and the operator that makes the result works in place. In a fused step, whose parts may
// run block by block, one part alone reads the operand, and from it to the result every value is
// made by an operator that could work in place, element for element.
bool may_share(const Step& step, size_t operand, size_t result);

}  // namespace shardwright::pef
