// exp, log, tanh, erf, sin and cos of a register of floats, at most 2 ulp off; for *.isa.cpp only.
// The polynomials are minimax fits (weighted Chebyshev, relative error) on the stated intervals.
#pragma once

#include "kernels/cpu/vector.h"

namespace shardwright::kernels::SHARDWRIGHT_ISA_NAMESPACE {
namespace {

constexpr float kLog2E = 1.44269504F;
constexpr float kRoundMagic = 12582912.0F;  // 1.5 * 2^23: adding it rounds to a whole number
constexpr int32_t kRoundMagicBits = 0x4b400000;

inline F power_of_two(I n) { return (F)((n + 127) << 23); }  // -126 <= n <= 127

// 2^x for x <= 0 without denormal results: for softmax. 0 below -126; NaN stays.
inline F exp2_negative(F x) {
  x = x < -127.0F ? splat(-127.0F) : x;
  const F shifted = x + kRoundMagic;
  const F f = x - (shifted - kRoundMagic);  // [-0.5, 0.5]
  F p = 0.00134072581F + F{};               // (2^f - 1) / f
  p = p * f + 0.00967187528F;
  p = p * f + 0.0555030853F;
  p = p * f + 0.24022235F;
  p = p * f + 0.693147242F;
  p = p * f + 1.0F;
  return p * power_of_two((I)shifted - kRoundMagicBits);
}

inline F exp_of(F x) {
  x = x > 89.0F ? splat(89.0F) : x;  // comparisons with NaN are false: NaN stays
  x = x < -104.0F ? splat(-104.0F) : x;
  const F shifted = x * kLog2E + kRoundMagic;
  const F n = shifted - kRoundMagic;
  const F r =
      (x - n * 0.693359375F) + n * 2.12194440e-4F;  // ln 2 in two parts, n * the first exact
  F p = 0.000199183851F + F{};                      // (e^r - 1 - r) / r^2
  p = p * r + 0.00139460736F;
  p = p * r + 0.00833326392F;
  p = p * r + 0.0416662693F;
  p = p * r + 0.166666672F;
  p = p * r + 0.5F;
  p = (p * (r * r) + r) + 1.0F;
  // In two steps, so that results may be denormal or infinite.
  const I whole = (I)shifted - kRoundMagicBits;
  const I half = whole >> 1;
  return p * power_of_two(half) * power_of_two(whole - half);
}

inline F log_of(F x) {
  const I denormal = x < 0x1p-126F;
  const F scaled = denormal ? x * 0x1p23F : x;
  const U bits = (U)scaled - 0x3f3504f3U;  // sqrt(1/2)
  const I exponent = ((I)bits >> 23) - (denormal ? I{} + 23 : I{});
  const F m = (F)((bits & 0x7fffffU) + 0x3f3504f3U);  // [sqrt(1/2), sqrt(2))
  const F f = m - 1.0F;
  F p = 0.06746649F + F{};  // (log(1 + f) - f + f^2 / 2) / f^3
  p = p * f - 0.1167567F;
  p = p * f + 0.11888168F;
  p = p * f - 0.124055862F;
  p = p * f + 0.142195508F;
  p = p * f - 0.166679963F;
  p = p * f + 0.200021192F;
  p = p * f - 0.250000089F;
  p = p * f + 0.333333135F;
  const F e = __builtin_convertvector(exponent, F);
  const F square = f * f;
  F tail = p * (f * square) - e * 2.12194440e-4F;
  tail = tail - 0.5F * square;
  F result = (f + tail) + e * 0.693359375F;
  result = x > 0.0F ? result : splat(__builtin_nanf(""));
  result = x == 0.0F ? splat(-__builtin_inff()) : result;
  return (x == __builtin_inff()) | (x != x) ? x : result;
}

inline F tanh_of(F x) {
  const F magnitude = abs_of(x);
  const F s = x * x;
  F p = 0.00214296207F + F{};  // (tanh(x) / x - 1) / x^2 below 0.625
  p = p * s - 0.0081773987F;
  p = p * s + 0.0217007026F;
  p = p * s - 0.0539467633F;
  p = p * s + 0.133332059F;
  p = p * s - 0.333333313F;
  const F small = x + x * (s * p);
  const F large = 1.0F - 2.0F / (exp_of(magnitude + magnitude) + 1.0F);
  return magnitude < 0.625F ? small : with_sign_of(large, x);
}

inline F erf_of(F x) {
  const F s = x * x;
  F p = 8.26749383e-05F + F{};  // erf(x) / x - 1 below 0.9375
  p = p * s - 0.000811808452F;
  p = p * s + 0.00519883074F;
  p = p * s - 0.0268584974F;
  p = p * s + 0.112836793F;
  p = p * s - 0.376126319F;
  p = p * s + 0.128379166F;
  const F small = x + x * p;
  F t = abs_of(x);
  t = t > 4.0F ? splat(4.0F) : t;  // erf(4) is 1 in f32
  F q = 1.07632204e-05F + F{};     // -log(erfc(t)) / t - 1 between 0.9 and 4
  q = q * t - 0.000318060134F;
  q = q * t + 0.00362292049F;
  q = q * t - 0.0237201899F;
  q = q * t + 0.106187612F;
  q = q * t + 0.635181487F;
  q = q * t + 0.128640965F;
  const F large = 1.0F - exp_of(-(t + t * q));
  return abs_of(x) < 0.9375F ? small : with_sign_of(large, x);
}

// x = quarters * pi/2 + r with |r| <= pi/4. In double: 33 + 53 bits of pi/2, right for |x| < 2^20.
constexpr float kSinLimit = 0x1p20F;
inline void reduce_quarters(F x, F& r, I& quarters) {
  constexpr double kMagic = 6755399441055744.0;  // 1.5 * 2^52
  HalfF halves[2];
  __builtin_memcpy(halves, &x, sizeof(x));
  HalfF rests[2];
  HalfF counts[2];
  for (int i = 0; i < 2; ++i) {
    const D wide = __builtin_convertvector(halves[i], D);
    const D n = (wide * 0.63661977236758134 + kMagic) - kMagic;
    const D rest = (wide - n * 1.57079632673412561417) - n * 6.07710050650619224932e-11;
    rests[i] = __builtin_convertvector(rest, HalfF);
    counts[i] = __builtin_convertvector(n, HalfF);
  }
  F n;
  __builtin_memcpy(&r, rests, sizeof(r));
  __builtin_memcpy(&n, counts, sizeof(n));
  quarters = __builtin_convertvector(n, I);
}
// sin(x + shift * pi/2), |x| < kSinLimit.
inline F sin_of(F x, int32_t shift) {
  F r;
  I quarters;
  reduce_quarters(x, r, quarters);
  quarters += shift;
  const F s = r * r;
  F sine = 2.71811427e-06F + F{};
  sine = sine * s - 0.000198393114F;
  sine = sine * s + 0.00833332911F;
  sine = sine * s - 0.166666672F;
  sine = r + r * (s * sine);
  F cosine = -2.72101687e-07F + F{};
  cosine = cosine * s + 2.47995195e-05F;
  cosine = cosine * s - 0.00138888834F;
  cosine = cosine * s + 0.0416666679F;
  cosine = (1.0F - 0.5F * s) + (s * s) * cosine;
  const F value = (quarters & 1) != 0 ? cosine : sine;
  return (F)((U)value ^ ((U)(quarters & 2) << 30));
}

inline F sigmoid_of(F x) { return 1.0F / (1.0F + exp_of(-x)); }
inline F silu_of(F x) { return x / (1.0F + exp_of(-x)); }
inline F gelu_of(F x) { return x * 0.5F * (1.0F + erf_of(x * 0.707106781F)); }
inline F gelu_tanh_of(F x) {
  const F inner = 0.797884561F * (x + 0.044715F * (x * x * x));
  return 0.5F * x * (1.0F + tanh_of(inner));
}

}  // namespace
}  // namespace shardwright::kernels::SHARDWRIGHT_ISA_NAMESPACE
