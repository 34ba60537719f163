// The inner kernels of gemm, compiled once per instruction set (see cmake/kernels.cmake).
#include "kernels/cpu/gemm_isa.h"
#include "kernels/cpu/vector.h"
#include "kernels/cpu/vector_math.h"

namespace shardwright::kernels::SHARDWRIGHT_ISA_NAMESPACE {
namespace {

// Sums of rows x 2 vectors, 2 vectors of the panel and a broadcast fill the registers: 14 rows
// with the 32 of AVX-512, 6 with the 16 below. Widening needs a few registers of its own.
constexpr int kTileRows = SHARDWRIGHT_ISA_LEVEL >= 2 ? kMaxTileRows : 6;
constexpr int kWidenTileRows = SHARDWRIGHT_ISA_LEVEL >= 2 ? 12 : 6;
constexpr int kPanel = 32;       // columns of a panel
constexpr int kStepBytes = 128;  // of a panel
constexpr int kStepsAtOnce = 4;  // unrolled: pointers advance once in 4 steps

template <typename T>
inline T read(const char* p) {
  T value;
  __builtin_memcpy(&value, p, sizeof(value));
  return value;
}

// Row r of the tile is at p[r / 3] + (r % 3) * stride: x86 adds one or two strides for free, so
// 14 rows need only 5 pointers.
template <int kRows>
struct Rows {
  static constexpr int kPointers = (kRows + 2) / 3;
  const char* p[kPointers];
  int64_t stride;

  Rows(const char* a, int64_t stride_bytes) : stride(stride_bytes) {
    for (int i = 0; i < kPointers; ++i) p[i] = a + 3 * i * stride;
  }
  const char* row(int r) const { return p[r / 3] + (r % 3) * stride; }
  void advance(int64_t bytes) {
    for (int i = 0; i < kPointers; ++i) p[i] += bytes;
  }
};

// Few rows make too few sums to hide the latency of an FMA: then several sets take turns.
template <int kRows>
struct Sums {
  static constexpr int kSets = kRows == 1 ? 4 : kRows <= 3 ? 2 : 1;
  F v[kSets][kRows][2] = {};
};

// Step u of those unrolled: b is one k of 32 columns.
template <int kRows>
inline void step_f32(Sums<kRows>& sums, const Rows<kRows>& a, const char* b, int u) {
  auto& v = sums.v[u % Sums<kRows>::kSets];
  const F b0 = read<F>(b);
  const F b1 = read<F>(b + kVectorBytes);
#pragma GCC unroll 14
  for (int r = 0; r < kRows; ++r) {
    const F x = splat(read<float>(a.row(r) + 4 * u));
    v[r][0] += x * b0;
    v[r][1] += x * b1;
  }
}

// b is two k of 32 columns, in the low and the high half of each lane.
template <int kRows>
inline void step_widen(Sums<kRows>& sums, const Rows<kRows>& a, const char* b, int u) {
  const U b0 = read<U>(b);
  const U b1 = read<U>(b + kVectorBytes);
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    auto& v = sums.v[(2 * u + half) % Sums<kRows>::kSets];
    const F w0 = (F)(half == 0 ? b0 << 16 : b0 & 0xffff0000U);
    const F w1 = (F)(half == 0 ? b1 << 16 : b1 & 0xffff0000U);
#pragma GCC unroll 14
    for (int r = 0; r < kRows; ++r) {
      const F x = splat(read<float>(a.row(r) + 8 * u + 4 * half));
      v[r][0] += x * w0;
      v[r][1] += x * w1;
    }
  }
}

#if SHARDWRIGHT_ISA_LEVEL >= 3
template <int kRows>
inline void step_dot(Sums<kRows>& sums, const Rows<kRows>& a, const char* b, int u) {
  auto& v = sums.v[u % Sums<kRows>::kSets];
  const auto b0 = (__m512bh)read<U>(b);
  const auto b1 = (__m512bh)read<U>(b + kVectorBytes);
#pragma GCC unroll 14
  for (int r = 0; r < kRows; ++r) {
    const auto x = (__m512bh)(read<uint32_t>(a.row(r) + 4 * u) - U{});
    v[r][0] = _mm512_dpbf16_ps(v[r][0], x, b0);
    v[r][1] = _mm512_dpbf16_ps(v[r][1], x, b1);
  }
}
#endif

template <int kRows, int kBody>
inline void step(Sums<kRows>& sums, const Rows<kRows>& a, const char* b, int u) {
  if constexpr (kBody == kBodyF32) step_f32<kRows>(sums, a, b, u);
  if constexpr (kBody == kBodyWiden) step_widen<kRows>(sums, a, b, u);
#if SHARDWRIGHT_ISA_LEVEL >= 3
  if constexpr (kBody == kBodyDot) step_dot<kRows>(sums, a, b, u);
#endif
}

template <int kRows, int kBody>
void micro(const MicroArgs* args) {
  constexpr int kRowBytes = kBody == kBodyWiden ? 8 : 4;  // of a row, a step
  Sums<kRows> sums;
  Rows<kRows> a(args->a, args->a_stride_bytes);
  const char* b = args->b;
  const char* prefetch = args->prefetch;
  const int32_t prefetch_lines = args->prefetch_lines;
  int64_t left = args->n_steps;
  for (; left >= kStepsAtOnce; left -= kStepsAtOnce) {
    for (int32_t i = 0; i < prefetch_lines; ++i) {
      __builtin_prefetch(prefetch, 0, 2);
      prefetch += 64;
    }
#pragma GCC unroll 4
    for (int u = 0; u < kStepsAtOnce; ++u) step<kRows, kBody>(sums, a, b + u * kStepBytes, u);
    a.advance(kStepsAtOnce * kRowBytes);
    b += kStepsAtOnce * kStepBytes;
  }
  for (; left > 0; --left) {
    step<kRows, kBody>(sums, a, b, 0);
    a.advance(kRowBytes);
    b += kStepBytes;
  }
#pragma GCC unroll 14
  for (int r = 0; r < kRows; ++r) {
    for (int j = 0; j < 2; ++j) {
      F sum = sums.v[0][r][j];
      for (int set = 1; set < Sums<kRows>::kSets; ++set) sum += sums.v[set][r][j];
      float* out = args->sums + r * kPanel + j * kLanes;
      storeu(out, args->add != 0 ? loadu(out) + sum : sum);
    }
  }
}

template <int kStorage>
void stage_as_f32(const StageArgs& args) {
  using T = typename StorageOf<kStorage>::Type;
  for (int64_t r = 0; r < args.n_rows; ++r) {
    const T* x = static_cast<const T*>(args.x) + r * args.x_row_stride;
    float* out = static_cast<float*>(args.out) + r * args.out_row_stride;
    int64_t k = 0;
    if (args.x_k_stride == 1)
      for (; k + kLanes <= args.k_count; k += kLanes) storeu(out + k, load<kStorage>(x + k));
    for (; k < args.k_count; ++k) {
      T lane[kLanes] = {x[k * args.x_k_stride]};
      out[k] = load<kStorage>(lane)[0];
    }
    for (; k < args.k_padded; ++k) out[k] = 0.0F;
  }
}

void stage_as_bf16(const StageArgs& args) {
  for (int64_t r = 0; r < args.n_rows; ++r) {
    const uint16_t* __restrict x = static_cast<const uint16_t*>(args.x) + r * args.x_row_stride;
    uint16_t* __restrict out = static_cast<uint16_t*>(args.out) + r * args.out_row_stride;
    if (args.x_k_stride == 1)
      __builtin_memcpy(out, x, static_cast<uint64_t>(args.k_count) * sizeof(uint16_t));
    else
      for (int64_t k = 0; k < args.k_count; ++k) out[k] = x[k * args.x_k_stride];
    for (int64_t k = args.k_count; k < args.k_padded; ++k) out[k] = 0;
  }
}

void stage(const StageArgs* args) {
  if (args->out_dtype == kStoreBF16) return stage_as_bf16(*args);
  if (args->x_dtype == kStoreF32) return stage_as_f32<kStoreF32>(*args);
  if (args->x_dtype == kStoreBF16) return stage_as_f32<kStoreBF16>(*args);
  return stage_as_f32<kStoreF16>(*args);
}

template <int kStorage>
inline F load_some(const void* p, int64_t at, int64_t count) {
  const auto* from = static_cast<const typename StorageOf<kStorage>::Type*>(p) + at;
  return count >= kLanes ? load<kStorage>(from) : load_part<kStorage>(from, count);
}
inline F load_any(int32_t dtype, const void* p, int64_t at, int64_t count) {
  if (dtype == kStoreF32) return load_some<kStoreF32>(p, at, count);
  if (dtype == kStoreBF16) return load_some<kStoreBF16>(p, at, count);
  return load_some<kStoreF16>(p, at, count);
}
inline F load_bias(const void* bias, int32_t dtype, int64_t column, int64_t count) {
  return bias != nullptr ? load_any(dtype, bias, column, count) : F{};
}
inline F activate(F x, int32_t activation) {  // the numbers of Activation
  switch (activation) {
    case 1:
      return maximum(x, F{});
    case 2:
      return gelu_of(x);
    case 3:
      return gelu_tanh_of(x);
    case 4:
      return silu_of(x);
    default:
      return x;
  }
}

template <int kStorage>
void finish_as(const FinishArgs& args) {
  using T = typename StorageOf<kStorage>::Type;
  for (int64_t column = 0; column < args.n_columns; column += kLanes) {
    const int64_t count = args.n_columns - column;
    const F bias = load_bias(args.bias, args.bias_dtype, column, count);
    const F up_bias = load_bias(args.up_bias, args.up_bias_dtype, column, count);
    for (int64_t r = 0; r < args.n_rows; ++r) {
      T* y = static_cast<T*>(args.y) + r * args.y_row_stride + column;
      F value = activate(loadu(args.sums + r * kPanel + column) + bias, args.activation);
      if (args.up_sums != nullptr) value *= loadu(args.up_sums + r * kPanel + column) + up_bias;
      if (args.residual != nullptr)
        value += load_any(args.residual_dtype, args.residual, r * args.residual_row_stride + column,
                          count);
      if (args.accumulate != 0) value += load_some<kStorage>(y, 0, count);
      if (count >= kLanes)
        store<kStorage>(y, value);
      else
        store_part<kStorage>(y, count, value);
    }
  }
}

void finish(const FinishArgs* args) {
  if (args->y_dtype == kStoreF32) return finish_as<kStoreF32>(*args);
  if (args->y_dtype == kStoreBF16) return finish_as<kStoreBF16>(*args);
  return finish_as<kStoreF16>(*args);
}

template <int kBody, int kRows>
constexpr void fill_body(GemmKernels& table) {
  table.micro[kBody][kRows - 1] = micro<kRows, kBody>;
  if constexpr (kRows > 1) fill_body<kBody, kRows - 1>(table);
}

constexpr GemmKernels make_table() {
  GemmKernels table{.tile_rows = {kTileRows, kWidenTileRows, kTileRows},
                    .tile_columns = 2 * kLanes,
                    .micro = {},
                    .stage = stage,
                    .finish = finish};
  fill_body<kBodyF32, kTileRows>(table);
  fill_body<kBodyWiden, kWidenTileRows>(table);
#if SHARDWRIGHT_ISA_LEVEL >= 3
  fill_body<kBodyDot, kTileRows>(table);
#endif
  return table;
}

}  // namespace

constinit const GemmKernels gemm_kernels = make_table();

}  // namespace shardwright::kernels::SHARDWRIGHT_ISA_NAMESPACE
