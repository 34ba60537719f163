// Matrix product with a packed weight: y[M, N] = x[M, K] * w[N, K]^T, and of two activations.
//
// A packed weight is a row of panels of 32 output columns, zero-padded to whole panels and pairs:
//   f32   [ceil(N / 32)][K][32]
//   bf16  [ceil(N / 32)][ceil(K / 2)][32][2]
//   i8    [ceil(N / 32)][ceil(K / 4)][32][4], bytes w + 128
// It is the same for every instruction set. Sums are always f32. f16 weights are packed as f32.
// An i8 weight stands for w * scale[n]: symmetric, one f32 scale an output column. Where processors
// multiply bytes (AVX-512 VNNI), x is cut into bytes as well: 16 bits of the largest x of a row for
// bf16 and f16, 24 for f32, so that x is as good as it was.
#pragma once

#include <cstdint>
#include <span>

#include "base/team.h"
#include "tensor/dtype.h"

namespace shardwright::kernels {

inline constexpr int64_t kPanelColumns = 32;

// Whether a weight of `dtype` can be packed: f32, bf16, f16, i8.
bool has_panels(DType dtype);
// The dtype that its panels have: f32, bf16 or i8.
DType panel_dtype(DType dtype);
// Bytes of the panels of a weight [n, k]; `panels` is f32, bf16 or i8. Panels start at 64 bytes.
int64_t panel_bytes(DType panels, int64_t n, int64_t k);

struct PackArgs {
  int64_t n = 0;
  int64_t k = 0;
  const void* w = nullptr;      // element (n, k) is at n * stride_n + k * stride_k
  DType w_dtype = DType::kF32;  // f32, bf16, f16, i8
  int64_t stride_n = 0;         // in elements; any strides, so transposed weights pack directly
  int64_t stride_k = 1;
  void* panels = nullptr;            // panel_bytes(panels_dtype, n, k)
  DType panels_dtype = DType::kF32;  // f32 or bf16; of an i8 weight, i8
};
// Called by all threads of the team; the result is whole after the next barrier.
void pack_panels(Member& member, const PackArgs& args);

// Row n of a packed weight [., k] times `scale` as k elements of y_dtype (f32, bf16, f16): the
// lookup of an embedding tied to the output layer.
void read_panel_row(DType panels_dtype, const void* panels, int64_t k, int64_t n, void* y,
                    DType y_dtype, float scale = 1);
// The whole packed weight back to a contiguous [n, k].
void unpack_panels(Member& member, DType panels_dtype, const void* panels, int64_t n, int64_t k,
                   void* w, DType w_dtype);

enum class Activation : uint8_t { kNone, kRelu, kGelu, kGeluTanh, kSilu };

// y = activation(x w^T * scale + bias) + residual, or that added to y. Row strides are in elements;
// a row itself is contiguous.
struct GemmArgs {
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  const void* x = nullptr;      // [m, k]
  DType x_dtype = DType::kF32;  // f32, bf16, f16
  int64_t x_row_stride = 0;
  const void* panels = nullptr;  // of the weight [n, k]
  DType panels_dtype = DType::kF32;
  const float* scale = nullptr;  // [n] or null
  void* y = nullptr;             // [m, n]; must not overlap x
  DType y_dtype = DType::kF32;   // f32, bf16, f16
  int64_t y_row_stride = 0;
  const void* bias = nullptr;  // [n] or null
  DType bias_dtype = DType::kF32;
  const void* residual = nullptr;  // [m, n] of y_dtype or null; may be y itself
  int64_t residual_row_stride = 0;
  Activation activation = Activation::kNone;
  bool accumulate = false;  // add to what y holds
  void* scratch = nullptr;  // gemm_scratch_bytes, 64-byte aligned, shared by the team
};

// What the weights of one gemm share.
struct GemmInput {
  int64_t m = 0;
  int64_t k = 0;
  const void* x = nullptr;      // [m, k]
  DType x_dtype = DType::kF32;  // f32, bf16, f16
  int64_t x_row_stride = 0;     // in elements, as all strides
  int64_t x_k_stride = 1;
  DType panels_dtype = DType::kF32;
};

// A weight w[n, k] and what becomes of its product, in f32 until y is stored:
//   y = activation(x w^T * scale + bias) + residual
// or of a pair of weights (gate and up; Shazeer, GLU Variants Improve Transformer, 2020):
//   y = activation(x w^T * scale + bias) * (x up^T * up_scale + up_bias) + residual
struct GemmOutput {
  int64_t n = 0;
  const void* panels = nullptr;
  const void* up_panels = nullptr;  // of [n, k], or null
  const float* scale = nullptr;     // [n] or null
  const float* up_scale = nullptr;
  const void* bias = nullptr;  // [n] or null
  DType bias_dtype = DType::kF32;
  const void* up_bias = nullptr;  // [n] or null
  DType up_bias_dtype = DType::kF32;
  Activation activation = Activation::kNone;
  const void* residual = nullptr;  // [m, n] or null; may be y itself
  DType residual_dtype = DType::kF32;
  int64_t residual_row_stride = 0;
  bool accumulate = false;  // add to what y holds
  void* y = nullptr;        // [m, n]; must not overlap x
  DType y_dtype = DType::kF32;
  int64_t y_row_stride = 0;
};

// Several weights at once: x is read once, and the threads share the panels of all.
// Scratch, calls and barriers as for gemm below.
int64_t gemm_scratch_bytes(const GemmInput& input, std::span<const GemmOutput> outputs,
                           int n_threads);
void gemm(Member& member, const GemmInput& input, std::span<const GemmOutput> outputs,
          void* scratch);

// Bytes of scratch that gemm needs for these sizes and dtypes (pointers are not read).
int64_t gemm_scratch_bytes(const GemmArgs& args, int n_threads);
// Called by all threads of the team. No barrier inside; y is whole after the next barrier, and
// scratch may be used again only after it.
void gemm(Member& member, const GemmArgs& args);

// One operand of a product of activations: element (i0, i1, row, column) of a batch of matrices.
// Strides are in elements and may be 0 (broadcast).
struct MatrixBatch {
  const void* data = nullptr;
  DType dtype = DType::kF32;  // f32, bf16, f16
  int64_t stride_batch[2] = {0, 0};
  int64_t stride_row = 0;
  int64_t stride_column = 1;
};

// y[i0, i1] = a[i0, i1] (m x k) * b[i0, i1] (k x n), for i0 < batch[0], i1 < batch[1].
struct MatmulArgs {
  int64_t batch[2] = {1, 1};
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  MatrixBatch a;  // rows m, columns k
  MatrixBatch b;  // rows k, columns n
  void* y = nullptr;
  DType y_dtype = DType::kF32;
  int64_t y_stride_batch[2] = {0, 0};
  int64_t y_row_stride = 0;
  void* scratch = nullptr;  // matmul_scratch_bytes, 64-byte aligned, shared by the team
};

int64_t matmul_scratch_bytes(const MatmulArgs& args, int n_threads);
// Called by all threads of the team; y is whole after the next barrier.
void matmul(Member& member, const MatmulArgs& args);

// For tests: which of the two ways to multiply bf16 by bf16 is used where the CPU has both.
// By default both are timed at first use (no CPUID flag says which is faster).
enum class Bf16Body : int { kMeasured, kWiden, kDot };
void force_bf16_body(Bf16Body body);
// True if bf16 products go by the dot instruction (forced, or measured) in the active set.
bool bf16_dot_is_used();
// Flops a second of one thread in the loop inside gemm, all of it in registers and L1: f32, or the
// faster body for bf16. Takes some 20 us.
double tile_flops_per_s(DType dtype);

}  // namespace shardwright::kernels
