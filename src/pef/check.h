// The semantic checks of a program, one step after another.
#pragma once

#include "pef/program.h"

namespace shardwright::pef {

// Throws Error(kBrokenFile), naming the step. The signature, tensors and pieces have been checked.
void check_program(const Manifest& manifest, const Plan& plan, int chip, int graph);

}  // namespace shardwright::pef
