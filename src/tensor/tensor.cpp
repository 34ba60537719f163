// Allocation of SharedBytes, and single elements of any dtype as double.
#include "tensor/tensor.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>

#include "base/check.h"
#include "base/checked.h"

namespace shardwright {

namespace {

template <typename T>
T read(const std::byte* address) {
  T value;
  std::memcpy(&value, address, sizeof(T));
  return value;
}

template <typename T>
void write(std::byte* address, T value) {
  std::memcpy(address, &value, sizeof(T));
}

// Truncates, as a cast in PyTorch does; NaN becomes 0 and what is out of range the nearest end.
int64_t to_integer(double value) {
  constexpr double kLimit = 9223372036854775808.0;  // 2^63
  if (std::isnan(value)) return 0;
  if (value >= kLimit) return std::numeric_limits<int64_t>::max();
  if (value < -kLimit) return std::numeric_limits<int64_t>::min();
  return static_cast<int64_t>(value);
}

}  // namespace

SharedBytes SharedBytes::allocate(int64_t bytes, std::byte** writable) {
  constexpr int64_t kAlignment = 64;  // a cache line
  CHECK(bytes >= 0);
  const auto size = static_cast<size_t>(round_up(std::max<int64_t>(bytes, 1), kAlignment));
  void* memory = std::aligned_alloc(kAlignment, size);
  if (memory == nullptr) throw std::bad_alloc();
  std::memset(memory, 0, size);
  *writable = static_cast<std::byte*>(memory);
  return {
      std::shared_ptr<const void>(memory, [](const void* p) { std::free(const_cast<void*>(p)); }),
      *writable, bytes};
}

double load_element(DType dtype, const std::byte* address) {
  switch (dtype) {
    case DType::kF32:
      return read<float>(address);
    case DType::kBF16:
      return bf16_to_f32(read<uint16_t>(address));
    case DType::kF16:
      return f16_to_f32(read<uint16_t>(address));
    case DType::kF64:
      return read<double>(address);
    case DType::kI64:
      return static_cast<double>(read<int64_t>(address));
    case DType::kI32:
      return read<int32_t>(address);
    case DType::kI16:
      return read<int16_t>(address);
    case DType::kI8:
      return read<int8_t>(address);
    case DType::kU8:
      return read<uint8_t>(address);
    case DType::kBool:
      return read<uint8_t>(address) != 0 ? 1 : 0;
  }
  CHECK(false, "unknown dtype");
  return 0;
}

void store_element(DType dtype, std::byte* address, double value) {
  switch (dtype) {
    case DType::kF32:
      return write(address, static_cast<float>(value));
    case DType::kBF16:
      return write(address, f32_to_bf16(static_cast<float>(value)));
    case DType::kF16:
      return write(address, f32_to_f16(static_cast<float>(value)));
    case DType::kF64:
      return write(address, value);
    case DType::kI64:
      return write(address, to_integer(value));
    case DType::kI32:
      return write(address, static_cast<int32_t>(to_integer(value)));
    case DType::kI16:
      return write(address, static_cast<int16_t>(to_integer(value)));
    case DType::kI8:
      return write(address, static_cast<int8_t>(to_integer(value)));
    case DType::kU8:
      return write(address, static_cast<uint8_t>(to_integer(value)));
    case DType::kBool:
      return write(address, static_cast<uint8_t>(value != 0 ? 1 : 0));
  }
  CHECK(false, "unknown dtype");
}

double round_to(DType dtype, double value) {
  std::byte bytes[8];
  store_element(dtype, bytes, value);
  return load_element(dtype, bytes);
}

}  // namespace shardwright
