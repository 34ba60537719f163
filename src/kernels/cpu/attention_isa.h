// What attention gets from each instruction set.
#pragma once

#include <cstdint>

namespace shardwright::kernels {

// One batch entry, one KV head and the query heads that use it. Strides in elements.
// A column is one query row of one head: column c is row c / heads of head c % heads, so that a
// range of columns is a range of rows, and causal attention needs few keys beyond the diagonal.
struct AttentionGroup {
  const void* q;  // row 0 of the first of the heads
  const void* k;
  const void* v;
  void* out;
  int64_t q_head_stride;
  int64_t q_row_stride;
  int64_t k_row_stride;
  int64_t v_row_stride;
  int64_t out_head_stride;
  int64_t out_row_stride;
  int64_t heads;
  int64_t keys;
  int64_t qk_size;
  int64_t v_size;
  float scale;
  bool causal;
  int64_t query_begin;
  const int64_t* positions;  // of row 0, or null; see AttentionArgs
  int64_t position_stride;
  int64_t window;
  const void* mask;  // of the first of the heads, or null
  int32_t mask_dtype;
  int64_t mask_head_stride;
  int64_t mask_row_stride;
  int64_t mask_key_stride;
};

// The keys [first, end) that a query row sees, but for the mask.
struct SeenKeys {
  int64_t first;
  int64_t end;
};

inline constexpr int64_t kAttentionColumns = 192;  // at most in one call; see attention.cpp
inline constexpr int64_t kAttentionKeys = 128;     // keys of a block: 16 KiB of scores
inline constexpr int64_t kDecodeColumns = 8;       // so many, or fewer, are faster by `decode`

// The state of one column over some keys: [0] the largest score (in powers of 2), [1] the sum of
// the powers relative to it, then v_size sums of values.
inline constexpr int64_t kPartHeader = 2;

// Columns [first_column, first_column + n_columns), the first a multiple of
// AttentionTable::columns.
using PrefillFunction = void (*)(const AttentionGroup& group, int64_t first_column,
                                 int64_t n_columns, void* scratch);
// All columns of the group (at most kDecodeColumns) over some keys: a part for each, at
// parts + column * (kPartHeader + v_size).
using DecodeFunction = void (*)(const AttentionGroup& group, int64_t n_columns, int64_t first_key,
                                int64_t last_key, float* parts, void* scratch);
// One row of the output from n parts, `stride` floats apart.
using MergeFunction = void (*)(const float* parts, int64_t n_parts, int64_t stride, int64_t v_size,
                               void* out);

// Indices are DType numbers: f32, bf16, f16.
struct AttentionTable {
  int32_t columns;  // of a block
  PrefillFunction prefill[3];
  PrefillFunction prefill_dot;  // bf16 by the dot instruction, qk_size even; or null
};
struct DecodeTable {
  DecodeFunction decode[3];
  MergeFunction merge[3];
};

namespace portable {
extern const AttentionTable attention_table;
extern const DecodeTable decode_table;
}  // namespace portable
namespace avx2 {
extern const AttentionTable attention_table;
extern const DecodeTable decode_table;
}  // namespace avx2
namespace avx512 {
extern const AttentionTable attention_table;
extern const DecodeTable decode_table;
}  // namespace avx512
namespace avx512bf16 {
extern const AttentionTable attention_table;
extern const DecodeTable decode_table;
}  // namespace avx512bf16

}  // namespace shardwright::kernels
