// The rule language: binding, sizes, kinds, and what is refused.
#include "ops/rule.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace shardwright::ops {
namespace {

using Types = std::vector<std::optional<TensorType>>;

TensorType f32(Shape shape) { return {DType::kF32, std::move(shape)}; }

int64_t size_of(const Rule& rule, const char* name) {
  const int factor = rule.find_factor(name);
  return factor < 0 ? -1 : rule.factors[static_cast<size_t>(factor)].size;
}

bool can_split(const Rule& rule, const char* name) {
  return rule.splittable(rule.find_factor(name));
}

void expect_error(const char* text, const Types& types, ErrorCode code, const char* part) {
  try {
    bind_rule(text, types);
    ADD_FAILURE() << text << " was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << text;
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(Rule, LinearTakesAnyLeadingDimensions) {
  const Types types{f32({2, 3, 5}), f32({7, 5}), std::nullopt};
  const Rule rule = bind_rule("t... k, m k, m -> t... m; k: sum", types);
  EXPECT_EQ(rule.result_shape(0), (Shape{2, 3, 7}));
  EXPECT_EQ(rule.present, (std::vector<bool>{true, true, false}));
  EXPECT_TRUE(rule.operands[2].empty());
  EXPECT_TRUE(can_split(rule, "t0"));
  EXPECT_TRUE(can_split(rule, "m"));
  EXPECT_EQ(rule.factors[static_cast<size_t>(rule.find_factor("k"))].kind, FactorKind::kSum);
  EXPECT_EQ(Rule::dim_of(rule.operands[1], rule.find_factor("k")), 1);
  EXPECT_EQ(Rule::dim_of(rule.operands[1], rule.find_factor("t0")), -1);
  EXPECT_EQ(bind_rule("t... k, m k, - -> t... m; k: sum", Types{f32({5}), f32({7, 5}), {}})
                .result_shape(0),
            (Shape{7}));
}

TEST(Rule, CompoundsHaveStatedSizesAndSplitAtTheMajorFactor) {
  const Rule rule = bind_rule("b s (h d=64) -> b s h d", Types{f32({2, 16, 576})});
  EXPECT_EQ(rule.result_shape(0), (Shape{2, 16, 9, 64}));
  EXPECT_TRUE(can_split(rule, "h"));
  EXPECT_FALSE(can_split(rule, "d"));
  EXPECT_EQ(Rule::dim_of(rule.operands[0], rule.find_factor("h")), 2);
  EXPECT_EQ(Rule::dim_of(rule.operands[0], rule.find_factor("d")), -1);
  EXPECT_TRUE(rule.contains(rule.operands[0], rule.find_factor("d")));
  EXPECT_EQ(bind_rule("a b -> (a b)", Types{f32({3, 4})}).result_shape(0), (Shape{12}));
}

TEST(Rule, SharedRows) {
  const Rule rule = bind_rule("b h q d, b h/3 k d, b h/3 k e -> b h q e; k d e: whole",
                              Types{f32({1, 9, 4, 8}), f32({1, 3, 5, 8}), f32({1, 3, 5, 6})});
  EXPECT_EQ(rule.result_shape(0), (Shape{1, 9, 4, 6}));
  EXPECT_TRUE(can_split(rule, "h"));
  EXPECT_FALSE(can_split(rule, "k"));
  EXPECT_FALSE(can_split(rule, "b"));  // size 1
  const Rule uneven = bind_rule("h, h/3 -> h", Types{f32({10}), f32({4})});
  EXPECT_EQ(size_of(uneven, "h"), 10);
}

TEST(Rule, SizesThatOperandsDoNotGive) {
  const Rule slice = bind_rule("a b -> a c=3; b c: whole", Types{f32({4, 9})});
  EXPECT_EQ(slice.result_shape(0), (Shape{4, 3}));
  EXPECT_FALSE(can_split(slice, "c"));
  const Rule one_hot = bind_rule("t... -> t... v=11", Types{f32({4})});
  EXPECT_TRUE(can_split(one_hot, "v"));
  EXPECT_EQ(bind_rule("-> a=5 1; a: whole", {}).result_shape(0), (Shape{5, 1}));
  EXPECT_EQ(bind_rule("a b, -> a b", Types{f32({4, 9}), f32({})}).result_shape(0), (Shape{4, 9}));
  EXPECT_EQ(bind_rule("a -> ; a: sum", Types{f32({4})}).result_shape(0), Shape{});
  EXPECT_EQ(bind_rule("->", Types{f32({})}).result_shape(0), Shape{});
}

TEST(Rule, KindsOfAnEllipsisAndOfAbsentOperands) {
  const Rule rule = bind_rule("t..., m -> ; t...: sum; m: whole", Types{f32({2, 3}), {}});
  EXPECT_EQ(rule.factors[0].kind, FactorKind::kSum);
  EXPECT_EQ(rule.factors[1].kind, FactorKind::kSum);
}

TEST(Rule, TwiceInATensorIsNotSplittable) {
  EXPECT_FALSE(can_split(bind_rule("a a -> a", Types{f32({3, 3})}), "a"));
}

TEST(Rule, ShapesThatDoNotFitAreTheUsersErrors) {
  const auto usage = ErrorCode::kUsage;
  expect_error("t k, m k -> t m; k: sum", Types{f32({2, 5}), f32({7, 4})}, usage,
               "operand 1 is f32[7, 4]: dimension 1 has size 4, expected 5");
  expect_error("t k -> t; k: sum", Types{f32({2, 5, 1})}, usage, "expected 2 dimensions");
  expect_error("t... k -> t...; k: sum", Types{f32({})}, usage, "expected at least 1 dimensions");
  expect_error("(h d=4) -> h d", Types{f32({10})}, usage, "expected a multiple of 4");
  expect_error("a 1 -> a", Types{f32({3, 2})}, usage, "expected 1");
  expect_error("h, h/3 -> h", Types{f32({9}), f32({4})}, usage, "expected 3");
  expect_error("t... k, t... -> k; t...: sum", Types{f32({2, 3, 4}), f32({2})}, usage,
               "expected 2 dimensions");
}

TEST(Rule, MalformedTextIsABug) {
  const auto bug = ErrorCode::kBug;
  const Types one{f32({4})};
  expect_error("a", one, bug, "expected '->'");
  expect_error("a -> a; b: whole", one, bug, "unknown factor b");
  expect_error("a -> a; a: half", one, bug, "a kind is sum, max or whole");
  expect_error("a ->", one, bug, "must have a kind");
  expect_error("a -> b", one, bug, "no operand gives the size of b");
  expect_error("2 -> a", one, bug, "must be 1");
  expect_error("a, b -> a", one, bug, "1 operands");
  expect_error("- -> a=3; a: whole", one, bug, "operand 0 is present");
  expect_error("(a b) -> a b", one, bug, "two unknown sizes");
  expect_error("a -> a/2", one, bug, "shared in a result");
  expect_error("a -> a t...", one, bug, "stands in no operand");
  expect_error("a=3 -> a=4", one, bug, "two sizes");
}

TEST(BroadcastRule, FollowsNumPy) {
  const auto rule = [](const Types& types) { return broadcast_rule(types); };
  EXPECT_EQ(rule({f32({2, 3}), f32({3})}), "a0 a1, a1 -> a0 a1");
  EXPECT_EQ(rule({f32({2, 1, 4}), f32({5, 1}), std::nullopt, f32({})}),
            "a0 1 a2, a1 1, -,  -> a0 a1 a2");
  EXPECT_EQ(rule({f32({1, 3})}), "1 a1 -> 1 a1");
  EXPECT_THROW(rule({f32({2}), f32({3})}), Error);
  EXPECT_EQ(
      bind_rule(rule({f32({0, 3}), f32({1, 3})}), Types{f32({0, 3}), f32({1, 3})}).result_shape(0),
      (Shape{0, 3}));
}

}  // namespace
}  // namespace shardwright::ops
