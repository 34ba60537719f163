// Element types. The numbers are stored in PEF files: never renumber.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <string_view>

namespace shardwright {

enum class DType : uint8_t {
  kF32 = 0,
  kBF16 = 1,
  kF16 = 2,
  kF64 = 3,
  kI64 = 4,
  kI32 = 5,
  kI16 = 6,
  kI8 = 7,
  kU8 = 8,
  kBool = 9
};
inline constexpr int kDTypeCount = 10;

constexpr int64_t dtype_bytes(DType dtype) {
  constexpr int64_t kBytes[] = {4, 2, 2, 8, 8, 4, 2, 1, 1, 1};
  return kBytes[static_cast<int>(dtype)];
}
constexpr bool is_floating(DType dtype) { return static_cast<int>(dtype) <= 3; }
constexpr bool is_integer(DType dtype) {
  return static_cast<int>(dtype) >= 4 && dtype != DType::kBool;
}

// "f32", "bf16", "f16", "f64", "i64", "i32", "i16", "i8", "u8", "bool".
std::string_view dtype_name(DType dtype);
// The inverse of dtype_name; also PyTorch's and NumPy's names ("float32", "bfloat16", ...).
std::optional<DType> parse_dtype(std::string_view name);
// What PyTorch's result_type gives for two tensors of at least one dimension.
DType promote(DType a, DType b);

// 16-bit storage. Conversions to 16 bits round to nearest even; NaN stays NaN.
inline float bf16_to_f32(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}
inline uint16_t f32_to_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<uint16_t>((bits >> 16) | 0x40U);
  return static_cast<uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}
float f16_to_f32(uint16_t bits);
uint16_t f32_to_f16(float value);

}  // namespace shardwright
