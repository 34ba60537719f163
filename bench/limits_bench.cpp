// Limits of this machine as one JSON object: {"threads": .., "f32_gflops": .., "bf16_gflops": ..,
// "int8_gflops": .., "read_gbytes": ..}. Usage: limits_bench [threads [tries]]; the best of tries.
#include "limits.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "base/team.h"

namespace shardwright::kernels {
namespace {

void run(int n_threads, int tries) {
  constexpr int64_t kLeastBytes = int64_t{256} << 20;
  const int64_t l3_bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);  // 0 or -1 where unknown
  Team team(n_threads, allowed_cpus());
  Memory cold(std::max(kLeastBytes, 3 * l3_bytes));
  Limits limits;
  for (int i = 0; i < tries; ++i) limits.raise(measure_limits(team, cold));
  std::printf(
      "{\"threads\": %d, \"f32_gflops\": %.1f, \"bf16_gflops\": %.1f, \"int8_gflops\": %.1f, "
      "\"read_gbytes\": %.2f}\n",
      n_threads, limits.f32_gflops, limits.bf16_gflops, limits.int8_gflops, limits.read_gbytes);
}

}  // namespace
}  // namespace shardwright::kernels

int main(int argc, char** argv) {
  const int cpus = static_cast<int>(shardwright::allowed_cpus().size());
  shardwright::kernels::run(argc > 1 ? std::atoi(argv[1]) : cpus,
                            argc > 2 ? std::atoi(argv[2]) : 5);
  return 0;
}
