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
// A row in bytes has sums of each of its bytes.
constexpr int kInt8Dot2TileRows = 7;
constexpr int kInt8Dot3TileRows = 4;
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

// b is four k of 32 columns, each plus 128.
template <int kRows>
inline void step_int8(Sums<kRows>& sums, const Rows<kRows>& a, const char* b, int u) {
  const U b0 = read<U>(b) ^ 0x80808080U;
  const U b1 = read<U>(b + kVectorBytes) ^ 0x80808080U;
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    auto& v = sums.v[i % Sums<kRows>::kSets];
    const F w0 = __builtin_convertvector((I)(b0 << (24 - 8 * i)) >> 24, F);
    const F w1 = __builtin_convertvector((I)(b1 << (24 - 8 * i)) >> 24, F);
#pragma GCC unroll 14
    for (int r = 0; r < kRows; ++r) {
      const F x = splat(read<float>(a.row(r) + 16 * u + 4 * i));
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
  if constexpr (kBody == kBodyInt8) step_int8<kRows>(sums, a, b, u);
#if SHARDWRIGHT_ISA_LEVEL >= 3
  if constexpr (kBody == kBodyDot) step_dot<kRows>(sums, a, b, u);
#endif
}

template <int kRows, int kBody>
void micro(const MicroArgs* args) {
  constexpr int kRowBytes = kBody == kBodyInt8 ? 16 : kBody == kBodyWiden ? 8 : 4;  // of a step
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

#if SHARDWRIGHT_ISA_LEVEL >= 3
// sum += the products of four bytes of b (unsigned) and of x (signed). By the intrinsic, GCC 12
// moves sums from register to register, and to the stack.
inline void add_products(__m512i& sum, __m512i b, __m512i x) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(b), "v"(x));
}

// Rows in kBytes bytes, whose products with the panel are summed apart, as whole numbers.
template <int kRows, int kBytes>
void micro_int8_dot(const MicroArgs* args) {
  constexpr int kRowBytes = 4 * kBytes;  // of a step
  __m512i sums[kRows][kBytes][2] = {};
  Rows<kRows> a(args->a, args->a_stride_bytes);
  const char* b = args->b;
  const char* prefetch = args->prefetch;
  const auto step = [&](int u) __attribute__((always_inline)) {
    const auto b0 = read<__m512i>(b + u * kStepBytes);
    const auto b1 = read<__m512i>(b + u * kStepBytes + kVectorBytes);
#pragma GCC unroll 7
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 3
      for (int i = 0; i < kBytes; ++i) {
        const __m512i x = _mm512_set1_epi32(read<int32_t>(a.row(r) + kRowBytes * u + 4 * i));
        add_products(sums[r][i][0], b0, x);
        add_products(sums[r][i][1], b1, x);
      }
  };
  int64_t left = args->n_steps;
  for (; left >= kStepsAtOnce; left -= kStepsAtOnce) {
    for (int32_t i = 0; i < args->prefetch_lines; ++i) {
      __builtin_prefetch(prefetch, 0, 2);
      prefetch += 64;
    }
#pragma GCC unroll 4
    for (int u = 0; u < kStepsAtOnce; ++u) step(u);
    a.advance(kStepsAtOnce * kRowBytes);
    b += kStepsAtOnce * kStepBytes;
  }
  for (; left > 0; --left) {
    step(0);
    a.advance(kRowBytes);
    b += kStepBytes;
  }
#pragma GCC unroll 7
  for (int r = 0; r < kRows; ++r) {
    const auto end = read<RowEnd>(a.row(r));
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      F sum{};
#pragma GCC unroll 3
      for (int i = 0; i < kBytes; ++i)
        sum = sum * 256.0F + __builtin_convertvector((I)sums[r][i][j] - end.sums[i], F);
      sum *= end.scale;
      float* out = args->sums + r * kPanel + j * kLanes;
      storeu(out, args->add != 0 ? loadu(out) + sum : sum);
    }
  }
}

// kLanes x from k on, zeros behind the last.
template <int kStorage>
inline F row_values(const StageArgs& args, const typename StorageOf<kStorage>::Type* x, int64_t k) {
  const int64_t left = args.k_count - k;
  if (args.x_k_stride == 1 && left >= kLanes) return load<kStorage>(x + k);
  typename StorageOf<kStorage>::Type lanes[kLanes] = {};
  for (int64_t i = 0; i < kLanes && i < left; ++i) lanes[i] = x[(k + i) * args.x_k_stride];
  return load<kStorage>(lanes);
}

// The power of two by which a row whose largest |x| is `largest` becomes whole numbers of kBytes
// bytes; top bytes reach 127, not 128. 0 for rows that are as good as zero.
template <int kBytes>
inline float factor_of(float largest) {
  constexpr uint32_t kExponent = 0x7f800000U;
  const float most = largest * (128.0F / 127.0F);
  uint32_t bits;
  __builtin_memcpy(&bits, &most, sizeof(bits));
  bits &= kExponent;  // 2^e <= most < 2^(e + 1)
  if (bits < (24U << 23)) return 0.0F;
  bits = ((254U + 8U * kBytes - 2U) << 23) - bits;  // 2^(8 kBytes - 2 - e)
  float factor;
  __builtin_memcpy(&factor, &bits, sizeof(factor));
  return factor;
}

typedef int8_t Bytes __attribute__((vector_size(kLanes)));

template <int kStorage, int kBytes>
void stage_as_bytes(const StageArgs& args) {
  using T = typename StorageOf<kStorage>::Type;
  for (int64_t r = 0; r < args.n_rows; ++r) {
    const T* x = static_cast<const T*>(args.x) + r * args.x_row_stride;
    char* out = static_cast<char*>(args.out) + r * args.out_row_bytes;
    U most = {};  // bits of |x|: in the order of their values, and NaN above all
    for (int64_t k = 0; k < args.k_count; k += kLanes) {
      const U next = (U)abs_of(row_values<kStorage>(args, x, k));
      most = next > most ? next : most;
    }
    uint32_t bits = 0;
    for (int i = 0; i < kLanes; ++i) bits = most[i] > bits ? most[i] : bits;
    const bool finite = bits < 0x7f800000U;
    float largest;
    __builtin_memcpy(&largest, &bits, sizeof(largest));
    const float factor = finite ? factor_of<kBytes>(largest) : 0.0F;
    I sums[kBytes] = {};
    for (int64_t k = 0; k < args.k_padded; k += kLanes) {
      const auto scaled = (__m512)(row_values<kStorage>(args, x, k) * factor);
      const auto lanes = static_cast<__mmask16>(factor == 0.0F ? 0 : -1);
      auto rest = (I)_mm512_maskz_cvtps_epi32(lanes, scaled);  // to nearest
      Bytes bytes[kBytes];                                     // top first
#pragma GCC unroll 3
      for (int i = kBytes - 1; i >= 0; --i) {
        const I byte = i == 0 ? rest : (rest << 24) >> 24;
        rest = (rest - byte) >> 8;
        sums[i] += byte;
        bytes[i] = __builtin_convertvector(byte, Bytes);
      }
      const int64_t words = args.k_padded - k >= kLanes ? 4 : (args.k_padded - k) / 4;
      for (int64_t word = 0; word < words; ++word)
        for (const Bytes& byte : bytes) {
          __builtin_memcpy(out, reinterpret_cast<const char*>(&byte) + 4 * word, 4);
          out += 4;
        }
    }
    RowEnd end{.scale = !finite       ? __builtin_nanf("")
                        : factor == 0 ? 0.0F
                                      : 1.0F / factor,
               .sums = {}};
    for (int i = 0; i < kBytes; ++i)
      for (int lane = 0; lane < kLanes; ++lane) end.sums[i] += 128 * sums[i][lane];
    __builtin_memcpy(out, &end, sizeof(end));
  }
}
#endif

template <int kStorage>
void stage_as_f32(const StageArgs& args) {
  using T = typename StorageOf<kStorage>::Type;
  for (int64_t r = 0; r < args.n_rows; ++r) {
    const T* x = static_cast<const T*>(args.x) + r * args.x_row_stride;
    auto* out = reinterpret_cast<float*>(static_cast<char*>(args.out) + r * args.out_row_bytes);
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
    auto* __restrict out =
        reinterpret_cast<uint16_t*>(static_cast<char*>(args.out) + r * args.out_row_bytes);
    if (args.x_k_stride == 1)
      __builtin_memcpy(out, x, static_cast<uint64_t>(args.k_count) * sizeof(uint16_t));
    else
      for (int64_t k = 0; k < args.k_count; ++k) out[k] = x[k * args.x_k_stride];
    for (int64_t k = args.k_count; k < args.k_padded; ++k) out[k] = 0;
  }
}

void stage(const StageArgs* args) {
  if (args->body == kBodyDot) return stage_as_bf16(*args);
#if SHARDWRIGHT_ISA_LEVEL >= 3
  if (args->body == kBodyInt8Dot3) return stage_as_bytes<kStoreF32, 3>(*args);
  if (args->body == kBodyInt8Dot2)
    return args->x_dtype == kStoreBF16 ? stage_as_bytes<kStoreBF16, 2>(*args)
                                       : stage_as_bytes<kStoreF16, 2>(*args);
#endif
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
inline F load_scale(const float* scale, int64_t column, int64_t count) {
  return scale != nullptr ? load_some<kStoreF32>(scale, column, count) : splat(1.0F);
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
    const F scale = load_scale(args.scale, column, count);
    const F up_scale = load_scale(args.up_scale, column, count);
    for (int64_t r = 0; r < args.n_rows; ++r) {
      T* y = static_cast<T*>(args.y) + r * args.y_row_stride + column;
      const int64_t at = r * kPanel + column;
      F value = activate(loadu(args.sums + at) * scale + bias, args.activation);
      if (args.up_sums != nullptr) value *= loadu(args.up_sums + at) * up_scale + up_bias;
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
#if SHARDWRIGHT_ISA_LEVEL >= 3
  if constexpr (kBody == kBodyInt8Dot2)
    table.micro[kBody][kRows - 1] = micro_int8_dot<kRows, 2>;
  else if constexpr (kBody == kBodyInt8Dot3)
    table.micro[kBody][kRows - 1] = micro_int8_dot<kRows, 3>;
  else
#endif
    table.micro[kBody][kRows - 1] = micro<kRows, kBody>;
  if constexpr (kRows > 1) fill_body<kBody, kRows - 1>(table);
}

constexpr GemmKernels make_table() {
  GemmKernels table{.tile_rows = {kTileRows, kWidenTileRows, kTileRows, kWidenTileRows,
                                  kInt8Dot2TileRows, kInt8Dot3TileRows},
                    .tile_columns = 2 * kLanes,
                    .micro = {},
                    .stage = stage,
                    .finish = finish};
  fill_body<kBodyF32, kTileRows>(table);
  fill_body<kBodyWiden, kWidenTileRows>(table);
  fill_body<kBodyInt8, kWidenTileRows>(table);
#if SHARDWRIGHT_ISA_LEVEL >= 3
  fill_body<kBodyDot, kTileRows>(table);
  fill_body<kBodyInt8Dot2, kInt8Dot2TileRows>(table);
  fill_body<kBodyInt8Dot3, kInt8Dot3TileRows>(table);
#endif
  return table;
}

}  // namespace

constinit const GemmKernels gemm_kernels = make_table();

}  // namespace shardwright::kernels::SHARDWRIGHT_ISA_NAMESPACE
