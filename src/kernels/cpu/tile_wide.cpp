// Tile operations on double registers: f64 and integers. Plain and slow: they are rare.
#include <cmath>
#include <limits>

#include "kernels/cpu/tile_plan.h"

namespace shardwright::kernels {
namespace {
template <typename T>
double load_as(const void* from) {
  T value;
  __builtin_memcpy(&value, from, sizeof(value));
  return static_cast<double>(value);
}
template <typename T>
void store_as(void* to, T value) {
  __builtin_memcpy(to, &value, sizeof(value));
}
}  // namespace

double apply_wide(TileCode code, double x, double y) {
  switch (code) {
    case TileCode::kNeg:
      return -x;
    case TileCode::kAbs:
      return std::fabs(x);
    case TileCode::kExp:
      return std::exp(x);
    case TileCode::kLog:
      return std::log(x);
    case TileCode::kSqrt:
      return std::sqrt(x);
    case TileCode::kRsqrt:
      return 1.0 / std::sqrt(x);
    case TileCode::kReciprocal:
      return 1.0 / x;
    case TileCode::kTanh:
      return std::tanh(x);
    case TileCode::kErf:
      return std::erf(x);
    case TileCode::kSigmoid:
      return 1.0 / (1.0 + std::exp(-x));
    case TileCode::kSilu:
      return x / (1.0 + std::exp(-x));
    case TileCode::kGelu:
      return 0.5 * x * (1.0 + std::erf(x * 0.70710678118654752));
    case TileCode::kGeluTanh:
      return 0.5 * x * (1.0 + std::tanh(0.79788456080286536 * (x + 0.044715 * x * x * x)));
    case TileCode::kRelu:
      return x <= 0.0 ? 0.0 : x;
    case TileCode::kSquare:
      return x * x;
    case TileCode::kSin:
      return std::sin(x);
    case TileCode::kCos:
      return std::cos(x);
    case TileCode::kFloor:
      return std::floor(x);
    case TileCode::kAdd:
      return x + y;
    case TileCode::kSub:
      return x - y;
    case TileCode::kMul:
      return x * y;
    case TileCode::kDiv:
      return x / y;
    case TileCode::kPow:
      return std::pow(x, y);
    case TileCode::kMin:
      return x != x || x < y ? x : y;
    case TileCode::kMax:
      return x != x || x > y ? x : y;
    default:
      return x;
  }
}

bool compare_wide(TileCode code, double x, double y) {
  switch (code) {
    case TileCode::kEq:
      return x == y;
    case TileCode::kNe:
      return x != y;
    case TileCode::kLt:
      return x < y;
    case TileCode::kLe:
      return x <= y;
    case TileCode::kGt:
      return x > y;
    default:
      return x >= y;
  }
}

double round_wide(double value, DType dtype) {
  const auto whole = [&] {
    constexpr double kLimit = 0x1p63;
    if (value != value) return std::numeric_limits<int64_t>::min();
    if (value >= kLimit) return std::numeric_limits<int64_t>::max();
    return value < -kLimit ? std::numeric_limits<int64_t>::min() : static_cast<int64_t>(value);
  };
  switch (dtype) {
    case DType::kF32:
      return static_cast<float>(value);
    case DType::kBF16:
      return bf16_to_f32(f32_to_bf16(static_cast<float>(value)));
    case DType::kF16:
      return f16_to_f32(f32_to_f16(static_cast<float>(value)));
    case DType::kF64:
      return value;
    case DType::kI64:
      return static_cast<double>(whole());
    case DType::kI32:
      return static_cast<int32_t>(whole());
    case DType::kI16:
      return static_cast<int16_t>(whole());
    case DType::kI8:
      return static_cast<int8_t>(whole());
    case DType::kU8:
      return static_cast<uint8_t>(whole());
    case DType::kBool:
      return value != 0.0 ? 1.0 : 0.0;
  }
  return value;
}

double load_wide(const void* from, DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return load_as<float>(from);
    case DType::kBF16:
      return bf16_to_f32(static_cast<uint16_t>(load_as<uint16_t>(from)));
    case DType::kF16:
      return f16_to_f32(static_cast<uint16_t>(load_as<uint16_t>(from)));
    case DType::kF64:
      return load_as<double>(from);
    case DType::kI64:
      return load_as<int64_t>(from);
    case DType::kI32:
      return load_as<int32_t>(from);
    case DType::kI16:
      return load_as<int16_t>(from);
    case DType::kI8:
      return load_as<int8_t>(from);
    default:
      return load_as<uint8_t>(from);
  }
}

void store_wide(void* to, DType dtype, double value) {
  const double fits = round_wide(value, dtype);
  switch (dtype) {
    case DType::kF32:
      return store_as(to, static_cast<float>(fits));
    case DType::kBF16:
      return store_as(to, f32_to_bf16(static_cast<float>(fits)));
    case DType::kF16:
      return store_as(to, f32_to_f16(static_cast<float>(fits)));
    case DType::kF64:
      return store_as(to, fits);
    case DType::kI64:  // 2^63 is not an int64
      return store_as(
          to, fits >= 0x1p63 ? std::numeric_limits<int64_t>::max() : static_cast<int64_t>(fits));
    case DType::kI32:
      return store_as(to, static_cast<int32_t>(fits));
    case DType::kI16:
      return store_as(to, static_cast<int16_t>(fits));
    case DType::kI8:
      return store_as(to, static_cast<int8_t>(fits));
    default:
      return store_as(to, static_cast<uint8_t>(fits));
  }
}

}  // namespace shardwright::kernels
