// Fusion groups from marks to steps, on several chips: whatever is marked, the answers have the
// bits of the run without groups. Steps run part by part here; their kernels are tested in ops.
#include <gtest/gtest.h>

#include <random>

#include "ir/verify.h"
#include "passes/fuse.h"
#include "pef/read.h"
#include "plan/plan.h"
#include "plan/run_plan.h"
#include "shard/models.h"
#include "shard/partition.h"
#include "shard/solve.h"

namespace shardwright {
namespace {

using shard::Mode;
using shard::Model;

std::string anything_fuses(const ops::FusedSpec&) { return ""; }

struct Named {
  const char* name;
  Model model;
};

std::vector<Named> models() {
  std::vector<Named> result;
  result.push_back({"llama 9/3", shard::llama({.batch = 3, .layers = 2})});
  result.push_back({"decode 6/2", shard::llama({.batch = 3, .heads = 6, .kv_heads = 2}, true)});
  result.push_back({"gpt2", shard::gpt2({.batch = 3})});
  result.push_back({"bert", shard::bert({.batch = 3})});
  return result;
}

// Marks nodes at random, neighbours often alike.
void mark_at_random(ir::Graph& graph, unsigned seed) {
  std::mt19937 random(seed);
  const int n_groups = 2 + static_cast<int>(random() % 6);
  for (int i = 0; i < n_groups; ++i) graph.groups.push_back({"g" + std::to_string(i), "test", ""});
  int group = 0;
  for (ir::Node& node : graph.nodes) {
    if (random() % 4 == 0) group = static_cast<int>(random() % static_cast<unsigned>(n_groups));
    node.group = random() % 5 == 0 ? -1 : group;
  }
}

struct Run {
  ir::RefMap outputs;
  plan::Planned planned;
};

Run run(const Model& model, const ir::Graph& graph, const shard::Solution& solution) {
  const std::vector<ir::Graph> chips = shard::partition(model.module, graph, solution);
  for (const ir::Graph& chip : chips) ir::verify(model.module, chip, ir::Stage::kLocal);
  Run result;
  result.planned = plan::make_plan(model.module, {chips}, anything_fuses);
  pef::Manifest manifest;
  manifest.graphs = {plan::signature_of(graph)};
  manifest.tensors = plan::tensors_of(model.module);
  manifest.plans = {result.planned.plan};
  EXPECT_NO_THROW(pef::check_manifest(manifest, anything_fuses));
  plan::PlanRunner runner(model.module, result.planned.plan, {});
  result.outputs = runner.run(0, manifest.graphs[0], model.inputs);
  return result;
}

// All groups of `marked` together.
plan::GroupPlan expect_same_bits(const Model& model, const shard::Solution& solution,
                                 const ir::Graph& marked) {
  const Run alone = run(model, model.graph(), solution);
  const Run fused = run(model, marked, solution);
  plan::GroupPlan sum;
  for (const auto& [name, tensor] : alone.outputs)
    EXPECT_EQ(fused.outputs.at(name).data, tensor.data) << name;
  for (const plan::GroupPlan& group : fused.planned.groups[0]) {
    sum.parts += group.parts;
    sum.steps += group.steps;
    for (const int64_t saved : group.saved_bytes) EXPECT_GE(saved, 0);
  }
  return sum;
}

TEST(Fusion, OurGroupsGiveTheSameBits) {
  for (const auto& [name, model] : models()) {
    Model marked = model;
    passes::fuse(marked.module, marked.module.graphs[0]);
    for (const Mode mode : {Mode::kWeight, Mode::kBatch})
      for (const int n : {1, 2, 3}) {
        SCOPED_TRACE(std::string(name) + ", " + std::to_string(n) + " chips");
        const auto solutions = shard::solve(model.module, {.mode = mode, .n_chips = n});
        const plan::GroupPlan sum = expect_same_bits(model, solutions[0], marked.graph());
        EXPECT_LT(2 * sum.steps, sum.parts) << sum.parts;
      }
  }
}

TEST(Fusion, RandomGroupsGiveTheSameBits) {
  for (const auto& [name, model] : models())
    for (unsigned seed = 1; seed <= 12; ++seed)
      for (const int n : {1, 2, 3}) {
        SCOPED_TRACE(std::string(name) + ", " + std::to_string(n) + " chips, seed " +
                     std::to_string(seed));
        ir::Graph marked = model.graph();
        mark_at_random(marked, seed);
        expect_same_bits(model, shard::random_solution(model.graph(), n, seed), marked);
        if (HasFailure()) return;
      }
}

}  // namespace
}  // namespace shardwright
