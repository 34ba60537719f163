// What another choice would have cost: the same as a rule that fixes it, and never less than what
// the solver chose where it was free to choose.
#include "shard/what_if.h"

#include <gtest/gtest.h>

#include "shard/models.h"

namespace shardwright::shard {
namespace {

bool is_linear(const ir::Node& node) { return std::string(node.op->name) == "linear"; }

double seconds_of(const std::vector<Solution>& plan) {
  double sum = 0;
  for (const Solution& s : plan) sum += s.seconds;
  return sum;
}

TEST(WhatIf, EqualsARuleThatFixesTheSplit) {
  for (const int n_chips : {2, 3, 4}) {
    const Model model = llama({.layers = 2, .data = false});
    const SolveOptions options{.mode = Mode::kWeight, .n_chips = n_chips};
    const std::vector<Solution> plan = solve(model.module, options);
    int compared = 0;
    for (ir::NodeId n = 0; n < static_cast<ir::NodeId>(model.graph().nodes.size()); ++n) {
      if (!is_linear(model.graph().nodes[static_cast<size_t>(n)])) continue;
      const auto& factors = plan[0].rules[static_cast<size_t>(n)]->factors;
      for (const Alternative& other : alternatives_of(model.module, plan, 0, n)) {
        if (other.factor < 0) continue;
        const std::string& name = factors[static_cast<size_t>(other.factor)].name;
        if (name != "m" && name != "k") continue;  // rules fix these
        SolveOptions fixed = options;
        fixed.fixed[{0, n}] = {name, "rules.yaml:1 x"};
        EXPECT_NEAR(other.seconds, seconds_of(solve(model.module, fixed)) - seconds_of(plan), 1e-15)
            << n_chips << " chips, node " << n << " by " << name;
        ++compared;
      }
    }
    EXPECT_EQ(compared, 2 * 7 + 1) << n_chips << " chips";  // linears of two layers, and the head
  }
}

TEST(WhatIf, NothingIsFasterThanWhatCostAloneChose) {
  const Model model = llama({.tokens = 64, .layers = 2, .hidden = 36, .data = false});
  const std::vector<Solution> plan = solve(model.module, {.mode = Mode::kAuto, .n_chips = 3});
  for (ir::NodeId n = 0; n < static_cast<ir::NodeId>(model.graph().nodes.size()); ++n) {
    double before = 0;
    for (const Alternative& other : alternatives_of(model.module, plan, 0, n)) {
      EXPECT_NE(other.factor, plan[0].strategies[static_cast<size_t>(n)].factor);
      EXPECT_GE(other.seconds, before) << "node " << n;  // fastest first, and none below zero
      before = other.seconds;
    }
  }
}

TEST(WhatIf, RunningWholeKeepsTheWeightOnEveryChip) {
  const Model model = llama({.data = false});
  const std::vector<Solution> plan = solve(model.module, {.mode = Mode::kWeight, .n_chips = 2});
  for (ir::NodeId n = 0; n < static_cast<ir::NodeId>(model.graph().nodes.size()); ++n) {
    const ir::Node& node = model.graph().nodes[static_cast<size_t>(n)];
    if (!is_linear(node)) continue;
    const int64_t whole = model.graph().type(node.inputs[1]).bytes();
    for (const Alternative& other : alternatives_of(model.module, plan, 0, n))
      if (other.factor < 0) {
        EXPECT_GT(other.weight_bytes, 0) << "node " << n;
        EXPECT_LE(other.weight_bytes, whole / 2 + whole / 9) << "node " << n;
      }
  }
}

}  // namespace
}  // namespace shardwright::shard
