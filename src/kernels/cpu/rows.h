// Kernels over rows: norms, softmax, argmax, embedding lookup, strided copies. Called by all
// threads of a team, each doing its rows; no barrier inside.
// Strides count elements. Storage is f32, bf16 or f16 unless said otherwise; arithmetic is f32.
#pragma once

#include <cstdint>

#include "base/team.h"
#include "tensor/shape.h"

namespace shardwright::kernels {

// rms_norm:   y = x / sqrt(mean(x^2) + eps) * weight
// layer_norm: y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias      (var of the population)
struct NormArgs {
  int64_t n_rows = 0;
  int64_t row_size = 0;
  DType dtype = DType::kF32;         // of x and y
  DType weight_dtype = DType::kF32;  // of weight and bias
  const void* x = nullptr;
  int64_t x_stride = 0;
  void* y = nullptr;  // may be x
  int64_t y_stride = 0;
  const void* weight = nullptr;  // [row_size], or none
  const void* bias = nullptr;    // [row_size], or none; layer_norm only
  // Or x + add, rounded to dtype, is what is normed (a residual before a norm), and kept as `sum`
  // if that is not null. `sum` may be x or add.
  const void* add = nullptr;
  int64_t add_stride = 0;
  void* sum = nullptr;
  int64_t sum_stride = 0;
  float eps = 1e-5F;
  bool round_before_weight = false;  // Llama: the normalised x is rounded to dtype first
  bool weight_plus_one = false;      // Gemma: multiplies by 1 + weight
};
void rms_norm(Member& member, const NormArgs& args);
void layer_norm(Member& member, const NormArgs& args);

// y[r, :] = exp(x[r, :] - max) / sum. y may be x where the types are the same.
struct SoftmaxArgs {
  int64_t n_rows = 0;
  int64_t row_size = 0;
  DType x_dtype = DType::kF32;
  DType y_dtype = DType::kF32;
  const void* x = nullptr;
  int64_t x_stride = 0;
  void* y = nullptr;
  int64_t y_stride = 0;
};
void softmax(Member& member, const SoftmaxArgs& args);

// y[r] = index of the largest of x[r, :]; the first of equals; NaN counts as largest.
struct ArgMaxArgs {
  int64_t n_rows = 0;
  int64_t row_size = 0;
  DType dtype = DType::kF32;
  const void* x = nullptr;
  int64_t x_stride = 0;
  int64_t* y = nullptr;
};
void argmax(Member& member, const ArgMaxArgs& args);

// target[i] = the sum (or maximum; a NaN wins) of sources[0][i], sources[1][i], ... in that order,
// for i < n. f32, bf16 and f16; computed in f32 and rounded once. By the calling thread alone.
enum class Combining : uint8_t { kSum, kMax };
void combine_rows(Combining how, DType dtype, const void* const* sources, int64_t n_sources,
                  void* target, int64_t n);

// y[i, :] = table[ids[i] - first_row, :], or zeros where ids[i] is outside
// [first_row, first_row + row_count).
struct GatherArgs {
  int64_t n_ids = 0;
  DType id_dtype = DType::kI64;  // i64 or i32
  const void* ids = nullptr;
  const void* table = nullptr;
  int64_t table_stride_bytes = 0;
  int64_t row_bytes = 0;
  int64_t first_row = 0;
  int64_t row_count = 0;
  void* y = nullptr;
  int64_t y_stride_bytes = 0;
};
void gather_rows(Member& member, const GatherArgs& args);

// Copies between two layouts of one shape (permute, transpose, slice, expand, cat into a slice).
// Prepared once: run allocates nothing.
class StridedCopy {
 public:
  // Elements of 1, 2, 4 or 8 bytes; at most kMaxDims dims.
  StridedCopy(int64_t element_bytes, const Shape& shape, const Strides& from_strides,
              const Strides& to_strides);
  void run(Member& member, const void* from, void* to) const;

 private:
  struct Dim {
    int64_t size = 1;
    int64_t from = 0;  // strides in elements
    int64_t to = 0;
  };
  Dim dims_[kMaxDims];  // outermost first; the last two are walked as a block
  int n_dims_ = 0;
  int64_t element_bytes_ = 0;
};

}  // namespace shardwright::kernels
