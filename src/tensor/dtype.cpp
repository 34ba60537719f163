// Element types: names, promotion, and f16 conversion.
#include "tensor/dtype.h"

#include <array>
#include <utility>

namespace shardwright {
namespace {

constexpr std::array<std::string_view, kDTypeCount> kNames = {"f32", "bf16", "f16", "f64", "i64",
                                                              "i32", "i16",  "i8",  "u8",  "bool"};
constexpr std::array<std::pair<std::string_view, DType>, 16> kOtherNames = {
    {{"float32", DType::kF32},
     {"float", DType::kF32},
     {"bfloat16", DType::kBF16},
     {"float16", DType::kF16},
     {"half", DType::kF16},
     {"float64", DType::kF64},
     {"double", DType::kF64},
     {"int64", DType::kI64},
     {"long", DType::kI64},
     {"int32", DType::kI32},
     {"int", DType::kI32},
     {"int16", DType::kI16},
     {"int8", DType::kI8},
     {"uint8", DType::kU8},
     {"boolean", DType::kBool},
     {"bool_", DType::kBool}}};

// Place in PyTorch's promotion order within integers.
int integer_order(DType dtype) {
  switch (dtype) {
    case DType::kBool:
      return 0;
    case DType::kU8:
      return 1;
    case DType::kI8:
      return 2;
    case DType::kI16:
      return 3;
    case DType::kI32:
      return 4;
    default:
      return 5;
  }
}

}  // namespace

std::string_view dtype_name(DType dtype) { return kNames[static_cast<size_t>(dtype)]; }

std::optional<DType> parse_dtype(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i)
    if (kNames[i] == name) return static_cast<DType>(i);
  for (const auto& [other, dtype] : kOtherNames)
    if (other == name) return dtype;
  return std::nullopt;
}

DType promote(DType a, DType b) {
  if (a == b) return a;
  if (is_floating(a) != is_floating(b)) return is_floating(a) ? a : b;
  if (is_floating(a)) {
    if (a == DType::kF64 || b == DType::kF64) return DType::kF64;
    return DType::kF32;  // f32 with a 16-bit type, and bf16 with f16
  }
  if ((a == DType::kU8 && b == DType::kI8) || (a == DType::kI8 && b == DType::kU8))
    return DType::kI16;
  return integer_order(a) > integer_order(b) ? a : b;
}

float f16_to_f32(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000U) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1fU;
  const uint32_t mantissa = bits & 0x3ffU;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
  }
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000U | (mantissa << 13));
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

uint16_t f32_to_f16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000U);
  const uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude > 0x7f800000U) return static_cast<uint16_t>(sign | 0x7e00U);
  if (magnitude >= 0x477ff000U) return static_cast<uint16_t>(sign | 0x7c00U);  // 65520 and above
  if (magnitude < 0x38800000U) {  // below the smallest normal f16: let f32 addition round at 2^-24
    const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
    return static_cast<uint16_t>(
        sign | (std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(0.5F)));
  }
  const uint32_t rounded = magnitude + 0xfffU + ((magnitude >> 13) & 1U);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000U) >> 13));
}

}  // namespace shardwright
