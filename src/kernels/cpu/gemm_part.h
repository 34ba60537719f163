// What gemm.cpp, gemm_pack.cpp and gemm_matmul.cpp share: one thread's part of the work.
#pragma once

#include "base/team.h"
#include "kernels/cpu/gemm.h"

namespace shardwright::kernels {

// Columns of sums of all outputs, in whole panels.
int64_t sums_columns(std::span<const GemmOutput> outputs);
// Scratch of one thread, a multiple of 64.
int64_t gemm_part_scratch_bytes(int64_t m, int64_t columns, int64_t k);
// The part of the outputs in these rows and panels; panels are counted through all outputs, those
// of a pair as one.
void gemm_part(const GemmInput& input, std::span<const GemmOutput> outputs, Range rows,
               Range panels, char* scratch);
// gemm_part on this thread's share of the whole; `scratch` is the team's.
void gemm_share(const Member& member, const GemmInput& input, std::span<const GemmOutput> outputs,
                char* scratch);
// These panels of the whole.
void pack_part(const PackArgs& args, Range panels);

}  // namespace shardwright::kernels
