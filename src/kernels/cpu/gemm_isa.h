// What gemm.cpp and the kernels of gemm.isa.cpp share: plain structs and a table per instruction
// set. Only <cstdint> may be included here (see cmake/kernels.cmake).
#pragma once

#include <cstdint>

namespace shardwright::kernels {

// How a step multiplies. A step is one k of an f32 panel, two of a bf16 panel, four of an i8 panel:
// 128 bytes of it.
enum GemmBody : int32_t {
  kBodyF32 = 0,       // f32 rows times an f32 panel
  kBodyWiden = 1,     // f32 rows times a bf16 panel that is widened in registers
  kBodyDot = 2,       // bf16 rows times a bf16 panel by the dot instruction
  kBodyInt8 = 3,      // f32 rows times an i8 panel that is widened in registers
  kBodyInt8Dot2 = 4,  // rows of whole numbers, of 2
  kBodyInt8Dot3 = 5,  // or 3 bytes, times an i8 panel by the dot instruction of bytes
};
inline constexpr int32_t kGemmBodies = 6;
inline constexpr int32_t kMaxTileRows = 14;  // 28 sums, 2 of the panel, 1 broadcast: 31 registers

// sums[rows][columns of the micro kernel] (+)= a[rows][steps] * b[steps]
struct MicroArgs {
  const char* a;  // row r at a + r * a_stride_bytes; elements of the body's row type
  int64_t a_stride_bytes;
  const char* b;  // step s at b + s * 128
  int64_t n_steps;
  float* sums;             // row r at sums + r * 32
  int32_t add;             // 0: sums start from zero
  int32_t prefetch_lines;  // fetched into L2 for every 4 steps, from `prefetch` on
  const char* prefetch;
};

// Rows of kBodyInt8Dot2 and 3 are fixed-point numbers: x = scale * q, where q has 2 or 3 bytes,
// q = sum b_i 256^i with b_i in [-128, 127], and scale is a power of two, chosen for each row and
// block of k so that the largest |q| has all its bits. A step of a row is the top bytes of its four
// k, then the next ones. Behind the row stands its RowEnd.
struct RowEnd {
  float scale;      // NaN if some x of the row is not finite
  int32_t sums[3];  // 128 * sum_k b_i: what the panel's bytes, which are w + 128, add too much
};

// out[r][0 .. k_count) = x[r][...], converted, then zeros up to k_padded.
struct StageArgs {
  const void* x;
  int32_t x_dtype;       // f32, bf16, f16: the number of its DType, as everywhere here
  int32_t body;          // whose rows these are
  int64_t x_row_stride;  // all strides in elements
  int64_t x_k_stride;
  int64_t n_rows;
  int64_t k_count;
  int64_t k_padded;
  void* out;
  int64_t out_row_bytes;  // from row to row
};

// y[rows][columns] = activation(sums * scale + bias) (* (up_sums * up_scale + up_bias)) + residual
// (+ y)
struct FinishArgs {
  const float* sums;     // row r at sums + r * 32
  const float* up_sums;  // the same, or null
  const float* scale;    // of these columns, or null
  const float* up_scale;
  int64_t n_rows;
  int64_t n_columns;  // 1..32
  const void* bias;   // of these columns, or null
  const void* up_bias;
  const void* residual;
  void* y;
  int64_t residual_row_stride;  // in elements
  int64_t y_row_stride;
  int32_t bias_dtype;
  int32_t up_bias_dtype;
  int32_t residual_dtype;
  int32_t y_dtype;
  int32_t activation;  // the numbers of Activation
  int32_t accumulate;
};

struct GemmKernels {
  int32_t tile_rows[kGemmBodies];  // the most rows of a micro kernel
  int32_t tile_columns;            // 32, or a divisor of it
  // [body][rows - 1]; null where the instruction set has no such body.
  void (*micro[kGemmBodies][kMaxTileRows])(const MicroArgs*);
  void (*stage)(const StageArgs*);
  void (*finish)(const FinishArgs*);
};

// One panel: panel[word of k][column] (32-bit words) of w[n_columns][k], zeros where there is no
// column or k. A word is an f32, two bf16 (the even k in the low half), or four bytes w + 128.
struct PackPanelArgs {
  const void* w;  // its first column; strides in elements
  uint32_t* panel;
  int64_t stride_n;
  int64_t stride_k;
  int64_t n_columns;  // 1..32
  int64_t k;
  int32_t w_dtype;   // f32, bf16, f16; i8 for words of four
  int32_t per_word;  // k in a word: 1, 2, 4
};

struct PackKernels {
  void (*pack_panel)(const PackPanelArgs*);
};

namespace portable {
extern const GemmKernels gemm_kernels;
extern const PackKernels pack_kernels;
}  // namespace portable
namespace avx2 {
extern const GemmKernels gemm_kernels;
extern const PackKernels pack_kernels;
}  // namespace avx2
namespace avx512 {
extern const GemmKernels gemm_kernels;
extern const PackKernels pack_kernels;
}  // namespace avx512
namespace avx512bf16 {
extern const GemmKernels gemm_kernels;
extern const PackKernels pack_kernels;
}  // namespace avx512bf16

}  // namespace shardwright::kernels
