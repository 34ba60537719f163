// Speed of gemm against limits of this machine that are measured in the same rounds: the peak of
// f32 FMA and of the bf16 dot instruction for large M, a plain read loop over cold weights for
// M = 1 and 4. Usage: gemm_bench [threads [rounds]].
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <vector>

#include "base/checked.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/isa.h"
#include "limits.h"

namespace shardwright::kernels {
namespace {

constexpr int64_t kColdBytes = int64_t{256} << 20;  // of weights in turn: several times an L3 cache

// One shape: weights in turn from a cold rotation, activations reused.
struct Case {
  DType dtype;
  int64_t m, n, k;
  double best_s = 1e9;  // of one gemm
  Limits limits = {};   // in the rounds of this case

  void measure(Team& team, Memory& cold, Memory& activations) {
    limits.raise(measure_limits(team, cold));
    const int64_t bytes = round_up(panel_bytes(dtype, n, k), 4096);
    const int64_t copies = std::max<int64_t>(1, kColdBytes / bytes);
    // Whole rotations for small m, where the weights must be cold; else about 30 ms.
    const int64_t enough = ceil_div(3'000'000'000, m * n * k);
    const int64_t calls = m <= 16 ? copies : std::clamp<int64_t>(enough, 2, copies);
    char* x = activations.data();
    char* y = x + round_up(m * k * 4, 4096);
    char* scratch = y + round_up(m * n * 4, 4096);
    std::vector<double> seconds(static_cast<size_t>(calls));
    team.run([&](Member& member) {
      for (int64_t i = 0; i < calls; ++i) {
        const double call_s = seconds_of([&] {
          gemm(member, {.m = m,
                        .n = n,
                        .k = k,
                        .x = x,
                        .x_dtype = dtype,
                        .x_row_stride = k,
                        .panels = cold.data() + i * bytes,
                        .panels_dtype = dtype,
                        .y = y,
                        .y_dtype = dtype,
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

  void print() const {
    const double gflops = 2e-9 * static_cast<double>(m * n * k) / best_s;
    const double gbytes = 1e-9 * static_cast<double>(panel_bytes(dtype, n, k)) / best_s;
    const double peak = dtype == DType::kF32 ? limits.f32_gflops : limits.bf16_gflops;
    std::printf(
        "%-5s %4ld x %5ld x %4ld  %9.1f us  %6.1f GF/s (%.2f of peak)  %5.1f GB/s (%.2f of read)\n",
        dtype_name(dtype).data(), m, n, k, best_s * 1e6, gflops, gflops / peak, gbytes,
        gbytes / limits.read_gbytes);
  }
};

void run(int n_threads, int rounds) {
  Team team(n_threads, allowed_cpus());
  Memory cold(kColdBytes);
  Memory activations(int64_t{512} << 20);
  std::vector<Case> cases;
  constexpr int64_t kShapes[][2] = {{576, 576},  {192, 576},   {1536, 576},
                                    {576, 1536}, {49152, 576}, {2048, 2048}};
  for (const DType dtype : {DType::kF32, DType::kBF16})
    for (const auto& [n, k] : kShapes)
      for (const int64_t m : {1, 4, 16, 128, 512})
        if (m * n < 10'000'000) cases.push_back({.dtype = dtype, .m = m, .n = n, .k = k});
  for (int round = 0; round < rounds; ++round)
    for (Case& c : cases) c.measure(team, cold, activations);
  Limits limits;
  for (const Case& c : cases) limits.raise(c.limits);
  std::printf("%s, %d threads: f32 peak %.0f GF/s, bf16 peak %.0f GF/s, read %.1f GB/s\n",
              isa_name(active_isa()).data(), n_threads, limits.f32_gflops, limits.bf16_gflops,
              limits.read_gbytes);
  for (const Case& c : cases) c.print();
}

}  // namespace
}  // namespace shardwright::kernels

int main(int argc, char** argv) {
  const int cpus = static_cast<int>(shardwright::allowed_cpus().size());
  shardwright::kernels::run(argc > 1 ? std::atoi(argv[1]) : cpus,
                            argc > 2 ? std::atoi(argv[2]) : 3);
  return 0;
}
