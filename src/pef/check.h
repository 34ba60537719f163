// The semantic checks of programs: of each, one step after another, and of all chips' together.
#pragma once

#include "pef/fused.h"
#include "pef/program.h"

namespace shardwright::pef {

// Throws Error(kBrokenFile), naming the step. The signature, tensors and pieces have been checked.
void check_program(const Manifest& manifest, const Plan& plan, int chip, int graph,
                   WhyNotFused why_not_fused);

// What is inside a fused step: known operators that fit, every byte of results and scratch written
// once, before it is read; and that its kernel can run them as one. Throws Error(kBrokenFile).
void check_parts(const Step& step, const std::vector<Piece>& pieces, WhyNotFused why_not_fused);

// Throws Error(kBrokenFile) unless the chips together write every element of the graph's user
// outputs once. Their programs have been checked.
void check_outputs(const Manifest& manifest, const Plan& plan, size_t graph);

}  // namespace shardwright::pef
