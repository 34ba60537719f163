// The semantic checks of programs: of each, one step after another, and of all chips' together.
#pragma once

#include "pef/program.h"

namespace shardwright::pef {

// Throws Error(kBrokenFile), naming the step. The signature, tensors and pieces have been checked.
void check_program(const Manifest& manifest, const Plan& plan, int chip, int graph);

// Throws Error(kBrokenFile) unless the chips together write every element of the graph's user
// outputs once. Their programs have been checked.
void check_outputs(const Manifest& manifest, const Plan& plan, size_t graph);

}  // namespace shardwright::pef
