// The tile engine's loops, compiled once per instruction set.
#include "kernels/cpu/tile_isa.h"
#include "kernels/cpu/vector_math.h"

namespace shardwright::kernels::SHARDWRIGHT_ISA_NAMESPACE {
namespace {

// TileCode's numbers: tile.cpp asserts that they agree.
enum Code : int {
  kCopy = 3,
  kNeg,
  kAbs,
  kExp,
  kLog,
  kSqrt,
  kRsqrt,
  kReciprocal,
  kTanh,
  kErf,
  kSigmoid,
  kSilu,
  kGelu,
  kGeluTanh,
  kRelu,
  kSquare,
  kSin,
  kCos,
  kFloor,
  kNot,
  kAdd,
  kSub,
  kMul,
  kDiv,
  kPow,
  kMin,
  kMax,
  kEq,
  kNe,
  kLt,
  kLe,
  kGt,
  kGe,
  kAnd,
  kOr,
  kWhere,
};

inline F truth(I mask) { return (F)(mask & 0x3f800000); }  // 1 or 0

template <int kCode>
inline F unary(F x) {
  if constexpr (kCode == kCopy) return x;
  if constexpr (kCode == kNeg) return -x;
  if constexpr (kCode == kAbs) return abs_of(x);
  if constexpr (kCode == kExp) return exp_of(x);
  if constexpr (kCode == kLog) return log_of(x);
  if constexpr (kCode == kSqrt) return sqrt_of(x);
  if constexpr (kCode == kRsqrt) return 1.0F / sqrt_of(x);
  if constexpr (kCode == kReciprocal) return 1.0F / x;
  if constexpr (kCode == kTanh) return tanh_of(x);
  if constexpr (kCode == kErf) return erf_of(x);
  if constexpr (kCode == kSigmoid) return sigmoid_of(x);
  if constexpr (kCode == kSilu) return silu_of(x);
  if constexpr (kCode == kGelu) return gelu_of(x);
  if constexpr (kCode == kGeluTanh) return gelu_tanh_of(x);
  if constexpr (kCode == kRelu) return x <= 0.0F ? F{} : x;
  if constexpr (kCode == kSquare) return x * x;
  if constexpr (kCode == kFloor) return floor_of(x);
  if constexpr (kCode == kNot) return truth(x == 0.0F);
}

template <int kCode>
inline F binary(F x, F y) {
  if constexpr (kCode == kAdd) return x + y;
  if constexpr (kCode == kSub) return x - y;
  if constexpr (kCode == kMul) return x * y;
  if constexpr (kCode == kDiv) return x / y;
  if constexpr (kCode == kMin) return minimum(x, y);
  if constexpr (kCode == kMax) return maximum(x, y);
  if constexpr (kCode == kEq) return truth(x == y);
  if constexpr (kCode == kNe) return truth(x != y);
  if constexpr (kCode == kLt) return truth(x < y);
  if constexpr (kCode == kLe) return truth(x <= y);
  if constexpr (kCode == kGt) return truth(x > y);
  if constexpr (kCode == kGe) return truth(x >= y);
  if constexpr (kCode == kAnd) return truth((x != 0.0F) & (y != 0.0F));
  if constexpr (kCode == kOr) return truth((x != 0.0F) | (y != 0.0F));
}

template <int kCode>
void unary_tile(float* dst, const float* a, const float*, const float*, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) storeu(dst + i, unary<kCode>(loadu(a + i)));
}
template <int kCode>
void binary_tile(float* dst, const float* a, const float* b, const float*, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes)
    storeu(dst + i, binary<kCode>(loadu(a + i), loadu(b + i)));
}
void where_tile(float* dst, const float* a, const float* b, const float* c, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes)
    storeu(dst + i, loadu(a + i) != 0.0F ? loadu(b + i) : loadu(c + i));
}
// General powers are rare (whole exponents become other codes): libm's, lane by lane.
void pow_tile(float* dst, const float* a, const float* b, const float*, int64_t n) {
  for (int64_t i = 0; i < n; ++i) dst[i] = __builtin_powf(a[i], b[i]);
}

// Angles too large for our reduction, infinities and NaN go to libm.
bool small_angles(const float* a, int64_t n) {
  I small = I{} - 1;
  for (int64_t i = 0; i < n; i += kLanes) small &= abs_of(loadu(a + i)) < kSinLimit;
  int32_t lanes[kLanes];
  __builtin_memcpy(lanes, &small, sizeof(lanes));
  int32_t all = -1;
  for (int i = 0; i < kLanes; ++i) all &= lanes[i];
  return all != 0;
}
template <int kShift>
void sin_tile(float* dst, const float* a, const float*, const float*, int64_t n) {
  if (small_angles(a, n)) {
    for (int64_t i = 0; i < n; i += kLanes) storeu(dst + i, sin_of(loadu(a + i), kShift));
  } else {
    for (int64_t i = 0; i < n; ++i)
      dst[i] = kShift == 0 ? __builtin_sinf(a[i]) : __builtin_cosf(a[i]);
  }
}

template <int kStorage>
void round_tile(float* dst, const float* a, const float*, const float*, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const F x = loadu(a + i);
    storeu(dst + i, kStorage == kStoreBool ? truth(x != 0.0F) : rounded<kStorage>(x));
  }
}

template <int kStorage>
inline void load_row(float* dst, const typename StorageOf<kStorage>::Type* p, int64_t stride,
                     int64_t n) {
  typedef typename StorageOf<kStorage>::Type T;
  int64_t i = 0;
  if (stride == 1) {
    for (; i + kLanes <= n; i += kLanes) {
      __builtin_prefetch(p + i + kTileSize);  // the next tile: the interpreter overlaps nothing
      storeu(dst + i, load<kStorage>(p + i));
    }
    if (i < n) {
      float rest[kLanes];
      storeu(rest, load_part<kStorage>(p + i, n - i));
      for (int64_t j = 0; i + j < n; ++j) dst[i + j] = rest[j];
    }
    return;
  }
  if (stride == 0) {
    const float value = load_part<kStorage>(p, 1)[0];
    for (; i + kLanes <= n; i += kLanes) storeu(dst + i, splat(value));
    for (; i < n; ++i) dst[i] = value;
    return;
  }
  for (; i < n; i += kLanes) {
    const int64_t lanes = n - i < kLanes ? n - i : kLanes;
    T gathered[kLanes] = {};
    for (int64_t j = 0; j < lanes; ++j) gathered[j] = p[(i + j) * stride];
    float values[kLanes];
    storeu(values, load<kStorage>(gathered));
    for (int64_t j = 0; j < lanes; ++j) dst[i + j] = values[j];
  }
}

template <int kStorage>
void load_tile(float* dst, const void* from, const TileRows& shape) {
  typedef typename StorageOf<kStorage>::Type T;
  const char* row = static_cast<const char*>(from);
  if (shape.rows > 1 && shape.stride == 1 && shape.n % kLanes == 0) {
    // Short rows (the heads of rope): nothing to decide in each.
    for (int64_t r = 0; r < shape.rows; ++r, row += shape.row_bytes)
      for (int64_t i = 0; i < shape.n; i += kLanes, dst += kLanes)
        storeu(dst, load<kStorage>(reinterpret_cast<const T*>(row) + i));
    return;
  }
  for (int64_t r = 0; r < shape.rows; ++r, row += shape.row_bytes, dst += shape.n)
    load_row<kStorage>(dst, reinterpret_cast<const T*>(row), shape.stride, shape.n);
}

template <int kStorage>
inline void store_row(typename StorageOf<kStorage>::Type* p, int64_t stride, const float* a,
                      int64_t n) {
  typedef typename StorageOf<kStorage>::Type T;
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t lanes = n - i < kLanes ? n - i : kLanes;
    const F value = loadu(a + i);
    if (stride == 1 && lanes == kLanes) {
      store<kStorage>(p + i, value);
      continue;
    }
    T scattered[kLanes];
    store<kStorage>(scattered, value);
    for (int64_t j = 0; j < lanes; ++j) p[(i + j) * stride] = scattered[j];
  }
}

template <int kStorage>
void store_tile(void* to, const float* a, const TileRows& shape) {
  typedef typename StorageOf<kStorage>::Type T;
  char* row = static_cast<char*>(to);
  if (shape.rows > 1 && shape.stride == 1 && shape.n % kLanes == 0) {
    for (int64_t r = 0; r < shape.rows; ++r, row += shape.row_bytes)
      for (int64_t i = 0; i < shape.n; i += kLanes, a += kLanes)
        store<kStorage>(reinterpret_cast<T*>(row) + i, loadu(a));
    return;
  }
  for (int64_t r = 0; r < shape.rows; ++r, row += shape.row_bytes, a += shape.n)
    store_row<kStorage>(reinterpret_cast<T*>(row), shape.stride, a, shape.n);
}

double sum_tile(const float* a, int64_t n) {
  F total[2] = {};
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    total[0] += loadu(a + i);
    total[1] += loadu(a + i + kLanes);
  }
  double result = static_cast<double>(sum_lanes(total[0] + total[1]));
  for (; i < n; ++i) result += static_cast<double>(a[i]);
  return result;
}
template <bool kLargest>
float extreme_tile(const float* a, int64_t n) {
  constexpr float kInf = __builtin_inff();
  F best = splat(kLargest ? -kInf : kInf);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    best = kLargest ? maximum(best, loadu(a + i)) : minimum(best, loadu(a + i));
  if (i < n) {
    const F rest = load_part<kStoreF32>(a + i, n - i, kLargest ? -kInf : kInf);
    best = kLargest ? maximum(best, rest) : minimum(best, rest);
  }
  return kLargest ? max_lanes(best) : -max_lanes(-best);
}
void add_to_tile(double* total, const float* a, int64_t n) {
  for (int64_t i = 0; i < n; ++i) total[i] += static_cast<double>(a[i]);
}

}  // namespace

const TileTable tile_table = {
    .function = {nullptr,
                 nullptr,
                 nullptr,
                 unary_tile<kCopy>,
                 unary_tile<kNeg>,
                 unary_tile<kAbs>,
                 unary_tile<kExp>,
                 unary_tile<kLog>,
                 unary_tile<kSqrt>,
                 unary_tile<kRsqrt>,
                 unary_tile<kReciprocal>,
                 unary_tile<kTanh>,
                 unary_tile<kErf>,
                 unary_tile<kSigmoid>,
                 unary_tile<kSilu>,
                 unary_tile<kGelu>,
                 unary_tile<kGeluTanh>,
                 unary_tile<kRelu>,
                 unary_tile<kSquare>,
                 sin_tile<0>,
                 sin_tile<1>,
                 unary_tile<kFloor>,
                 unary_tile<kNot>,
                 binary_tile<kAdd>,
                 binary_tile<kSub>,
                 binary_tile<kMul>,
                 binary_tile<kDiv>,
                 pow_tile,
                 binary_tile<kMin>,
                 binary_tile<kMax>,
                 binary_tile<kEq>,
                 binary_tile<kNe>,
                 binary_tile<kLt>,
                 binary_tile<kLe>,
                 binary_tile<kGt>,
                 binary_tile<kGe>,
                 binary_tile<kAnd>,
                 binary_tile<kOr>,
                 where_tile},
    .round = {nullptr, round_tile<kStoreBF16>, round_tile<kStoreF16>, nullptr, nullptr, nullptr,
              nullptr, nullptr, nullptr, round_tile<kStoreBool>},
    .load = {load_tile<kStoreF32>, load_tile<kStoreBF16>, load_tile<kStoreF16>, nullptr, nullptr,
             nullptr, nullptr, nullptr, nullptr, load_tile<kStoreBool>},
    .store = {store_tile<kStoreF32>, store_tile<kStoreBF16>, store_tile<kStoreF16>, nullptr,
              nullptr, nullptr, nullptr, nullptr, nullptr, store_tile<kStoreBool>},
    .sum = sum_tile,
    .max = extreme_tile<true>,
    .min = extreme_tile<false>,
    .add_to = add_to_tile,
};

}  // namespace shardwright::kernels::SHARDWRIGHT_ISA_NAMESPACE
