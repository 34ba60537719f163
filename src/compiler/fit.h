// Does a plan fit in memory, and what to do if it does not (requirement S5).
#pragma once

#include "compiler/compile.h"

namespace shardwright::compiler {

// Bytes of this machine's memory that a process may use: physical memory cut with the cgroup's
// limit.
int64_t machine_memory_bytes();

// Throws Error(kDoesNotFit): the need of the largest chip, the limit, the largest batch that fits,
// or else the smallest number of chips.
void check_fits(const ir::Module& module, const pef::Plan& plan, const CompileOptions& options);

}  // namespace shardwright::compiler
