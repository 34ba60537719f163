// Fusion groups in small plans: the order of nodes, what a step holds, what divides a group.
#include <gtest/gtest.h>

#include "ir/text.h"
#include "ops/exchange.h"
#include "pef/read.h"
#include "plan/plan.h"
#include "plan/schedule.h"

namespace shardwright::plan {
namespace {

using Names = std::vector<std::string>;

std::string anything_fuses(const ops::FusedSpec&) { return ""; }

// Fuses no more than two parts, and no exp.
std::string two_without_exp(const ops::FusedSpec& spec) {
  if (spec.parts.size() > 2) return "more than two parts";
  for (const ops::FusedPart& part : spec.parts)
    if (part.op == ops::find_op("exp")) return "exp";
  return "";
}

Planned plan_of(const std::string& text, pef::WhyNotFused why_not_fused = anything_fuses) {
  const ir::Module module = ir::parse(text);
  Planned planned = make_plan(module, {{module.graphs[0]}}, why_not_fused);
  pef::Manifest manifest;
  manifest.graphs = {signature_of(module.graphs[0])};
  manifest.tensors = tensors_of(module);
  manifest.plans = {planned.plan};
  pef::check_manifest(manifest, why_not_fused);
  return planned;
}

// "neg", "fused(add exp)"
Names steps_of(const Planned& planned) {
  Names names;
  for (const pef::Step& step : planned.plan.chips[0].programs[0].steps) {
    std::string name = step.op;
    for (size_t i = 0; i < step.parts.size(); ++i) name += (i == 0 ? "(" : " ") + step.parts[i].op;
    names.push_back(name + (step.is_fused() ? ")" : ""));
  }
  return names;
}

TEST(Fusion, IntermediatesAreScratchAndMembersStandTogether) {
  // `other` stands between members and needs none of them.
  const Planned planned = plan_of(R"(graph g {
  group 0 "chain" from "test"
  input %x: f32[4, 8] = user_input "x"
  input %y: f32[4, 8] = user_input "y"
  %a: f32[4, 8] = exp(%x) group 0
  %other: f32[4, 8] = neg(%y)
  %b: f32[4, 8] = mul(%a, %a) group 0
  %c: f32[4, 8] = add(%b, %x) {alpha=1} group 0
  output %c = user_output "c"
  output %other = user_output "other"
})");
  EXPECT_EQ(steps_of(planned), (Names{"neg", "fused(exp mul add)"}));
  const pef::Step& fused = planned.plan.chips[0].programs[0].steps[1];
  ASSERT_EQ(fused.operands.size(), 1U);  // x, once
  ASSERT_EQ(fused.results.size(), 1U);
  EXPECT_EQ(fused.results[0].space, pef::Space::kOutput);
  EXPECT_EQ(fused.scratch_bytes, (std::vector<int64_t>{128, 128}));
  EXPECT_EQ(planned.plan.chips[0].arena_bytes, 0);
  const GroupPlan& group = planned.groups[0][0];
  EXPECT_EQ(group.parts, 3);
  EXPECT_EQ(group.steps, 1);
  EXPECT_EQ(group.why_not, "");
  // exp reads 1 and writes 1, mul 2 and 1, add 2 and 1; together they read 1 and write 1.
  EXPECT_EQ(group.saved_bytes, (std::vector<int64_t>{6 * 128}));
}

TEST(Fusion, WhatOthersReadIsAResultThatLaterPartsSee) {
  const Planned planned = plan_of(R"(graph g {
  group 0 "chain" from "test"
  input %x: f32[4, 8] = user_input "x"
  %a: f32[4, 8] = exp(%x) group 0
  %s: f32[4, 4] = slice(%a) {dim=1, start=4, end=8, step=1}
  %b: f32[4, 4] = neg(%s) group 0
  output %a = user_output "a"
  output %b = user_output "b"
})");
  EXPECT_EQ(steps_of(planned), Names{"fused(exp neg)"});
  const pef::Step& fused = planned.plan.chips[0].programs[0].steps[0];
  EXPECT_EQ(fused.operands.size(), 1U);
  EXPECT_EQ(fused.results.size(), 2U);
  EXPECT_TRUE(fused.scratch_bytes.empty());
  const pef::Buffer& seen = fused.parts[1].operands[0];
  EXPECT_EQ(seen.space, pef::Space::kStepResult);
  EXPECT_EQ(seen.index, 0);
  EXPECT_EQ(seen.offset_bytes, 4 * 4);
  EXPECT_EQ(seen.strides, (Strides{8, 1}));
}

TEST(Fusion, AResultTakesTheMemoryOfAnOperandThatDies) {
  const std::string text = R"(graph g {
  group 0 "chain" from "test"
  input %x: f32[4, 8] = user_input "x"
  %t: f32[4, 8] = cumsum(%x) {dim=0}
  %a: f32[4, 8] = exp(%t) group 0
  %b: f32[4, 8] = add(%a, OTHER) {alpha=1} group 0
  %c: f32[4, 8] = cumsum(%b) {dim=0}
  output %c = user_output "c"
})";
  const auto with = [&](const std::string& other) {
    std::string changed = text;
    changed.replace(changed.find("OTHER"), 5, other);
    return plan_of(changed).plan.chips[0].arena_bytes;
  };
  EXPECT_EQ(with("%x"), 128);
  EXPECT_EQ(with("%t"), 256);  // two parts read t: one may be late
}

TEST(Fusion, RunsThatNoKernelTakesAreCutGreedilyAndSaid) {
  const Planned planned = plan_of(R"(graph g {
  group 0 "chain" from "test"
  group 1 "rest" from "test"
  input %x: f32[4, 8] = user_input "x"
  %a: f32[4, 8] = neg(%x) group 0
  %b: f32[4, 8] = relu(%a) group 0
  %c: f32[4, 8] = exp(%b) group 0
  %d: f32[4, 8] = neg(%c) group 0
  %e: f32[4, 8] = relu(%d) group 0
  %f: f32[4, 8] = exp(%e) group 1
  output %f = user_output "f"
})",
                                  two_without_exp);
  EXPECT_EQ(steps_of(planned), (Names{"fused(neg relu)", "exp", "fused(neg relu)", "exp"}));
  EXPECT_EQ(planned.groups[0][0].parts, 5);
  EXPECT_EQ(planned.groups[0][0].steps, 3);
  EXPECT_EQ(planned.groups[0][0].why_not, "more than two parts");
  EXPECT_EQ(planned.groups[0][1].steps, 1);
  EXPECT_EQ(planned.groups[0][1].why_not, "");
}

TEST(Fusion, APathThatLeavesAndComesBackDividesAGroup) {
  const Planned planned = plan_of(R"(graph g {
  group 0 "chain" from "test"
  input %x: f32[4, 8] = user_input "x"
  %a: f32[4, 8] = neg(%x) group 0
  %out: f32[4, 8] = cumsum(%a) {dim=0}
  %b: f32[4, 8] = add(%a, %out) {alpha=1} group 0
  %c: f32[4, 8] = exp(%a) group 0
  %d: f32[4, 8] = mul(%b, %c) group 0
  output %d = user_output "d"
})");
  EXPECT_EQ(steps_of(planned), (Names{"fused(neg exp)", "cumsum", "fused(add mul)"}));
  EXPECT_EQ(planned.groups[0][0].why_not, "steps that are not in it must run between its parts");
}

// Two groups that each need the other: neither alone stands in the way of the other's first part.
TEST(Fusion, GroupsThatCrossAreDivided) {
  const Planned planned = plan_of(R"(graph g {
  group 0 "one" from "test"
  group 1 "two" from "test"
  input %x: f32[4, 8] = user_input "x"
  %a1: f32[4, 8] = neg(%x) group 0
  %b1: f32[4, 8] = exp(%x) group 1
  %a2: f32[4, 8] = relu(%b1) group 0
  %b2: f32[4, 8] = abs(%a1) group 1
  output %a2 = user_output "a2"
  output %b2 = user_output "b2"
})");
  EXPECT_EQ(planned.groups[0][0].steps + planned.groups[0][1].steps, 3);
}

TEST(Fusion, ATransferDividesAGroup) {
  const std::string chip = R"(graph g {
  group 0 "residual" from "test"
  input %x: f32[4, 8] = user_input "x" piece [0:4, 0:8]
  %a: f32[4, 8] = neg(%x) group 0
  %b: f32[4, 8] = exp(%a) group 0
  %s: f32[4, 8] = exchange(%b) {kind="all_reduce", combine="sum", from_dim=-1, from_cuts=[], to_dim=-1, to_cuts=[], shape=[4, 8], n=2}
  %c: f32[4, 8] = add(%s, %x) {alpha=1} group 0
  %d: f32[4, 8] = relu(%c) group 0
  output %d = user_output "d" piece [0:4, 0:8]
})";
  const ir::Module module = ir::parse(chip);
  ir::Module global = module;
  const Planned planned = make_plan(global, {{module.graphs[0], module.graphs[0]}}, anything_fuses);
  EXPECT_EQ(steps_of(planned), (Names{"fused(neg exp)", "exchange", "fused(add relu)"}));
  EXPECT_EQ(planned.groups[0][0].steps, 2);
  EXPECT_EQ(planned.groups[0][0].why_not, "a transfer between chips divides it");
}

// The cache is written in place only by a step in which nobody else reads it.
TEST(Fusion, ACacheThatIsReadBesideItsChangeIsNoStep) {
  const Planned planned = plan_of(R"(tensor 0 "cache": f32[1, 6, 2] buffer
graph step {
  group 0 "write" from "test"
  input %k: f32[1, 2, 2] = user_input "k"
  input %at: i64[2] = user_input "at"
  input %old: f32[1, 6, 2] = buffer "cache" of 0 offset 0 strides [12, 2, 1]
  %before: f32[1, 6, 2] = neg(%old) group 0
  %new: f32[1, 6, 2] = index_copy(%old, %at, %k) {dim=1} group 0
  %sum: f32[1, 6, 2] = add(%new, %before) {alpha=1}
  output %sum = user_output "sum"
  output %new = buffer_mutation "cache"
})");
  EXPECT_EQ(steps_of(planned), (Names{"neg", "index_copy", "add"}));
  EXPECT_EQ(planned.groups[0][0].why_not, "a part overwrites what another reads");
}

}  // namespace
}  // namespace shardwright::plan
