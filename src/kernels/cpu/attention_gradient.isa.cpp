// The gradient of attention of one KV head, compiled once per instruction set: five products of
// blocks of query rows with all keys that they see, on operands padded to whole registers.
#include "kernels/cpu/attention_gradient_isa.h"
#include "kernels/cpu/vector_math.h"

namespace shardwright::kernels::SHARDWRIGHT_ISA_NAMESPACE {
namespace {

constexpr int64_t kRows = SHARDWRIGHT_ISA_LEVEL >= 2 ? 8 : 4;  // of a tile of sums, by 2 registers

inline int64_t padded(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

// Element (i, j) at data[i * row + j * column].
struct Left {
  const float* data;
  int64_t row;
  int64_t column;
};

// c[kM][kN registers] (+)= left [kM, steps] * b [steps, ...].
template <int64_t kM, int64_t kN>
inline void product_tile(Left left, const float* b, int64_t b_row, int64_t steps, bool add,
                         float* c, int64_t c_row) {
  F sums[kM][kN];
#pragma GCC unroll 8
  for (int64_t m = 0; m < kM; ++m)
#pragma GCC unroll 2
    for (int64_t n = 0; n < kN; ++n) sums[m][n] = add ? loadu(c + m * c_row + n * kLanes) : F{};
  for (int64_t s = 0; s < steps; ++s) {
    F right[kN];
#pragma GCC unroll 2
    for (int64_t n = 0; n < kN; ++n) right[n] = loadu(b + s * b_row + n * kLanes);
#pragma GCC unroll 8
    for (int64_t m = 0; m < kM; ++m) {
      const F x = splat(left.data[m * left.row + s * left.column]);
#pragma GCC unroll 2
      for (int64_t n = 0; n < kN; ++n) sums[m][n] += x * right[n];
    }
  }
#pragma GCC unroll 8
  for (int64_t m = 0; m < kM; ++m)
#pragma GCC unroll 2
    for (int64_t n = 0; n < kN; ++n) storeu(c + m * c_row + n * kLanes, sums[m][n]);
}

template <int64_t kN>
inline void product_column(Left left, int64_t rows, const float* b, int64_t b_row, int64_t steps,
                           bool add, float* c, int64_t c_row) {
  int64_t m = 0;
  for (; m + kRows <= rows; m += kRows)
    product_tile<kRows, kN>({left.data + m * left.row, left.row, left.column}, b, b_row, steps, add,
                            c + m * c_row, c_row);
  for (; m < rows; ++m)
    product_tile<1, kN>({left.data + m * left.row, left.row, left.column}, b, b_row, steps, add,
                        c + m * c_row, c_row);
}

// c [rows, columns] (+)= left [rows, steps] * b [steps, columns]; columns of whole registers.
void product(Left left, int64_t rows, const float* b, int64_t b_row, int64_t steps, int64_t columns,
             bool add, float* c, int64_t c_row) {
  int64_t n = 0;
  for (; n + 2 * kLanes <= columns; n += 2 * kLanes)
    product_column<2>(left, rows, b + n, b_row, steps, add, c + n, c_row);
  if (n < columns) product_column<1>(left, rows, b + n, b_row, steps, add, c + n, c_row);
}

// Rows of `size`, each padded with zeros to `width`.
void copy_rows(const float* from, int64_t row, int64_t rows, int64_t size, int64_t width,
               float* to) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < size; ++j) to[i * width + j] = from[i * row + j];
    for (int64_t j = size; j < width; ++j) to[i * width + j] = 0;
  }
}

// to[j][i] = from[i][j]; columns from `rows` to `width` are zeros.
void transpose_rows(const float* from, int64_t row, int64_t rows, int64_t size, int64_t width,
                    float* to) {
  for (int64_t j = 0; j < size; ++j) {
    for (int64_t i = 0; i < rows; ++i) to[j * width + i] = from[i * row + j];
    for (int64_t i = rows; i < width; ++i) to[j * width + i] = 0;
  }
}

// scores to probabilities of the first `seen` keys; zeros for the others.
void softmax_row(float* scores, int64_t seen, int64_t width, float scale) {
  float largest = -__builtin_inff();
  for (int64_t j = 0; j < seen; ++j) largest = scores[j] > largest ? scores[j] : largest;
  for (int64_t j = seen; j < width; ++j) scores[j] = -__builtin_inff();
  F total{};
  for (int64_t j = 0; j < width; j += kLanes) {
    const F power = seen > 0 ? exp_of((loadu(scores + j) - largest) * scale) : F{};
    storeu(scores + j, power);
    total += power;
  }
  const float sum = sum_lanes(total);
  const float inverse = sum > 0 ? 1.0F / sum : 0.0F;
  for (int64_t j = 0; j < width; j += kLanes) storeu(scores + j, loadu(scores + j) * inverse);
}

// dp to the gradient of the scores: p (dp - sum p dp) scale.
void softmax_gradient_row(const float* p, float* dp, int64_t width, float scale) {
  F products{};
  for (int64_t j = 0; j < width; j += kLanes) products += loadu(p + j) * loadu(dp + j);
  const float total = sum_lanes(products);
  for (int64_t j = 0; j < width; j += kLanes)
    storeu(dp + j, loadu(p + j) * (loadu(dp + j) - total) * scale);
}

// Where everything lies in the scratch; without memory only how much there is.
struct Scratch {
  Scratch(float* memory, int64_t keys, int64_t qk_size, int64_t v_size)
      : width(padded(keys)), d(padded(qk_size)), e(padded(v_size)) {
    const auto take = [&](int64_t count) {
      float* const taken = memory == nullptr ? nullptr : memory + floats;
      floats += padded(count);
      return taken;
    };
    k_columns = take(qk_size * width);
    v_columns = take(v_size * width);
    k_rows = take(keys * d);
    dk = take(keys * d);
    dv = take(keys * e);
    q = take(kGradientRows * d);
    dq = take(kGradientRows * d);
    dy = take(kGradientRows * e);
    p = take(kGradientRows * width);
    ds = take(kGradientRows * width);
  }
  int64_t width, d, e;  // keys, qk_size, v_size, padded
  int64_t floats = 0;
  float *k_columns, *v_columns, *k_rows, *dk, *dv, *q, *dq, *dy, *p, *ds;
};

int64_t scratch_floats(int64_t keys, int64_t qk_size, int64_t v_size) {
  return Scratch(nullptr, keys, qk_size, v_size).floats;
}

// Rows [first, first + rows) of one head.
void run_block(const AttentionGradientGroup& g, const Scratch& s, int64_t head, int64_t first,
               int64_t rows) {
  copy_rows(g.q + head * g.q_head_stride + first * g.q_row_stride, g.q_row_stride, rows, g.qk_size,
            s.d, s.q);
  copy_rows(g.dy + head * g.dy_head_stride + first * g.dy_row_stride, g.dy_row_stride, rows,
            g.v_size, s.e, s.dy);
  const auto seen_by = [&](int64_t row) {
    const int64_t end = g.causal ? g.query_begin + row + 1 : g.keys;
    return end < g.keys ? end : g.keys;
  };
  const int64_t keys = seen_by(first + rows - 1);  // the last row sees most
  const int64_t width = padded(keys);
  product({s.q, s.d, 1}, rows, s.k_columns, s.width, g.qk_size, width, false, s.p, s.width);
  product({s.dy, s.e, 1}, rows, s.v_columns, s.width, g.v_size, width, false, s.ds, s.width);
  for (int64_t i = 0; i < rows; ++i) {
    softmax_row(s.p + i * s.width, seen_by(first + i), width, g.scale);
    softmax_gradient_row(s.p + i * s.width, s.ds + i * s.width, width, g.scale);
  }
  product({s.p, 1, s.width}, keys, s.dy, s.e, rows, s.e, true, s.dv, s.e);
  product({s.ds, 1, s.width}, keys, s.q, s.d, rows, s.d, true, s.dk, s.d);
  product({s.ds, s.width, 1}, rows, s.k_rows, s.d, keys, s.d, false, s.dq, s.d);
  float* dq = g.dq + head * g.dq_head_stride + first * g.dq_row_stride;
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < g.qk_size; ++j) dq[i * g.dq_row_stride + j] = s.dq[i * s.d + j];
}

void run(const AttentionGradientGroup& g, float* memory) {
  const Scratch s(memory, g.keys, g.qk_size, g.v_size);
  transpose_rows(g.k, g.k_row_stride, g.keys, g.qk_size, s.width, s.k_columns);
  transpose_rows(g.v, g.v_row_stride, g.keys, g.v_size, s.width, s.v_columns);
  copy_rows(g.k, g.k_row_stride, g.keys, g.qk_size, s.d, s.k_rows);
  for (int64_t i = 0; i < g.keys * s.d; ++i) s.dk[i] = 0;
  for (int64_t i = 0; i < g.keys * s.e; ++i) s.dv[i] = 0;
  for (int64_t head = 0; head < g.heads; ++head)
    for (int64_t first = 0; first < g.q_rows; first += kGradientRows)
      run_block(g, s, head, first,
                g.q_rows - first < kGradientRows ? g.q_rows - first : kGradientRows);
  for (int64_t i = 0; i < g.keys; ++i) {
    for (int64_t j = 0; j < g.qk_size; ++j) g.dk[i * g.dk_row_stride + j] = s.dk[i * s.d + j];
    for (int64_t j = 0; j < g.v_size; ++j) g.dv[i * g.dv_row_stride + j] = s.dv[i * s.e + j];
  }
}

}  // namespace

extern const AttentionGradientTable attention_gradient_table;
const AttentionGradientTable attention_gradient_table = {scratch_floats, run};

}  // namespace shardwright::kernels::SHARDWRIGHT_ISA_NAMESPACE
