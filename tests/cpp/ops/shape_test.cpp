// Operators that move elements: their rules, expansions and particular cases.
#include <numeric>

#include "ops/run_op.h"
#include "ops/table.h"

namespace shardwright::ops {
namespace {

std::string rule_for(const OpDef& op, std::string_view text) {
  const Sample sample = parse_sample(op, text);
  return rule_text(op, sample.attrs, sample.operands);
}

std::string expansion_of(const OpDef& op, std::string_view text) {
  const Sample sample = parse_sample(op, text);
  return op.expansion_for(sample.attrs, sample.operands);
}

Shape shape_of(const OpDef& op, std::string_view text, size_t result = 0) {
  const Sample sample = parse_sample(op, text);
  return infer_types(op, sample.attrs, sample.operands)[result].shape;
}

TEST(Reshape, CommonRefinement) {
  const auto rule = [](const char* text) { return rule_for(reshape, text); };
  EXPECT_EQ(rule("x: f32[2, 16, 576], shape=[2, 16, 9, 64]"), "f0 f1 (f2=9 f3=64) -> f0 f1 f2 f3");
  EXPECT_EQ(rule("x: f32[2, 16, 4], shape=[32, 4]"), "f0 f1 f2 -> (f0=2 f1=16) f2");
  EXPECT_EQ(rule("x: f32[2, 1, 3], shape=[1, 2, 3, 1]"), "f0 1 f1 -> 1 f0 f1 1");
  EXPECT_EQ(rule("x: f32[6, 4], shape=[2, 12]"), "(f0=2 f1=3) f2 -> f0 (f1=3 f2=4)");
  // The first dimensions share a factor of 2; the rest has no common refinement.
  EXPECT_EQ(rule("x: f32[4, 6], shape=[6, 4]"),
            "(f0=2 f1=2) f2=6 -> (f0=2 f3=3) f4=4; f1 f2 f3 f4: whole");
  EXPECT_EQ(rule("x: f32[3, 2], shape=[2, 3]"), "f0=3 f1=2 -> f2=2 f3=3; f0 f1 f2 f3: whole");
  EXPECT_EQ(rule("x: f32[0, 4], shape=[4, 0]"), "f0=0 f1=4 -> f2=4 f3=0; f0 f1 f2 f3: whole");
  EXPECT_EQ(rule("x: f32[], shape=[1, 1]"), " -> 1 1");
  EXPECT_EQ(shape_of(reshape, "x: f32[2, 6], shape=[3, -1]"), (Shape{3, 4}));
  EXPECT_THROW(rule("x: f32[2, 6], shape=[5, -1]"), Error);
  EXPECT_THROW(rule("x: f32[2, 6], shape=[13]"), Error);
}

// Rows [begin, end) of dimension `dim`.
RefTensor cut(const RefTensor& x, int dim, int64_t begin, int64_t end) {
  Attrs attrs{{"dim", int64_t{dim}}, {"start", begin}, {"end", end}};
  fill_defaults(slice, &attrs);
  TensorType type = x.type;
  type.shape[static_cast<size_t>(dim)] = end - begin;
  return run_reference(slice, attrs, {x}, {type})[0];
}

int64_t minor_size(const Rule& rule, const Words& words, int dim) {
  const auto& factors = words[static_cast<size_t>(dim)].factors;
  int64_t size = 1;
  for (size_t i = 1; i < factors.size(); ++i)
    size *= rule.factors[static_cast<size_t>(factors[i])].size;
  return size;
}

Shape random_shape(std::vector<int64_t> primes, std::mt19937& random) {
  std::shuffle(primes.begin(), primes.end(), random);
  Shape shape{1};
  for (int64_t prime : primes) {
    if (random() % 2 == 0) shape.push_back(1);
    shape.back() *= prime;
  }
  return shape;
}

// A cut of any factor that the rule lets be split commutes with the reshape.
TEST(Reshape, EveryCutOfRandomShapesIsRight) {
  std::mt19937 random(7);
  int cuts = 0;
  for (int round = 0; round < 300; ++round) {
    const std::vector<int64_t> primes{2, 2, 3, 2, 3};
    const Shape from = random_shape(primes, random);
    const Shape to = random_shape(primes, random);
    SCOPED_TRACE("seed 7, " + to_string(from) + " -> " + to_string(to));
    RefTensor x({DType::kI64, from});
    std::iota(x.data.begin(), x.data.end(), 0.0);
    RefTensor y({DType::kI64, to});
    y.data = x.data;
    const Attrs attrs{{"shape", to}};
    const Rule rule = rule_of(reshape, attrs, std::vector{std::optional(x.type)});
    ASSERT_EQ(rule.result_shape(0), to);
    for (int f = 0; f < static_cast<int>(rule.factors.size()); ++f) {
      if (!rule.splittable(f)) continue;
      const int in = Rule::dim_of(rule.operands[0], f);
      const int out = Rule::dim_of(rule.results[0], f);
      const int64_t end =
          1 + static_cast<int64_t>(random()) % rule.factors[static_cast<size_t>(f)].size;
      const int64_t begin = static_cast<int64_t>(random()) % end;
      const int64_t in_size = minor_size(rule, rule.operands[0], in);
      const int64_t out_size = minor_size(rule, rule.results[0], out);
      EXPECT_EQ(cut(x, in, begin * in_size, end * in_size).data,
                cut(y, out, begin * out_size, end * out_size).data);
      ++cuts;
    }
  }
  EXPECT_GT(cuts, 300);
}

TEST(Slice, Rules) {
  EXPECT_EQ(rule_for(slice, "x: f32[4, 9], dim=1, start=-3"), "a0 b -> a0 c=3; b c: whole");
  EXPECT_EQ(rule_for(slice, "x: f32[4, 9], dim=1, end=9223372036854775807"), "a0 a1 -> a0 a1");
  EXPECT_EQ(shape_of(slice, "x: f32[9], start=1, end=-1, step=3"), (Shape{3}));
  EXPECT_EQ(shape_of(slice, "x: f32[9], start=5, end=2"), (Shape{0}));
  EXPECT_THROW(rule_for(slice, "x: f32[9], step=0"), Error);
}

TEST(Expand, NewDimensionsMayBeSplit) {
  const Sample sample = parse_sample(expand, "x: f32[3, 1, 1], shape=[2, 3, 4, 1]");
  EXPECT_EQ(rule_text(expand, sample.attrs, sample.operands), "a0 1 1 -> e0=2 a0 e2=4 1");
  const Rule rule = rule_of(expand, sample.attrs, sample.operands);
  EXPECT_TRUE(rule.splittable(rule.find_factor("e2")));
  EXPECT_THROW(rule_for(expand, "x: f32[3], shape=[4]"), Error);
}

TEST(Cat, Rules) {
  EXPECT_EQ(rule_for(cat, "xs: f32[2, 3], xs: f32[2, 1], dim=-1"),
            "a0 c0, a0 c1 -> a0 c=4; c c0 c1: whole");
  EXPECT_EQ(shape_of(cat, "xs: f32[0], xs: f32[4, 3]"), (Shape{4, 3}));
  EXPECT_THROW(shape_of(cat, "xs: f32[2, 3], xs: f32[4, 3], dim=1"), Error);
  EXPECT_THROW(shape_of(cat, "xs: f32[2, 3], xs: f32[4]"), Error);
}

TEST(Shape, Expansions) {
  EXPECT_EQ(expansion_of(unsqueeze, "x: f32[3, 5], dim=-1"), "reshape(x, shape=[3, 5, 1])");
  EXPECT_EQ(expansion_of(squeeze, "x: f32[3, 1, 1], dim=[1]"), "reshape(x, shape=[3, 1])");
  EXPECT_EQ(expansion_of(select, "x: f32[3, 5], dim=0, index=-1"),
            "reshape(slice(x, dim=0, start=2, end=3), shape=[5])");
  EXPECT_EQ(expansion_of(transpose, "x: f32[3, 5, 7], dim0=0, dim1=-1"),
            "permute(x, dims=[2, 1, 0])");
  EXPECT_EQ(expansion_of(split, "x: f32[5], split_size=3"),
            "(slice(x, dim=0, start=0, end=3), slice(x, dim=0, start=3, end=5))");
  EXPECT_EQ(expansion_of(stack, "xs: f32[3], xs: f32[3], dim=1"),
            "cat(reshape(xs0, shape=[3, 1]), reshape(xs1, shape=[3, 1]), dim=1)");
  EXPECT_EQ(expansion_of(repeat_interleave, "x: f32[3, 5], repeats=2, dim=0"),
            "reshape(expand(reshape(x, shape=[3, 1, 5]), shape=[3, 2, 5]), shape=[6, 5])");
  EXPECT_EQ(expansion_of(ones_like, "x: bf16[3]"), "full(size=[3], fill_value=1, dtype=bf16)");
  EXPECT_EQ(shape_of(chunk, "x: f32[7, 2], chunks=3", 2), (Shape{1, 2}));
  EXPECT_THROW(shape_of(split_with_sizes, "x: f32[7], split_sizes=[3, 3]"), Error);
}

TEST(Pad, OnlyConstants) {
  EXPECT_EQ(rule_for(pad, "x: f32[3, 5], pad=[1, 2]"), "a0 b1 -> a0 c1=8; b1 c1 : whole");
  EXPECT_THROW(rule_for(pad, "x: f32[3, 5], pad=[1, 2], mode=reflect"), Error);
}

std::vector<double> values_of(const OpDef& op, std::string_view text,
                              const std::vector<std::vector<double>>& operands = {}) {
  const Sample sample = parse_sample(op, text);
  RefTensors tensors;
  for (size_t i = 0; i < sample.operands.size(); ++i) {
    tensors.emplace_back();
    if (!sample.operands[i]) continue;
    tensors.back() = RefTensor(*sample.operands[i]);
    tensors.back()->data = operands[i];
  }
  const auto types = infer_types(op, sample.attrs, sample.operands);
  return run_reference(op, sample.attrs, tensors, types)[0].data;
}

using Values = std::vector<double>;

TEST(Constants, References) {
  EXPECT_EQ(values_of(arange, "start=2, end=8, step=3"), (Values{2, 5}));
  EXPECT_EQ(values_of(arange, "start=1.0, end=0.0, step=-0.5"), (Values{1, 0.5}));
  EXPECT_EQ(values_of(full, "size=[2], fill_value=2.7, dtype=i64"), (Values{2, 2}));
  EXPECT_EQ(values_of(tril, "x: f32[2, 3], diagonal=-1", {{1, 2, 3, 4, 5, 6}}),
            (Values{0, 0, 0, 4, 0, 0}));
  EXPECT_EQ(values_of(triu, "x: f32[2, 2]", {{1, 2, 3, 4}}), (Values{1, 2, 0, 4}));
  EXPECT_EQ(values_of(cumsum, "x: i64[2, 2], dim=0", {{1, 2, 3, 4}}), (Values{1, 2, 4, 6}));
  EXPECT_EQ(values_of(diff, "x: i64[3], prepend: i64[1]", {{4, 6, 9}, {1}}), (Values{3, 2, 3}));
  EXPECT_EQ(values_of(zero_pad, "x: f32[1], dim=0, before=1, after=2", {{5}}),
            (Values{0, 5, 0, 0}));
  EXPECT_EQ(values_of(keep, "x: f32[1], keep=false", {{5}}), (Values{0}));
}

}  // namespace
}  // namespace shardwright::ops
