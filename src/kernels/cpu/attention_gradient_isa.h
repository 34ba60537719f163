// What the gradient of attention gets from each instruction set.
#pragma once

#include <cstdint>

namespace shardwright::kernels {

// One batch entry, one KV head and the query heads that use it. Strides in floats.
struct AttentionGradientGroup {
  const float* q;  // row 0 of the first of the heads
  const float* k;
  const float* v;
  const float* dy;
  float* dq;
  float* dk;
  float* dv;
  int64_t q_head_stride, q_row_stride;
  int64_t k_row_stride, v_row_stride;
  int64_t dy_head_stride, dy_row_stride;
  int64_t dq_head_stride, dq_row_stride;
  int64_t dk_row_stride, dv_row_stride;
  int64_t heads, q_rows, keys, qk_size, v_size;
  float scale;
  bool causal;
  int64_t query_begin;
};

inline constexpr int64_t kGradientRows = 32;  // query rows of a block

struct AttentionGradientTable {
  int64_t (*scratch_floats)(int64_t keys, int64_t qk_size, int64_t v_size);
  void (*run)(const AttentionGradientGroup& group, float* scratch);
};

namespace portable {
extern const AttentionGradientTable attention_gradient_table;
}  // namespace portable
namespace avx2 {
extern const AttentionGradientTable attention_gradient_table;
}  // namespace avx2
namespace avx512 {
extern const AttentionGradientTable attention_gradient_table;
}  // namespace avx512
namespace avx512bf16 {
extern const AttentionGradientTable attention_gradient_table;
}  // namespace avx512bf16

}  // namespace shardwright::kernels
