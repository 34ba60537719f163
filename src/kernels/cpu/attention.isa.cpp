// Attention of many queries, compiled once per instruction set. Scores are kept transposed: a lane
// is a column (see attention_isa.h), so that the softmax needs no exchange between lanes and its
// result is at once the operand of the product with v. Blocks of 2 registers of columns.
#include "kernels/cpu/attention_vector.h"

namespace shardwright::kernels::SHARDWRIGHT_ISA_NAMESPACE {
namespace {

constexpr int kColumns = 2 * kLanes;
// Rows of a tile of sums: 8 x 2 of 32 registers, or 4 x 2 of 16: no fewer than FMA latency x
// throughput (8), and a divisor of the usual head sizes.
constexpr int kRows = SHARDWRIGHT_ISA_LEVEL >= 2 ? 8 : 4;

// sum + x * y, in bf16 pairs if kDot.
template <bool kDot>
inline F multiply_add(F sum, F x, F y) {
#if SHARDWRIGHT_ISA_LEVEL >= 3
  if constexpr (kDot) return (F)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)y);
#endif
  return sum + x * y;
}
inline F broadcast(const char* p) {  // 4 bytes, an f32 or a pair of bf16
  float value;
  __builtin_memcpy(&value, p, sizeof(value));
  return splat(value);
}

// scores[kM keys][kColumns] = keys (rows of 4-byte steps) * queries [n_steps][kColumns].
template <int kM, bool kDot>
void score_tile(const char* keys, int64_t row_bytes, const float* queries, int64_t n_steps,
                float* scores) {
  const char* rows[kM];
  for (int m = 0; m < kM; ++m) rows[m] = keys + m * row_bytes;
  F sums[kM][2] = {};
  for (int64_t step = 0; step < n_steps; ++step) {
    const F q0 = loadu(queries + step * kColumns);
    const F q1 = loadu(queries + step * kColumns + kLanes);
#pragma GCC unroll 8
    for (int m = 0; m < kM; ++m) {
      const F x = broadcast(rows[m] + step * 4);
      sums[m][0] = multiply_add<kDot>(sums[m][0], x, q0);
      sums[m][1] = multiply_add<kDot>(sums[m][1], x, q1);
    }
  }
  for (int m = 0; m < kM; ++m) {
    storeu(scores + m * kColumns, sums[m][0]);
    storeu(scores + m * kColumns + kLanes, sums[m][1]);
  }
}

// out[kM][kColumns] = factor * out + values [n_steps][kM] (rows of 4-byte elements) * powers.
template <int kM, bool kDot>
void value_tile(const char* values, int64_t step_bytes, const float* powers, int64_t n_steps,
                const F* factor, float* out) {
  F sums[kM][2];
#pragma GCC unroll 8
  for (int m = 0; m < kM; ++m) {
    sums[m][0] = loadu(out + m * kColumns) * factor[0];
    sums[m][1] = loadu(out + m * kColumns + kLanes) * factor[1];
  }
  for (int64_t step = 0; step < n_steps; ++step) {
    const F p0 = loadu(powers + step * kColumns);
    const F p1 = loadu(powers + step * kColumns + kLanes);
    const char* row = values + step * step_bytes;
#pragma GCC unroll 8
    for (int m = 0; m < kM; ++m) {
      const F x = broadcast(row + m * 4);
      sums[m][0] = multiply_add<kDot>(sums[m][0], x, p0);
      sums[m][1] = multiply_add<kDot>(sums[m][1], x, p1);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < kM; ++m) {
    storeu(out + m * kColumns, sums[m][0]);
    storeu(out + m * kColumns + kLanes, sums[m][1]);
  }
}

template <int kM, bool kDot>
void score_rest(int64_t n, const char* keys, int64_t row_bytes, const float* queries,
                int64_t n_steps, float* scores) {
  if constexpr (kM > 0) {
    if (n == kM) return score_tile<kM, kDot>(keys, row_bytes, queries, n_steps, scores);
    score_rest<kM - 1, kDot>(n, keys, row_bytes, queries, n_steps, scores);
  }
}
template <int kM, bool kDot>
void value_rest(int64_t n, const char* values, int64_t step_bytes, const float* powers,
                int64_t n_steps, const F* factor, float* out) {
  if constexpr (kM > 0) {
    if (n == kM) return value_tile<kM, kDot>(values, step_bytes, powers, n_steps, factor, out);
    value_rest<kM - 1, kDot>(n, values, step_bytes, powers, n_steps, factor, out);
  }
}

// The columns of one block and their running softmax.
struct Columns {
  float* queries;  // [qk_size (pairs of it)][kColumns]
  float* out;      // [v_size][kColumns]
  int64_t first;
  int64_t count;
  SeenKeys some;  // keys that some column sees
  SeenKeys all;   // keys that every column sees
  F largest[2];   // of the scores so far, in powers of 2
  F sum[2];
  I first_seen[2];  // of each column
  I end_seen[2];
};

// Scratch of one call; attention_scratch_bytes has the same sum.
struct Scratch {
  float* next;
  float* take(int64_t floats) {
    float* taken = next;
    next += (floats + 15) / 16 * 16;
    return taken;
  }
};

// Turns rows of 4-byte elements (16-bit storage: widened; kDot: pairs as they are) into columns.
template <int kStorage, bool kDot>
void pack_queries(const AttentionGroup& g, const Columns& c) {
  const int64_t n_steps = kDot ? g.qk_size / 2 : g.qk_size;
  for (int half = 0; half < 2; ++half) {
    for (int64_t step = 0; step < n_steps; step += kLanes) {
      F rows[kLanes] = {};
      for (int lane = 0; lane < kLanes; ++lane) {
        const int64_t column = c.first + half * kLanes + lane;
        if (half * kLanes + lane >= c.count) break;
        const int64_t offset =
            column % g.heads * g.q_head_stride + column / g.heads * g.q_row_stride;
        const void* row = row_of<kStorage>(g.q, offset);
        rows[lane] =
            kDot ? load_at<kStoreF32>(row, step, n_steps) : load_at<kStorage>(row, step, n_steps);
      }
      transpose(rows);
      for (int64_t i = 0; i < kLanes && step + i < n_steps; ++i)
        storeu(c.queries + (step + i) * kColumns + half * kLanes, rows[i]);
    }
  }
}

template <int kStorage, bool kDot>
void start_columns(const AttentionGroup& g, Columns& c) {
  c.some = {g.keys, 0};
  c.all = {0, g.keys};
  for (int half = 0; half < 2; ++half) {
    c.largest[half] = splat(-kInfinity);
    c.sum[half] = F{};
    c.first_seen[half] = c.end_seen[half] = I{};
    for (int lane = 0; lane < kLanes && half * kLanes + lane < c.count; ++lane) {
      const SeenKeys seen = keys_seen_by(g, (c.first + half * kLanes + lane) / g.heads);
      c.first_seen[half][lane] = static_cast<int32_t>(seen.first);
      c.end_seen[half][lane] = static_cast<int32_t>(seen.end);
      if (seen.first > c.all.first) c.all.first = seen.first;
      if (seen.end < c.all.end) c.all.end = seen.end;
      if (seen.first == seen.end) continue;
      if (seen.first < c.some.first) c.some.first = seen.first;
      if (seen.end > c.some.end) c.some.end = seen.end;
    }
  }
  for (int64_t i = 0; i < g.v_size * kColumns; i += kLanes) storeu(c.out + i, F{});
  pack_queries<kStorage, kDot>(g, c);
}

// scores *= scale, + mask.
void add_mask(const AttentionGroup& g, const Columns& c, int64_t first_key, int64_t n,
              float* scores) {
  const F scale = splat(g.scale * kLog2E);
  const bool same_for_all = g.mask_head_stride == 0 && g.mask_row_stride == 0;
  for (int64_t j = 0; j < n; ++j) {
    alignas(64) float added[kColumns] = {};
    if (g.mask != nullptr) {
      const float common = same_for_all ? mask_value(g, 0, 0, first_key + j) : 0.0F;
      for (int64_t lane = 0; lane < c.count; ++lane) {
        const int64_t column = c.first + lane;
        added[lane] = same_for_all
                          ? common
                          : mask_value(g, column % g.heads, column / g.heads, first_key + j);
      }
    }
    float* row = scores + j * kColumns;
    storeu(row, loadu(row) * scale + loadu(added));
    storeu(row + kLanes, loadu(row + kLanes) * scale + loadu(added + kLanes));
  }
}

void hide_keys(const Columns& c, int64_t first_key, int64_t n, float* scores) {
  for (int64_t j = 0; j < n; ++j) {
    const auto key = static_cast<int32_t>(first_key + j);
    if (key >= c.all.first && key < c.all.end) {
      j = c.all.end - first_key - 1;  // on to those that not all see
      continue;
    }
    for (int half = 0; half < 2; ++half) {
      float* p = scores + j * kColumns + half * kLanes;
      const F score = c.first_seen[half] > key ? splat(-kInfinity) : loadu(p);
      storeu(p, c.end_seen[half] <= key ? splat(-kInfinity) : score);
    }
  }
}

// Two f32 (no NaN to keep) as a pair of bf16, the first in the low half.
inline F bf16_pair(F low, F high) {
  const U first = ((U)low + 0x8000U) >> 16;
  const U second = ((U)high + 0x8000U) & 0xffff0000U;
  return (F)(first | second);
}

// Scores to powers relative to the largest so far; kDot: to bf16 pairs of keys. Gives the factor by
// which everything from before has to be multiplied.
template <bool kDot>
void soften(Columns& c, float* scores, int64_t n, float scale, F* factor) {
  F most[4] = {splat(-kInfinity), splat(-kInfinity), splat(-kInfinity), splat(-kInfinity)};
  int64_t j = 0;
  for (; j + 2 <= n; j += 2)
    for (int k = 0; k < 4; ++k) {
      const F score = loadu(scores + j * kColumns + k * kLanes);
      most[k] = score > most[k] ? score : most[k];
    }
  for (int k = 0; k < 2 && j < n; ++k) {
    const F score = loadu(scores + j * kColumns + k * kLanes);
    most[k] = score > most[k] ? score : most[k];
  }
  F base[2];
  for (int k = 0; k < 2; ++k) {
    F largest = (most[k] > most[k + 2] ? most[k] : most[k + 2]) * scale;
    largest = largest > c.largest[k] ? largest : c.largest[k];
    base[k] = largest == -kInfinity ? F{} : largest;  // no key seen: all powers are 0
    factor[k] = exp2_negative(c.largest[k] - base[k]);
    c.largest[k] = largest;
  }
  F sums[4] = {c.sum[0] * factor[0], c.sum[1] * factor[1]};
  if (n % 2 != 0)  // a last key that nobody sees
    for (int k = 0; k < 2; ++k) storeu(scores + n * kColumns + k * kLanes, splat(-kInfinity));
  for (j = 0; j < n; j += 2) {
    F powers[4];
    for (int k = 0; k < 4; ++k) {
      const F score = loadu(scores + j * kColumns + k * kLanes);
      powers[k] = exp2_negative(score * scale - base[k % 2]);
      sums[k] += powers[k];
    }
    if constexpr (kDot) {
      for (int k = 0; k < 2; ++k)
        storeu(scores + j / 2 * kColumns + k * kLanes, bf16_pair(powers[k], powers[k + 2]));
    } else {
      for (int k = 0; k < 4; ++k) storeu(scores + j * kColumns + k * kLanes, powers[k]);
    }
  }
  c.sum[0] = sums[0] + sums[2];
  c.sum[1] = sums[1] + sums[3];
}

// A block of k or v as the tiles read it: in place, widened to f32, or v as pairs of keys.
struct Rows {
  const char* data;
  int64_t row_bytes;
};
template <int kStorage, bool kInPlace>
Rows block_rows(const void* base, int64_t row_stride, int64_t first, int64_t n, int64_t size,
                float* widened) {
  const void* rows = row_of<kStorage>(base, first * row_stride);
  if constexpr (kInPlace)
    return {static_cast<const char*>(rows),
            row_stride * static_cast<int64_t>(sizeof(StoredAs<kStorage>))};
  for (int64_t j = 0; j < n; ++j)
    for (int64_t i = 0; i < size; i += kLanes)
      store_at<kStoreF32>(widened + j * size, i, size,
                          load_at<kStorage>(row_of<kStorage>(rows, j * row_stride), i, size));
  return {reinterpret_cast<const char*>(widened), size * 4};
}
Rows value_pairs(const AttentionGroup& g, int64_t first, int64_t n, float* pairs) {
  const auto* v = static_cast<const uint16_t*>(g.v) + first * g.v_row_stride;
  for (int64_t j = 0; j < n; j += 2) {
    const uint16_t* low = v + j * g.v_row_stride;
    for (int64_t i = 0; i < g.v_size; i += kLanes) {
      const F second = j + 1 < n ? load_at<kStoreBF16>(low + g.v_row_stride, i, g.v_size) : F{};
      const U first_bits = (U)load_at<kStoreBF16>(low, i, g.v_size) >> 16;
      store_at<kStoreF32>(pairs + j / 2 * g.v_size, i, g.v_size, (F)(first_bits | (U)second));
    }
  }
  return {reinterpret_cast<const char*>(pairs), g.v_size * 4};
}

// One block of keys for one block of columns.
template <bool kDot>
void add_keys(const AttentionGroup& g, Columns& c, int64_t first_key, int64_t n, Rows keys,
              Rows values, float* scores) {
  const int64_t n_steps = kDot ? g.qk_size / 2 : g.qk_size;
  int64_t j = 0;
  for (; j + kRows <= n; j += kRows)
    score_tile<kRows, kDot>(keys.data + j * keys.row_bytes, keys.row_bytes, c.queries, n_steps,
                            scores + j * kColumns);
  score_rest<kRows - 1, kDot>(n - j, keys.data + j * keys.row_bytes, keys.row_bytes, c.queries,
                              n_steps, scores + j * kColumns);
  float scale = g.scale * kLog2E;
  if (g.mask != nullptr || !(scale > 0)) {
    add_mask(g, c, first_key, n, scores);
    scale = 1;
  }
  if (c.all.first > first_key || c.all.end < first_key + n) hide_keys(c, first_key, n, scores);
  F factor[2];
  soften<kDot>(c, scores, n, scale, factor);
  const int64_t value_steps = kDot ? (n + 1) / 2 : n;
  int64_t e = 0;
  for (; e + kRows <= g.v_size; e += kRows)
    value_tile<kRows, kDot>(values.data + e * 4, values.row_bytes, scores, value_steps, factor,
                            c.out + e * kColumns);
  value_rest<kRows - 1, kDot>(g.v_size - e, values.data + e * 4, values.row_bytes, scores,
                              value_steps, factor, c.out + e * kColumns);
}

template <int kStorage>
void finish_columns(const AttentionGroup& g, const Columns& c) {
  for (int half = 0; half < 2; ++half) {
    const F sum = c.sum[half];
    const F scale = sum == 0.0F ? F{} : 1.0F / sum;  // a column that sees no key gives zeros
    for (int64_t e = 0; e < g.v_size; e += kLanes) {
      F rows[kLanes] = {};
      for (int64_t i = 0; i < kLanes && e + i < g.v_size; ++i)
        rows[i] = loadu(c.out + (e + i) * kColumns + half * kLanes) * scale;
      transpose(rows);
      for (int lane = 0; lane < kLanes && half * kLanes + lane < c.count; ++lane) {
        const int64_t column = c.first + half * kLanes + lane;
        const int64_t offset =
            column % g.heads * g.out_head_stride + column / g.heads * g.out_row_stride;
        store_at<kStorage>(static_cast<StoredAs<kStorage>*>(g.out) + offset, e, g.v_size,
                           rows[lane]);
      }
    }
  }
}

template <int kStorage, bool kDot>
void prefill(const AttentionGroup& g, int64_t first_column, int64_t n_columns, void* scratch) {
  constexpr int64_t kMaxBlocks = kAttentionColumns / kColumns;
  constexpr bool kInPlace = kStorage == kStoreF32;
  Scratch memory{static_cast<float*>(scratch)};
  float* scores = memory.take((kAttentionKeys + 1) * kColumns);
  float* wide_keys = memory.take(kAttentionKeys * g.qk_size);
  float* wide_values = memory.take(kAttentionKeys * g.v_size);
  Columns columns[kMaxBlocks];
  const int64_t n_blocks = (n_columns + kColumns - 1) / kColumns;
  SeenKeys some{g.keys, 0};
  for (int64_t b = 0; b < n_blocks; ++b) {
    Columns& c = columns[b];
    c.first = first_column + b * kColumns;
    c.count = n_columns - b * kColumns < kColumns ? n_columns - b * kColumns : kColumns;
    c.queries = memory.take(g.qk_size * kColumns);
    c.out = memory.take(g.v_size * kColumns);
    start_columns<kStorage, kDot>(g, c);
    if (c.some.first < some.first) some.first = c.some.first;
    if (c.some.end > some.end) some.end = c.some.end;
  }
  for (int64_t key = some.first; key < some.end; key += kAttentionKeys) {
    const int64_t n = some.end - key < kAttentionKeys ? some.end - key : kAttentionKeys;
    const Rows keys = block_rows < kStorage,
               kInPlace || kDot > (g.k, g.k_row_stride, key, n, g.qk_size, wide_keys);
    const Rows values =
        kDot ? value_pairs(g, key, n, wide_values)
             : block_rows<kStorage, kInPlace>(g.v, g.v_row_stride, key, n, g.v_size, wide_values);
    for (int64_t b = 0; b < n_blocks; ++b) {
      const int64_t seen = columns[b].some.end - key;
      if (seen > 0 && key + n > columns[b].some.first)
        add_keys<kDot>(g, columns[b], key, seen < n ? seen : n, keys, values, scores);
    }
  }
  for (int64_t b = 0; b < n_blocks; ++b) finish_columns<kStorage>(g, columns[b]);
}

}  // namespace

const AttentionTable attention_table = {
    .columns = kColumns,
    .prefill = {prefill<kStoreF32, false>, prefill<kStoreBF16, false>, prefill<kStoreF16, false>},
    .prefill_dot = SHARDWRIGHT_ISA_LEVEL >= 3 ? prefill<kStoreBF16, true> : nullptr,
};

}  // namespace shardwright::kernels::SHARDWRIGHT_ISA_NAMESPACE
