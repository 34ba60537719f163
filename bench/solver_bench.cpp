// Time of the sharding solver on a 32-layer Llama-8B-shaped graph without weights, prefill and
// decode, for 8 chips: the whole of solve(), rules and explanations included. The limit is 10 ms.
// Usage: solver_bench [rounds].
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "shard/models.h"
#include "shard/solve.h"

namespace shardwright::shard {
namespace {

constexpr double kLimitMs = 10;

double milliseconds(const Model& model, const SolveOptions& options) {
  const auto begin = std::chrono::steady_clock::now();
  const std::vector<Solution> solutions = solve(model.module, options);
  const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - begin;
  return solutions.empty() ? 0 : time.count();
}

void bench(const char* name, const Model& model, const SolveOptions& options, int rounds) {
  std::vector<double> times;
  for (int i = 0; i < rounds; ++i) times.push_back(milliseconds(model, options));
  std::sort(times.begin(), times.end());
  const double median = times[times.size() / 2];
  std::printf("%-8s %-7s %d chips, %zu nodes: %6.2f ms median, %6.2f ms least, %.2f of %g ms\n",
              name, mode_name(options.mode), options.n_chips, model.graph().nodes.size(), median,
              times[0], median / kLimitMs, kLimitMs);
}

}  // namespace
}  // namespace shardwright::shard

int main(int argc, char** argv) {
  using namespace shardwright::shard;
  const int rounds = argc > 1 ? std::max(std::atoi(argv[1]), 1) : 15;
  const Dims dims{.batch = 8,
                  .tokens = 512,
                  .layers = 32,
                  .heads = 32,
                  .kv_heads = 8,
                  .head = 128,
                  .hidden = 4096,
                  .ffn = 14336,
                  .vocab = 128256,
                  .cache = 1024,
                  .data = false,
                  .dtype = shardwright::DType::kBF16};
  const Model prefill = llama(dims), decode = llama(dims, true);
  for (const Mode mode : {Mode::kWeight, Mode::kBatch, Mode::kAuto}) {
    bench("prefill", prefill, {.mode = mode, .n_chips = 8}, rounds);
    bench("decode", decode, {.mode = mode, .n_chips = 8}, rounds);
  }
}
