// What gemm.cpp, gemm_pack.cpp and gemm_matmul.cpp share: one thread's part of the work.
#pragma once

#include "base/team.h"
#include "kernels/cpu/gemm.h"

namespace shardwright::kernels {

// A gemm whose x may also have its columns apart. Its `scratch` is not used here.
struct GemmProblem {
  GemmArgs args;
  int64_t x_k_stride = 1;  // in elements
};

// Scratch of one thread, a multiple of 64.
int64_t gemm_part_scratch_bytes(int64_t m, int64_t n, int64_t k);
// The part of y in these rows and panels.
void gemm_part(const GemmProblem& problem, Range rows, Range panels, char* scratch);
// gemm_part on this thread's share of the whole; `scratch` is the team's.
void gemm_share(const Member& member, const GemmProblem& problem, char* scratch);
// These panels of the whole.
void pack_part(const PackArgs& args, Range panels);

}  // namespace shardwright::kernels
