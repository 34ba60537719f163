// One register of floats, for *.isa.cpp files only: the widest of the instruction set, with 16-bit
// storage and the functions that libm has no vector form of. Everything has internal linkage.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace shardwright::kernels::SHARDWRIGHT_ISA_NAMESPACE {
namespace {

#if SHARDWRIGHT_ISA_LEVEL == 0
constexpr int kVectorBytes = 16;
#elif SHARDWRIGHT_ISA_LEVEL == 1
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 64;
#endif
constexpr int kLanes = kVectorBytes / 4;

// GCC vector types: + - * / < == and ?: work lane by lane; a comparison gives -1 or 0 in an I.
typedef float F __attribute__((vector_size(kVectorBytes)));
typedef int32_t I __attribute__((vector_size(kVectorBytes)));
typedef uint32_t U __attribute__((vector_size(kVectorBytes)));
typedef double D __attribute__((vector_size(kVectorBytes)));  // kLanes / 2
typedef uint16_t H __attribute__((vector_size(kVectorBytes / 2)));
typedef uint8_t B __attribute__((vector_size(kVectorBytes / 4)));
typedef float HalfF __attribute__((vector_size(kVectorBytes / 2)));

// Storage types by their DType number (tensor/dtype.h); rows.cpp asserts that they agree.
enum Storage : int { kStoreF32 = 0, kStoreBF16 = 1, kStoreF16 = 2, kStoreBool = 9 };
template <int kStorage>
struct StorageOf {
  typedef uint16_t Type;
};
template <>
struct StorageOf<kStoreF32> {
  typedef float Type;
};
template <>
struct StorageOf<kStoreBool> {
  typedef uint8_t Type;
};

inline F splat(float value) { return value - F{}; }
inline F loadu(const float* p) {
  F v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}
inline void storeu(float* p, F v) { __builtin_memcpy(p, &v, sizeof(v)); }

inline F from_bf16(H bits) { return (F)(__builtin_convertvector(bits, U) << 16); }
inline H to_bf16(F value) {  // to nearest even; NaN stays NaN
  const U bits = (U)value;
  const U rounded = (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
  return __builtin_convertvector(value != value ? (bits >> 16) | 0x40U : rounded, H);
}
inline F from_f16(H half) {
  const U bits = __builtin_convertvector(half, U);
  // The bits moved into place are 2^-112 of the value, denormals included.
  const F magnitude = (F)((bits & 0x7fffU) << 13) * 0x1p112F;
  const U special = (bits & 0x7c00U) == 0x7c00U ? U{} + 0x7f800000U : U{};
  return (F)((U)magnitude | special | ((bits & 0x8000U) << 16));
}
inline H to_f16(F value) {  // to nearest even; 65520 and above become infinite
  const U bits = (U)value;
  const U magnitude = bits & 0x7fffffffU;
  // Below 2^-14 the addition of 0.5 rounds at 2^-24.
  const U small = (U)((F)magnitude + 0.5F) - 0x3f000000U;
  const U normal = (magnitude + 0xfffU + ((magnitude >> 13) & 1U) - 0x38000000U) >> 13;
  U result = magnitude < 0x38800000U ? small : normal;
  result = magnitude >= 0x477ff000U ? U{} + 0x7c00U : result;
  result = magnitude > 0x7f800000U ? U{} + 0x7e00U : result;
  return __builtin_convertvector(result | ((bits >> 16) & 0x8000U), H);
}

// kLanes elements from p on.
template <int kStorage>
inline F load(const typename StorageOf<kStorage>::Type* p) {
  if constexpr (kStorage == kStoreF32) {
    return loadu(p);
  } else if constexpr (kStorage == kStoreBool) {
    B bytes;
    __builtin_memcpy(&bytes, p, sizeof(bytes));
    return __builtin_convertvector(bytes, F);
  } else {
    H bits;
    __builtin_memcpy(&bits, p, sizeof(bits));
    return kStorage == kStoreBF16 ? from_bf16(bits) : from_f16(bits);
  }
}
template <int kStorage>
inline void store(typename StorageOf<kStorage>::Type* p, F value) {
  if constexpr (kStorage == kStoreF32) {
    storeu(p, value);
  } else if constexpr (kStorage == kStoreBool) {
    const B bytes = __builtin_convertvector(value != 0.0F ? U{} + 1U : U{}, B);
    __builtin_memcpy(p, &bytes, sizeof(bytes));
  } else {
    const H bits = kStorage == kStoreBF16 ? to_bf16(value) : to_f16(value);
    __builtin_memcpy(p, &bits, sizeof(bits));
  }
}

// The first n < kLanes elements from p on; the other lanes are `rest`.
template <int kStorage>
inline F load_part(const typename StorageOf<kStorage>::Type* p, int64_t n, float rest = 0) {
#if SHARDWRIGHT_ISA_LEVEL >= 2
  const auto mask = static_cast<__mmask16>((1U << n) - 1U);
  if constexpr (kStorage == kStoreF32) {
    return (F)_mm512_mask_loadu_ps((__m512)splat(rest), mask, p);
  } else if constexpr (kStorage == kStoreBF16 || kStorage == kStoreF16) {
    const H bits = (H)_mm256_maskz_loadu_epi16(mask, p);
    const F value = kStorage == kStoreBF16 ? from_bf16(bits) : from_f16(bits);
    return (F)_mm512_mask_blend_ps(mask, (__m512)splat(rest), (__m512)value);
  }
#endif
  typename StorageOf<kStorage>::Type buffer[kLanes] = {};
  __builtin_memcpy(buffer, p, static_cast<uint64_t>(n) * sizeof(buffer[0]));
  const F value = load<kStorage>(buffer);
  float lanes[kLanes];
  storeu(lanes, value);
  for (int64_t i = n; i < kLanes; ++i) lanes[i] = rest;
  return loadu(lanes);
}
template <int kStorage>
inline void store_part(typename StorageOf<kStorage>::Type* p, int64_t n, F value) {
#if SHARDWRIGHT_ISA_LEVEL >= 2
  const auto mask = static_cast<__mmask16>((1U << n) - 1U);
  if constexpr (kStorage == kStoreF32) {
    return _mm512_mask_storeu_ps(p, mask, (__m512)value);
  } else if constexpr (kStorage == kStoreBF16 || kStorage == kStoreF16) {
    const H bits = kStorage == kStoreBF16 ? to_bf16(value) : to_f16(value);
    return _mm256_mask_storeu_epi16(p, mask, (__m256i)bits);
  }
#endif
  typename StorageOf<kStorage>::Type buffer[kLanes];
  store<kStorage>(buffer, value);
  __builtin_memcpy(p, buffer, static_cast<uint64_t>(n) * sizeof(buffer[0]));
}

// The value as it would be after a store and a load.
template <int kStorage>
inline F rounded(F value) {
  if constexpr (kStorage == kStoreBF16) return from_bf16(to_bf16(value));
  if constexpr (kStorage == kStoreF16) return from_f16(to_f16(value));
  return value;
}

inline float sum_lanes(F v) {
  float lanes[kLanes];
  storeu(lanes, v);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  return lanes[0];
}
// The larger of two; NaN if either is NaN.
inline F maximum(F a, F b) {
  const F larger = a > b ? a : b;  // b where they don't compare
  return a != a ? a : larger;
}
inline F minimum(F a, F b) {
  const F smaller = a < b ? a : b;
  return a != a ? a : smaller;
}
inline float max_lanes(F v) {
  float lanes[kLanes];
  storeu(lanes, v);
  float best = lanes[0];
  for (int i = 1; i < kLanes; ++i)
    best = (lanes[i] > best || lanes[i] != lanes[i]) ? lanes[i] : best;
  return best;
}

// Exchanges the off-diagonal blocks of kStep x kStep of rows[0 .. kLanes), seen as a matrix.
template <int kStep>
inline void exchange_blocks(F* rows) {
  I upper;
  I lower;
  for (int l = 0; l < kLanes; ++l) {
    upper[l] = (l & kStep) != 0 ? kLanes + l - kStep : l;
    lower[l] = (l & kStep) != 0 ? kLanes + l : l + kStep;
  }
#pragma GCC unroll 8
  for (int k = 0; k < kLanes / 2; ++k) {
    const int i = k / kStep * 2 * kStep + k % kStep;
    const F a = rows[i];
    const F b = rows[i + kStep];
    rows[i] = __builtin_shuffle(a, b, upper);
    rows[i + kStep] = __builtin_shuffle(a, b, lower);
  }
}
// rows[i][j] <-> rows[j][i]
inline void transpose(F* rows) {
  if constexpr (kLanes > 8) exchange_blocks<8>(rows);
  if constexpr (kLanes > 4) exchange_blocks<4>(rows);
  exchange_blocks<2>(rows);
  exchange_blocks<1>(rows);
}

// Lane l of the result: the sum over rows[l]. The rows are overwritten.
template <int kStep>
inline void add_neighbours(F* rows) {
  I straight;
  I crossed;
  for (int l = 0; l < kLanes; ++l) {
    straight[l] = (l & kStep) != 0 ? kLanes + l : l;
    crossed[l] = (l & kStep) != 0 ? kLanes + l - kStep : l + kStep;
  }
  for (int i = 0; i < kLanes / kStep / 2; ++i) {
    const F a = rows[2 * i];
    const F b = rows[2 * i + 1];
    rows[i] = __builtin_shuffle(a, b, straight) + __builtin_shuffle(a, b, crossed);
  }
}
inline F sums_of_rows(F* rows) {
  add_neighbours<1>(rows);
  add_neighbours<2>(rows);
  if constexpr (kLanes > 4) add_neighbours<4>(rows);
  if constexpr (kLanes > 8) add_neighbours<8>(rows);
  return rows[0];
}

inline F abs_of(F x) { return (F)((U)x & 0x7fffffffU); }
inline F with_sign_of(F magnitude, F sign) { return (F)((U)magnitude | ((U)sign & 0x80000000U)); }
inline F sqrt_of(F x) {
#if SHARDWRIGHT_ISA_LEVEL == 0
  return (F)_mm_sqrt_ps((__m128)x);
#elif SHARDWRIGHT_ISA_LEVEL == 1
  return (F)_mm256_sqrt_ps((__m256)x);
#else
  return (F)_mm512_maskz_sqrt_ps(static_cast<__mmask16>(-1), (__m512)x);
#endif
}
// |x| >= 2^23 is whole already (and NaN and infinities stay).
inline F floor_of(F x) {
  const F cut = __builtin_convertvector(__builtin_convertvector(x, I), F);
  const F down = cut - (cut > x ? splat(1.0F) : F{});
  return abs_of(x) < 0x1p23F ? with_sign_of(abs_of(down), x) : x;
}

}  // namespace
}  // namespace shardwright::kernels::SHARDWRIGHT_ISA_NAMESPACE
