// Attention against the multiply-add peak of this machine, measured in the same rounds.
// attention_bench [threads]
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "base/team.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/isa.h"

namespace shardwright::kernels {
namespace {

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

typedef float Float16 __attribute__((vector_size(64)));
typedef float Float8 __attribute__((vector_size(32)));
typedef float Float4 __attribute__((vector_size(16)));

// f32 multiply-adds in registers; 12 sums hide the latency. Returns how many flops it did.
template <typename V>
[[gnu::always_inline]] inline double multiply_adds(int64_t rounds) {
  V sums[12] = {};
  V x = V{} + 1.0F;
  for (V& sum : sums) asm volatile("" : "+v"(sum));  // or they would all be one
  for (int64_t i = 0; i < rounds; ++i) {
    asm volatile("" : "+v"(x));
#pragma GCC unroll 12
    for (int k = 0; k < 12; ++k) sums[k] = sums[k] * x + x;
  }
  V total = {};
  for (const V& sum : sums) total += sum;
  volatile float keep = total[0];
  (void)keep;
  return 12.0 * 2.0 * (sizeof(V) / sizeof(float)) * static_cast<double>(rounds);
}
[[gnu::target("avx512f")]] double multiply_adds_512(int64_t n) { return multiply_adds<Float16>(n); }
[[gnu::target("avx2,fma")]] double multiply_adds_256(int64_t n) { return multiply_adds<Float8>(n); }
double multiply_adds_128(int64_t n) { return multiply_adds<Float4>(n); }

// GF/s of the whole team.
double peak(Team& team) {
  constexpr int64_t kRounds = 200000;
  const auto function = active_isa() >= Isa::kAvx512 ? multiply_adds_512
                        : active_isa() == Isa::kAvx2 ? multiply_adds_256
                                                     : multiply_adds_128;
  double best = 1e9;
  for (int i = 0; i < 10; ++i) {
    const double start = now_seconds();
    team.run([&](Member&) { function(kRounds); });
    best = std::min(best, now_seconds() - start);
  }
  return team.n_threads() * function(1) * kRounds / best * 1e-9;
}

struct Shape {
  int64_t q_heads, kv_heads, rows, keys, size;
};

// Best seconds of one call.
double time_attention(Team& team, const Shape& s, DType dtype, bool causal) {
  const int64_t bytes = dtype_bytes(dtype);
  const auto buffer = [&](int64_t count) {
    std::vector<char> data(static_cast<size_t>(count * bytes + 64));
    std::mt19937 random(1);
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (int64_t i = 0; i < count; ++i) {
      const float x = uniform(random);
      if (dtype == DType::kF32)
        reinterpret_cast<float*>(data.data())[i] = x;
      else
        reinterpret_cast<uint16_t*>(data.data())[i] = f32_to_bf16(x);
    }
    return data;
  };
  const auto tensor = [&](const std::vector<char>& data, int64_t heads) {
    return AttentionTensor{data.data(), 0, s.size, heads * s.size};  // [S, H, D]
  };
  const std::vector<char> q = buffer(s.q_heads * s.rows * s.size);
  const std::vector<char> k = buffer(s.kv_heads * s.keys * s.size);
  const std::vector<char> v = buffer(s.kv_heads * s.keys * s.size);
  const std::vector<char> out = buffer(s.q_heads * s.rows * s.size);
  AttentionArgs args;
  args.dtype = dtype;
  args.q_heads = s.q_heads;
  args.kv_heads = s.kv_heads;
  args.q_rows = s.rows;
  args.keys = s.keys;
  args.qk_size = args.v_size = s.size;
  args.q = tensor(q, s.q_heads);
  args.k = tensor(k, s.kv_heads);
  args.v = tensor(v, s.kv_heads);
  args.out = tensor(out, s.q_heads);
  args.scale = 0.125F;
  args.causal = causal;
  args.query_begin = s.keys - s.rows;
  args.queries_per_kv = s.q_heads / s.kv_heads;
  const int64_t scratch = attention_scratch_bytes(args, team.n_threads());
  args.scratch = std::aligned_alloc(64, static_cast<size_t>(scratch));
  double best = 1e9;
  const double start = now_seconds();
  while (now_seconds() - start < 0.15) {
    const double before = now_seconds();
    team.run([&](Member& member) { attention(member, args); });
    best = std::min(best, now_seconds() - before);
  }
  std::free(args.scratch);
  return best;
}

void compare(int n_threads) {
  Team team(n_threads);
  fmt::print("isa {}, {} threads; causal flops counted half\n", isa_name(active_isa()), n_threads);
  fmt::print("{:>5} {:>8} {:>6} {:>6} {:>6} {:>10} {:>8} {:>8}\n", "dtype", "heads", "rows", "keys",
             "size", "us", "GF/s", "of peak");
  const Shape shapes[] = {{9, 3, 128, 128, 64},   {9, 3, 256, 256, 64},  {9, 3, 512, 512, 64},
                          {9, 9, 512, 512, 64},   {32, 4, 512, 512, 64}, {32, 4, 2048, 2048, 64},
                          {12, 12, 512, 512, 80}, {9, 3, 1, 512, 64},    {32, 4, 1, 2048, 64}};
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const Shape& s : shapes) {
      const double limit = peak(team);
      const double seconds = time_attention(team, s, dtype, true);
      const double pairs =
          s.rows == 1 ? static_cast<double>(s.keys) : static_cast<double>(s.rows * s.keys) / 2;
      const double flops = 4.0 * static_cast<double>(s.q_heads * s.size) * pairs;
      const double rate = flops / seconds * 1e-9;
      fmt::print("{:>5} {:>8} {:>6} {:>6} {:>6} {:>10.1f} {:>8.1f} {:>8.2f}\n", dtype_name(dtype),
                 fmt::format("{}/{}", s.q_heads, s.kv_heads), s.rows, s.keys, s.size, seconds * 1e6,
                 rate, rate / limit);
    }
  }
}

}  // namespace
}  // namespace shardwright::kernels

int main(int argc, char** argv) {
  shardwright::kernels::compare(argc > 1 ? std::atoi(argv[1]) : 2);
}
