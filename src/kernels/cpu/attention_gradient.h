// Gradients of attention with respect to query, key and value, in f32. Probabilities are worked out
// again by blocks of query rows; the S x S scores are never stored. (Dao et al., FlashAttention-2,
// 2023, has the formulas.)
#pragma once

#include "kernels/cpu/attention.h"

namespace shardwright::kernels {

struct AttentionGradientArgs {
  AttentionArgs forward;    // f32, without mask and positions; `out` and `scratch` are not used
  AttentionTensor dy;       // [B, Hq, Sq, E]
  AttentionTensor dq;       // [B, Hq, Sq, D]; written
  AttentionTensor dk;       // [B, Hk, Sk, D]; written: the sum over the local query heads
  AttentionTensor dv;       // [B, Hk, Sk, E]; written
  void* scratch = nullptr;  // attention_gradient_scratch_bytes, aligned to 64
};

// Looks at sizes only.
int64_t attention_gradient_scratch_bytes(const AttentionGradientArgs& args, int n_threads);

// Called by all threads of the team, which share the KV heads of all batch entries. No barrier
// inside; sums run in the order of heads and rows.
void attention_gradient(Member& member, const AttentionGradientArgs& args);

}  // namespace shardwright::kernels
