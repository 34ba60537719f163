// Speed of gemm against limits of this machine that are measured in the same rounds: the peak of
// f32 FMA and of the bf16 dot instruction for large M, a plain read loop over cold weights for
// M = 1, 4 and 8; and whether what is wanted of a shape was reached.
// Usage: gemm_bench [threads [rounds [most_m [weights]]]]; most_m 8 leaves decode alone, weights
// (f32, bf16, i8) those of one type.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <optional>
#include <string_view>
#include <vector>

#include "base/checked.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/isa.h"
#include "limits.h"

namespace shardwright::kernels {
namespace {

constexpr int64_t kColdBytes = int64_t{256} << 20;  // of weights in turn: several times an L3 cache

constexpr int kLimitTries = 3;  // of each shape in each round: a limit too low flatters us

// One shape: weights in turn from a cold rotation, activations reused.
struct Case {
  DType x, w;
  int64_t m, n, k;
  double best_s = 1e9;  // of one gemm
  Limits limits = {};   // in the rounds of this case

  void measure(Team& team, Memory& cold, Memory& activations) {
    for (int i = 0; i < kLimitTries; ++i) limits.raise(measure_limits(team, cold));
    const int64_t bytes = round_up(panel_bytes(w, n, k), 4096);
    const int64_t copies = std::max<int64_t>(1, kColdBytes / bytes);
    // Whole rotations for small m, where the weights must be cold; else about 30 ms.
    const int64_t enough = ceil_div(3'000'000'000, m * n * k);
    const int64_t calls = m <= 16 ? copies : std::clamp<int64_t>(enough, 2, copies);
    char* x_data = activations.data();
    char* y = x_data + round_up(m * k * 4, 4096);
    char* scratch = y + round_up(m * n * 4, 4096);
    const std::vector<float> scale(static_cast<size_t>(n), 1.0F);
    std::vector<double> seconds(static_cast<size_t>(calls));
    team.run([&](Member& member) {
      for (int64_t i = 0; i < calls; ++i) {
        const double call_s = seconds_of([&] {
          gemm(member, {.m = m,
                        .n = n,
                        .k = k,
                        .x = x_data,
                        .x_dtype = x,
                        .x_row_stride = k,
                        .panels = cold.data() + i * bytes,
                        .panels_dtype = w,
                        .scale = w == DType::kI8 ? scale.data() : nullptr,
                        .y = y,
                        .y_dtype = x,
                        .y_row_stride = n,
                        .scratch = scratch});
          member.barrier();
        });
        if (member.thread() == 0) seconds[static_cast<size_t>(i)] = call_s;
      }
    });
    // Single calls show the best that the processor does beside other load; but only the mean of a
    // whole rotation shows the memory's speed, for caches keep part of it.
    const double total_s = std::accumulate(seconds.begin(), seconds.end(), 0.0);
    best_s = std::min(best_s, m <= 16 ? total_s / static_cast<double>(calls)
                                      : *std::min_element(seconds.begin(), seconds.end()));
  }

  // Least share of the limit: of the read loop for M = 1 and 4, of the peak for large M. Where K is
  // short, a block's sums are stored after too few products. 0: for orientation.
  double wanted() const {
    if (m == 1) return 0.88;
    if (m == 4) return 0.70;
    if (m < 128 || w == DType::kI8) return 0;
    const bool is_short = k < 1024;
    if (x == DType::kF32) return is_short ? 0.75 : 0.85;
    return is_short ? 0.70 : 0.80;
  }

  // Prints its line; whether it was reached, where something is wanted.
  std::optional<bool> print() const {
    const double gflops = 2e-9 * static_cast<double>(m * n * k) / best_s;
    const double gbytes = 1e-9 * static_cast<double>(panel_bytes(w, n, k)) / best_s;
    const double peak = x == DType::kF32 ? limits.f32_gflops : limits.bf16_gflops;
    const double of_peak = gflops / peak;
    const double of_read = gbytes / limits.read_gbytes;
    std::printf(
        "%-4s %-4s %4ld x %5ld x %4ld  %9.1f us  %6.1f GF/s (%.2f of peak)  %5.1f GB/s (%.2f of "
        "read)",
        dtype_name(x).data(), dtype_name(w).data(), m, n, k, best_s * 1e6, gflops, of_peak, gbytes,
        of_read);
    if (wanted() == 0) {
      std::printf("\n");
      return std::nullopt;
    }
    const bool reached = (m <= 4 ? of_read : of_peak) >= wanted();
    std::printf("  wanted %.2f: %s\n", wanted(), reached ? "reached" : "MISSED");
    return reached;
  }
};

void run(int n_threads, int rounds, int64_t most_m, std::string_view weights) {
  Team team(n_threads, allowed_cpus());
  Memory cold(kColdBytes);
  Memory activations(int64_t{512} << 20);
  std::vector<Case> cases;
  // Of SmolLM2-135M, and of a Llama of 1.1 billion parameters.
  constexpr int64_t kShapes[][2] = {{576, 576},   {192, 576},   {1536, 576},
                                    {576, 1536},  {49152, 576}, {2048, 2048},
                                    {5632, 2048}, {2048, 5632}, {32000, 2048}};
  constexpr DType kTypes[][2] = {{DType::kF32, DType::kF32},
                                 {DType::kBF16, DType::kBF16},
                                 {DType::kF32, DType::kI8},
                                 {DType::kBF16, DType::kI8}};
  for (const auto& [x, w] : kTypes)
    for (const auto& [n, k] : kShapes)
      for (const int64_t m : {1, 4, 8, 16, 128, 512})
        if (m <= most_m && (weights.empty() || weights == dtype_name(w)) && m * n < 10'000'000)
          cases.push_back({.x = x, .w = w, .m = m, .n = n, .k = k});
  for (int round = 0; round < rounds; ++round)
    for (Case& c : cases) c.measure(team, cold, activations);
  Limits limits;
  for (const Case& c : cases) limits.raise(c.limits);
  std::printf("%s, %d threads: f32 peak %.0f GF/s, bf16 peak %.0f GF/s, read %.1f GB/s\n",
              isa_name(active_isa()).data(), n_threads, limits.f32_gflops, limits.bf16_gflops,
              limits.read_gbytes);
  int n_wanted = 0;
  int n_reached = 0;
  for (const Case& c : cases) {
    const std::optional<bool> reached = c.print();
    n_wanted += reached.has_value() ? 1 : 0;
    n_reached += reached.value_or(false) ? 1 : 0;
  }
  std::printf("%d of %d wanted shares reached\n", n_reached, n_wanted);
}

}  // namespace
}  // namespace shardwright::kernels

int main(int argc, char** argv) {
  const int cpus = static_cast<int>(shardwright::allowed_cpus().size());
  shardwright::kernels::run(argc > 1 ? std::atoi(argv[1]) : cpus, argc > 2 ? std::atoi(argv[2]) : 3,
                            argc > 3 ? std::atoi(argv[3]) : 512, argc > 4 ? argv[4] : "");
  return 0;
}
