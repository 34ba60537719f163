// Random graphs: whatever is aliased, reused or moved, the answers are the interpreter's, and no
// reader finds memory that another step has overwritten (check_manifest walks the steps).
#include <gtest/gtest.h>

#include <random>

#include "ir/text.h"
#include "pef/read.h"
#include "plan/arena.h"
#include "plan/plan.h"
#include "plan/random_graph.h"
#include "plan/run_plan.h"

namespace shardwright::plan {
namespace {

std::string anything_fuses(const ops::FusedSpec&) { return ""; }

Planned check(const ir::Module& module, unsigned seed) {
  const ir::Graph& graph = module.graphs[0];
  SCOPED_TRACE("seed " + std::to_string(seed) + "\n" + ir::print(module));
  const Planned planned = make_plan(module, {{graph}}, anything_fuses);
  const pef::Plan& plan = planned.plan;
  pef::Manifest manifest;
  manifest.graphs = {signature_of(graph)};
  manifest.tensors = tensors_of(module);
  manifest.plans = {plan};
  EXPECT_NO_THROW(pef::check_manifest(manifest, anything_fuses));

  std::mt19937 random(seed);
  ir::RefMap inputs;
  const auto fill = [&](const std::string& name, const TensorType& type) {
    ops::RefTensor tensor(type);
    for (double& element : tensor.data) element = static_cast<double>(random() % 5) - 2;
    inputs[name] = tensor;
  };
  for (const ir::LogicalTensor& tensor : module.tensors) fill(tensor.name, tensor.type);
  for (const pef::Signature& input : manifest.graphs[0].inputs) fill(input.name, input.type);
  PlanRunner runner(module, plan, inputs);
  const ir::RefMap got = runner.run(0, manifest.graphs[0], inputs);
  const ir::RefMap wanted = ir::interpret(module, graph, inputs);
  for (const auto& [name, tensor] : wanted) {
    EXPECT_EQ(got.at(name).data, tensor.data) << name;  // sums of small integers are exact
  }
  return planned;
}

TEST(RandomPlans, EqualTheInterpreter) {
  for (unsigned seed = 1; seed <= 400 && !HasFailure(); ++seed)
    check(RandomGraph(seed).module(), seed);
}

TEST(RandomPlans, WithGroupsEqualTheInterpreter) {
  int parts = 0, divided = 0, steps = 0;
  for (unsigned seed = 1; seed <= 600 && !HasFailure(); ++seed) {
    const Planned planned = check(RandomGraph(seed).grouped(), seed);
    for (const GroupPlan& group : planned.groups[0]) {
      parts += group.parts;
      steps += group.steps;
      divided += group.steps > 1 ? 1 : 0;
      EXPECT_EQ(group.steps > 1, !group.why_not.empty());
      EXPECT_GE(group.saved_bytes[0], 0) << "seed " << seed;
    }
  }
  // The graphs are such that all of it happens.
  EXPECT_GT(parts, 3 * steps / 2);
  EXPECT_GT(divided, 20);
}

TEST(Arena, StoragesThatLiveTogetherNeverOverlap) {
  for (unsigned seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    const int n = 1 + static_cast<int>(random() % 40);
    std::vector<Storage> storages(static_cast<size_t>(n));
    std::vector<pef::Step> steps(static_cast<size_t>(n));
    int64_t most = 0;
    std::vector<int64_t> live(static_cast<size_t>(n), 0);
    for (int i = 0; i < n; ++i) {
      Storage& storage = storages[static_cast<size_t>(i)];
      storage.bytes = {static_cast<int64_t>(random() % 1000)};
      storage.first_step = static_cast<int>(random() % static_cast<unsigned>(n));
      storage.last_step = std::min(n - 1, storage.first_step + static_cast<int>(random() % 5));
      pef::Buffer buffer{pef::Space::kArena, i, 0, {DType::kU8, {storage.bytes[0]}}, {1}};
      steps[static_cast<size_t>(storage.first_step)].results.push_back(buffer);
      for (int s = storage.first_step; s <= storage.last_step; ++s)
        most = std::max(most, live[static_cast<size_t>(s)] += (storage.bytes[0] + 63) / 64 * 64);
    }
    const std::vector<Storage> before = storages;
    const ArenaUse use = place_storages(storages, 0, steps);
    // Each buffer stands for its storage: find it again by its first step and order.
    std::vector<std::pair<const Storage*, int64_t>> placed;
    for (int s = 0; s < n; ++s) {
      size_t k = 0;
      for (const Storage& storage : before)
        if (storage.first_step == s)
          placed.emplace_back(&storage, steps[static_cast<size_t>(s)].results[k++].offset_bytes);
    }
    for (size_t a = 0; a < placed.size(); ++a) {
      const auto& [one, at] = placed[a];
      EXPECT_EQ(at % 64, 0);
      EXPECT_LE(at + one->bytes[0], use.arena_bytes);
      for (size_t b = 0; b < a; ++b) {
        const auto& [other, other_at] = placed[b];
        const bool together =
            one->first_step <= other->last_step && other->first_step <= one->last_step;
        const bool overlap =
            std::max(at, other_at) < std::min(at + one->bytes[0], other_at + other->bytes[0]);
        EXPECT_FALSE(together && overlap);
      }
    }
    // No packing is perfect, but this is far from a place for each.
    EXPECT_LE(use.arena_bytes, 2 * most);
  }
}

}  // namespace
}  // namespace shardwright::plan
