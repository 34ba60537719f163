// Fused attention: softmax(q k^T * scale + mask) v, by blocks of keys with a running softmax in
// f32; the S x S scores are never stored. (Dao et al., FlashAttention-2, 2023.)
#pragma once

#include <cstdint>

#include "base/team.h"
#include "tensor/dtype.h"

namespace shardwright::kernels {

// B batch, Hq local query heads, Hk local KV heads, Sq local query rows, Sk keys, D and E head
// sizes of k and v. In each tensor the last dim is contiguous; strides are in elements.
struct AttentionTensor {
  const void* data = nullptr;
  int64_t batch_stride = 0;
  int64_t head_stride = 0;
  int64_t row_stride = 0;
};

struct AttentionArgs {
  DType dtype = DType::kF32;  // f32, bf16 or f16, of q, k, v and out
  int64_t batch = 1;
  int64_t q_heads = 1;
  int64_t kv_heads = 1;
  int64_t q_rows = 1;
  int64_t keys = 1;
  int64_t qk_size = 1;  // D
  int64_t v_size = 1;   // E

  AttentionTensor q;    // [B, Hq, Sq, D]
  AttentionTensor k;    // [B, Hk, Sk, D]
  AttentionTensor v;    // [B, Hk, Sk, E]
  AttentionTensor out;  // [B, Hq, Sq, E]; written

  float scale = 1;
  // Query row i sees key j only if j <= query_begin + i (PyTorch's is_causal has query_begin 0).
  bool causal = false;
  int64_t query_begin = 0;  // index of the first local query row in the whole sequence
  // Optional [B, Sq], instead of `causal`: query row i of batch entry b stands at p = positions[b,
  // i] and sees the keys (p - window, p], all up to p if window is 0, none if p < 0. Keys that no
  // row sees are not read.
  const int64_t* positions = nullptr;
  int64_t position_strides[2] = {0, 0};  // batch, query row
  int64_t window = 0;
  // Local query head i uses the local KV head (head_begin + i) / r - head_begin / r.
  int64_t queries_per_kv = 1;  // r, of the whole model
  int64_t head_begin = 0;      // index of the first local query head in the whole model

  // Optional [B|1, Hq|1, Sq|1, Sk|1]: bool (true = seen), or f32, bf16, f16 (added to the scores).
  const void* mask = nullptr;
  DType mask_dtype = DType::kBool;
  int64_t mask_strides[4] = {0, 0, 0, 0};  // batch, head, query row, key; 0 = the same for all

  void* scratch = nullptr;  // attention_scratch_bytes, aligned to 64
};

// Bytes of scratch for a team of n_threads; looks at sizes only, not at pointers or strides.
int64_t attention_scratch_bytes(const AttentionArgs& args, int n_threads);

// Called by all threads of the team. A row that sees no key gives zeros, as in PyTorch. There may
// be a barrier inside; the scratch is free again when all threads have returned.
void attention(Member& member, const AttentionArgs& args);

}  // namespace shardwright::kernels
