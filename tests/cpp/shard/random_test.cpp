// Random strategies: a random valid strategy for every node, conversions inserted, n chips: the
// answer is that of the whole run. Any combination is legal, so this fuzzes rules, conversions and
// partition at once.
#include <gtest/gtest.h>

#include "ir/verify.h"
#include "shard/chips.h"
#include "shard/models.h"
#include "shard/partition.h"
#include "shard/solve.h"

namespace shardwright::shard {
namespace {

constexpr int kChips[] = {2, 3, 4, 5, 8};

void expect_equal(const Model& model, const Solution& solution, const std::string& what) {
  const std::vector<ir::Graph> chips = partition(model.module, model.graph(), solution);
  for (const ir::Graph& chip : chips) ir::verify(model.module, chip, ir::Stage::kLocal);
  const ir::RefMap whole = ir::interpret(model.module, model.graph(), model.inputs);
  const ir::RefMap got = ir::interpret_chips(model.module, chips, model.inputs);
  for (const auto& [name, want] : whole) {
    ASSERT_TRUE(got.contains(name)) << what;
    EXPECT_EQ(compare(got.at(name), want, 1e-9), "") << name << ", " << what;
  }
}

void try_random(const Model& model, const std::string& name, uint64_t n_seeds) {
  ir::verify(model.module, model.graph(), ir::Stage::kCanonical);
  for (const int n : kChips) {
    for (uint64_t seed = 1; seed <= n_seeds; ++seed) {
      const std::string what =
          name + ", " + std::to_string(n) + " chips, seed " + std::to_string(seed);
      try {
        expect_equal(model, random_solution(model.graph(), n, seed), what);
      } catch (const Error& error) {
        FAIL() << what << ": " << error.what();
      }
    }
  }
}

TEST(RandomStrategies, Llama) { try_random(llama({}), "llama 9/3", 20); }
TEST(RandomStrategies, LlamaOneKvHead) {
  try_random(llama({.heads = 5, .kv_heads = 1, .hidden = 10}, false, true), "llama 5/1 tied", 10);
}
TEST(RandomStrategies, LlamaDecode) {
  try_random(llama({.batch = 3, .layers = 2, .heads = 6, .kv_heads = 2}, true), "decode 6/2", 20);
}
TEST(RandomStrategies, Gpt2WithLoss) { try_random(gpt2({}), "gpt2", 20); }
TEST(RandomStrategies, Bert) { try_random(bert({.batch = 3}), "bert", 20); }

// The plans that people run.
TEST(Plans, EveryModeAndNumberOfChips) {
  const std::pair<const char*, Model> models[] = {
      {"llama 9/3", llama({.batch = 9, .layers = 2})},
      {"llama 6/2 tied", llama({.batch = 8, .heads = 6, .kv_heads = 2, .vocab = 23}, false, true)},
      {"llama 2/1", llama({.batch = 8, .heads = 2, .kv_heads = 1, .hidden = 8, .vocab = 97})},
      {"decode 9/3", llama({.batch = 8, .layers = 2}, true)},
      {"gpt2", gpt2({.batch = 8})},
      {"bert", bert({.batch = 11})},
  };
  for (const auto& [name, model] : models) {
    for (const Mode mode : {Mode::kBatch, Mode::kWeight, Mode::kAuto}) {
      for (int n = 1; n <= 8; ++n) {
        const std::string what =
            std::string(name) + ", " + mode_name(mode) + ", " + std::to_string(n) + " chips";
        try {
          const auto solutions = solve(model.module, {.mode = mode, .n_chips = n});
          expect_equal(model, solutions[0], what);
        } catch (const Error& error) {
          FAIL() << what << ": " << error.what();
        }
      }
    }
  }
}

}  // namespace
}  // namespace shardwright::shard
