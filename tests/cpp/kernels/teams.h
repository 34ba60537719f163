// Tests of kernels: run a body for each instruction set of this machine and for 1, 2, 3 threads;
// tensors of any storage type, filled and read as doubles.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "base/team.h"
#include "kernels/cpu/isa.h"
#include "tensor/dtype.h"

namespace shardwright::kernels {

inline void for_each_isa(const std::function<void()>& body) {
  for (const Isa isa : available_isas()) {
    SCOPED_TRACE("isa " + std::string(isa_name(isa)));
    force_isa(isa);
    body();
  }
  force_isa(std::nullopt);
}

inline void for_each_team(const std::function<void(Team&)>& body) {
  for_each_isa([&] {
    for (int n = 1; n <= 3; ++n) {
      SCOPED_TRACE(std::to_string(n) + " threads");
      Team team(n);
      body(team);
    }
  });
}

inline double read_element(const void* p, DType dtype, int64_t i) {
  const auto at = [&]<typename T>(T value) {
    std::memcpy(&value, static_cast<const char*>(p) + i * static_cast<int64_t>(sizeof(T)),
                sizeof(T));
    return value;
  };
  switch (dtype) {
    case DType::kF32:
      return at(0.0F);
    case DType::kBF16:
      return bf16_to_f32(at(uint16_t{0}));
    case DType::kF16:
      return f16_to_f32(at(uint16_t{0}));
    case DType::kF64:
      return at(0.0);
    case DType::kI64:
      return static_cast<double>(at(int64_t{0}));
    case DType::kI32:
      return at(int32_t{0});
    case DType::kI16:
      return at(int16_t{0});
    case DType::kI8:
      return at(int8_t{0});
    default:
      return at(uint8_t{0});
  }
}

inline void write_element(void* p, DType dtype, int64_t i, double value) {
  const auto put = [&]<typename T>(T x) {
    std::memcpy(static_cast<char*>(p) + i * static_cast<int64_t>(sizeof(T)), &x, sizeof(T));
  };
  switch (dtype) {
    case DType::kF32:
      return put(static_cast<float>(value));
    case DType::kBF16:
      return put(f32_to_bf16(static_cast<float>(value)));
    case DType::kF16:
      return put(f32_to_f16(static_cast<float>(value)));
    case DType::kF64:
      return put(value);
    case DType::kI64:
      return put(static_cast<int64_t>(value));
    case DType::kI32:
      return put(static_cast<int32_t>(value));
    case DType::kI16:
      return put(static_cast<int16_t>(value));
    case DType::kI8:
      return put(static_cast<int8_t>(value));
    default:
      return put(static_cast<uint8_t>(value));
  }
}

// A flat piece of memory of one dtype. Exactly as long as asked: the sanitizer sees an overrun.
struct Elements {
  DType dtype = DType::kF32;
  std::vector<char> bytes;
  Elements(DType type, int64_t count)
      : dtype(type), bytes(static_cast<size_t>(count * dtype_bytes(type))) {}
  Elements(DType type, const std::vector<double>& values)
      : Elements(type, static_cast<int64_t>(values.size())) {
    for (size_t i = 0; i < values.size(); ++i) set(static_cast<int64_t>(i), values[i]);
  }
  int64_t count() const { return static_cast<int64_t>(bytes.size()) / dtype_bytes(dtype); }
  double get(int64_t i) const { return read_element(bytes.data(), dtype, i); }
  void set(int64_t i, double value) { write_element(bytes.data(), dtype, i, value); }
  char* data() { return bytes.data(); }
  const char* data() const { return bytes.data(); }
};

inline constexpr unsigned kSeed = 20240607;

inline Elements random_elements(DType dtype, int64_t count, std::mt19937& random, double low = -2,
                                double high = 2) {
  Elements elements(dtype, count);
  std::uniform_real_distribution<double> uniform(low, high);
  for (int64_t i = 0; i < count; ++i) elements.set(i, uniform(random));
  return elements;
}

// Whole numbers in [-limit, limit].
inline Elements random_integers(DType dtype, int64_t count, std::mt19937& random, int limit) {
  Elements elements(dtype, count);
  std::uniform_int_distribution<int> uniform(-limit, limit);
  for (int64_t i = 0; i < count; ++i) elements.set(i, uniform(random));
  return elements;
}

// Distance of a float from the exact value, in units of the last place of the exact value.
inline double ulps(float got, double exact) {
  if (std::isnan(exact)) return std::isnan(got) ? 0 : 1e9;
  const float rounded = static_cast<float>(exact);
  if (std::isinf(rounded)) return got == rounded ? 0 : 1e9;
  const double ulp =
      std::max(0x1p-149, std::ldexp(1.0, std::ilogb(exact == 0 ? 0x1p-149 : exact) - 23));
  return std::fabs(got - exact) / ulp;
}

}  // namespace shardwright::kernels
