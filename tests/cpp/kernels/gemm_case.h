// Gemm in tests: buffers of any dtype, one case against a plain loop, every instruction set.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "base/checked.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/isa.h"

namespace shardwright::kernels {

inline constexpr DType kDtypes[] = {DType::kF32, DType::kBF16, DType::kF16};
inline constexpr int64_t kGapBehindY = 5;  // elements, NaN

// A buffer of one of the three dtypes or i8, 64-byte aligned, read and written as floats.
class Buffer {
 public:
  Buffer(DType dtype, int64_t count)
      : dtype_(dtype), lines_(static_cast<size_t>(ceil_div(count * dtype_bytes(dtype), 64))) {}
  void* data() { return lines_.data(); }
  DType dtype() const { return dtype_; }
  float get(int64_t i) {
    if (dtype_ == DType::kF32) return static_cast<float*>(data())[i];
    if (dtype_ == DType::kI8) return static_cast<int8_t*>(data())[i];
    const uint16_t bits = static_cast<uint16_t*>(data())[i];
    return dtype_ == DType::kBF16 ? bf16_to_f32(bits) : f16_to_f32(bits);
  }
  std::vector<double> values() {
    std::vector<double> all;
    const int64_t count = std::ssize(lines_) * 64 / dtype_bytes(dtype_);
    for (int64_t i = 0; i < count; ++i) all.push_back(get(i));
    return all;
  }
  void set(int64_t i, float value) {
    if (dtype_ == DType::kF32)
      static_cast<float*>(data())[i] = value;
    else if (dtype_ == DType::kI8)
      static_cast<int8_t*>(data())[i] = static_cast<int8_t>(value);
    else
      static_cast<uint16_t*>(data())[i] =
          dtype_ == DType::kBF16 ? f32_to_bf16(value) : f32_to_f16(value);
  }

 private:
  DType dtype_;
  struct alignas(64) Line {
    char bytes[64] = {};
  };
  std::vector<Line> lines_;
};

// Fills [rows, columns] of a buffer with rows `stride` apart; what lies between is NaN, so that a
// kernel that reads it is found out.
template <typename Draw>
Buffer matrix(DType dtype, int64_t rows, int64_t columns, int64_t stride, Draw draw) {
  Buffer buffer(dtype, rows * stride);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < stride; ++c)
      buffer.set(r * stride + c, c < columns ? draw() : std::nanf(""));
  return buffer;
}

struct Case {
  int64_t m;
  int64_t n;
  int64_t k;
  DType x = DType::kF32;
  DType w = DType::kF32;
  DType y = DType::kF32;
  bool bias = false;
  bool residual = false;
  bool accumulate = false;
  Activation activation = Activation::kNone;

  std::string text() const {
    std::string s =
        "m=" + std::to_string(m) + " n=" + std::to_string(n) + " k=" + std::to_string(k);
    for (const DType d : {x, w, y}) s += " " + std::string(dtype_name(d));
    return s + (bias ? " bias" : "") + (residual ? " residual" : "") +
           (accumulate ? " accumulate" : "") + " activation " +
           std::to_string(static_cast<int>(activation)) + " " + std::string(isa_name(active_isa()));
  }
};

inline double activate(double v, Activation activation) {
  switch (activation) {
    case Activation::kRelu:
      return v > 0 ? v : 0;
    case Activation::kGelu:
      return 0.5 * v * (1 + std::erf(v / std::sqrt(2.0)));
    case Activation::kGeluTanh:
      return 0.5 * v * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)));
    case Activation::kSilu:
      return v / (1 + std::exp(-v));
    default:
      return v;
  }
}

inline double rounding_of(DType dtype) {
  return dtype == DType::kF32 ? 0 : dtype == DType::kBF16 ? 4e-3 : 5e-4;
}

// Of the columns of an int8 weight; of any other, 1.
inline std::vector<float> scale_of(const Case& c) {
  std::vector<float> scale(static_cast<size_t>(c.n), 1.0F);
  for (size_t i = 1; i < scale.size() && c.w == DType::kI8; i += 3) scale[i] = 0.5F;
  return scale;
}

inline void expect_nan_behind_rows(Buffer& y, const Case& c) {
  const int64_t stride = c.n + kGapBehindY;
  for (int64_t i = 0; i < c.m; ++i)
    for (int64_t j = c.n; j < stride; ++j)
      ASSERT_TRUE(std::isnan(y.get(i * stride + j))) << c.text() << " wrote beyond a row";
}

// Runs one case; `relative` is the tolerance against sums of magnitudes, 0 = exact.
template <typename Draw>
void check_case(Team& team, const Case& c, double relative, Draw draw) {
  const int64_t x_stride = c.k + 3;
  const int64_t y_stride = c.n + kGapBehindY;
  Buffer x = matrix(c.x, c.m, c.k, x_stride, draw);
  Buffer w = matrix(c.w, c.n, c.k, c.k, draw);
  const DType bias_dtype = c.w == DType::kI8 ? DType::kF32 : c.w;
  Buffer bias = matrix(bias_dtype, 1, c.n, c.n, draw);
  const std::vector<float> scale = scale_of(c);
  Buffer residual = matrix(c.y, c.m, c.n, y_stride, draw);
  Buffer y = matrix(c.y, c.m, c.n, y_stride, draw);
  Buffer y_before = y;
  const DType panels_dtype = panel_dtype(c.w);
  Buffer panels(DType::kF32, panel_bytes(panels_dtype, c.n, c.k) / 4);
  GemmArgs args{.m = c.m,
                .n = c.n,
                .k = c.k,
                .x = x.data(),
                .x_dtype = c.x,
                .x_row_stride = x_stride,
                .panels = panels.data(),
                .panels_dtype = panels_dtype,
                .scale = c.w == DType::kI8 ? scale.data() : nullptr,
                .y = y.data(),
                .y_dtype = c.y,
                .y_row_stride = y_stride,
                .bias = c.bias ? bias.data() : nullptr,
                .bias_dtype = bias_dtype,
                .residual = c.residual ? residual.data() : nullptr,
                .residual_row_stride = y_stride,
                .activation = c.activation,
                .accumulate = c.accumulate};
  Buffer scratch(DType::kF32, gemm_scratch_bytes(args, team.n_threads()) / 4);
  args.scratch = scratch.data();
  team.run([&](Member& member) {
    pack_panels(member, {.n = c.n,
                         .k = c.k,
                         .w = w.data(),
                         .w_dtype = c.w,
                         .stride_n = c.k,
                         .stride_k = 1,
                         .panels = panels.data(),
                         .panels_dtype = panels_dtype});
    member.barrier();
    gemm(member, args);
  });
  const double y_rounding = relative == 0 ? 0 : rounding_of(c.y);
  const std::vector<double> x_values = x.values();
  const std::vector<double> w_values = w.values();
  for (int64_t i = 0; i < c.m; ++i)
    for (int64_t j = 0; j < c.n; ++j) {
      double sum = 0;
      double magnitude = 1;
      for (int64_t l = 0; l < c.k; ++l) {
        const double product = x_values[i * x_stride + l] * w_values[j * c.k + l];
        sum += product;
        magnitude += std::abs(product);
      }
      sum *= scale[static_cast<size_t>(j)];
      double want = activate(sum + (c.bias ? bias.get(j) : 0), c.activation);
      if (c.residual) want += residual.get(i * y_stride + j);
      if (c.accumulate) want += y_before.get(i * y_stride + j);
      const double got = y.get(i * y_stride + j);
      const double tolerance = relative * magnitude + y_rounding * std::abs(want);
      ASSERT_LE(std::abs(got - want), tolerance)
          << c.text() << " threads " << team.n_threads() << " at " << i << ", " << j << ": " << got
          << " instead of " << want;
    }
  expect_nan_behind_rows(y, c);
}

// All sums stay below 2^8 (bf16) in magnitude where k is small, 2^24 (f32) always.
inline auto small_integers(std::mt19937& random) {
  return [&random] { return static_cast<float>(static_cast<int>(random() % 3) - 1); };
}
inline auto normal(std::mt19937& random) {
  return [&random, d = std::normal_distribution<float>(0, 1)]() mutable { return d(random); };
}

// Runs f under every instruction set and, where it has both, with both ways to multiply bf16.
template <typename F>
void for_every_isa(F f) {
  for (const Isa isa : available_isas()) {
    force_isa(isa);
    force_bf16_body(Bf16Body::kWiden);
    f();
    if (isa == Isa::kAvx512Bf16) {
      force_bf16_body(Bf16Body::kDot);
      f();
    }
  }
  force_bf16_body(Bf16Body::kMeasured);
  force_isa(std::nullopt);
}

}  // namespace shardwright::kernels
