// Reductions and topk.
#include "ops/run_op.h"
#include "ops/table.h"

namespace shardwright::ops {
namespace {

TEST(Reduce, KernelsEqualReferences) {
  for (const OpDef* op : {&sum, &amax, &amin, &argmax, &topk}) check_samples(*op);
}

std::string expansion_of(const OpDef& op, std::string_view text) {
  const Sample sample = parse_sample(op, text);
  return op.expansion_for(sample.attrs, sample.operands);
}

TEST(Reduce, RulesSayWhatSplittingLeaves) {
  const auto rule = [](const OpDef& op, std::string_view text) {
    const Sample sample = parse_sample(op, text);
    return rule_text(op, sample.attrs, sample.operands);
  };
  EXPECT_EQ(rule(sum, "x: f32[2, 1, 4], dim=[1, 2], keepdim=true"), "a0 1 a2 -> a0 1 1; a2: sum");
  EXPECT_EQ(rule(sum, "x: f32[2, 3]"), "a0 a1 -> ; a0 a1: sum");
  EXPECT_EQ(rule(amax, "x: f32[2, 3], dim=[-1]"), "a0 a1 -> a0; a1: max");
  EXPECT_EQ(rule(argmax, "x: f32[2, 3], dim=0"), "a0 a1 -> a1; a0: whole");
}

TEST(Reduce, AnEmptyPieceGivesTheNeutralElement) {
  const RefTensors empty{RefTensor({DType::kF32, {2, 0}})};
  const Attrs attrs{{"dim", std::vector<int64_t>{1}}};
  const std::vector<TensorType> types{{DType::kF32, {2}}};
  EXPECT_EQ(run_kernel(sum, attrs, empty, types)[0].data, (std::vector<double>{0, 0}));
  EXPECT_EQ(run_kernel(amax, attrs, empty, types)[0].data,
            (std::vector<double>{-INFINITY, -INFINITY}));
}

TEST(Reduce, SumCastsFirst) {
  EXPECT_EQ(expansion_of(sum, "x: f32[2, 3], dim=[1]"), "");
  EXPECT_EQ(expansion_of(sum, "x: bool[2, 3], dim=[1]"),
            "sum(_to_copy(x, dtype=i64), dim=[1], keepdim=false)");
  EXPECT_EQ(expansion_of(sum, "x: bf16[2, 3], dtype=f32"),
            "sum(_to_copy(x, dtype=f32), keepdim=false)");
}

TEST(Reduce, MeanRoundsOnce) {
  EXPECT_EQ(expansion_of(mean, "x: f32[2, 3], dim=[-1], keepdim=true"),
            "div(sum(x, dim=[-1], keepdim=true), 3.0)");
  EXPECT_EQ(expansion_of(mean, "x: bf16[2, 3]"),
            "_to_copy(div(sum(_to_copy(x, dtype=f32), keepdim=false), 6.0), dtype=bf16)");
}

TEST(Topk, EqualValuesInOrderOfIndex) {
  RefTensors x{RefTensor({DType::kF32, {5}})};
  x[0]->data = {1, 3, 2, 3, 1};
  const Attrs attrs{{"k", int64_t{3}}};
  const auto results = run_kernel(topk, attrs, x, {{DType::kF32, {3}}, {DType::kI64, {3}}});
  EXPECT_EQ(results[0].data, (std::vector<double>{3, 3, 2}));
  EXPECT_EQ(results[1].data, (std::vector<double>{1, 3, 2}));
}

}  // namespace
}  // namespace shardwright::ops
