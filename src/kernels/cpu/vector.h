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
  typename StorageOf<kStorage>::Type buffer[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) buffer[i] = p[i];
  const F value = load<kStorage>(buffer);
  float lanes[kLanes];
  storeu(lanes, value);
  for (int64_t i = n; i < kLanes; ++i) lanes[i] = rest;
  return loadu(lanes);
}
template <int kStorage>
inline void store_part(typename StorageOf<kStorage>::Type* p, int64_t n, F value) {
  typename StorageOf<kStorage>::Type buffer[kLanes];
  store<kStorage>(buffer, value);
  for (int64_t i = 0; i < n; ++i) p[i] = buffer[i];
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
