// Elementwise operators: what is particular to them, and fused chains.
#include "ops/elementwise.h"

#include "ops/run_op.h"
#include "ops/table.h"

namespace shardwright::ops {
namespace {

std::string expansion_of(const OpDef& op, std::string_view text) {
  const Sample sample = parse_sample(op, text);
  return op.expansion_for(sample.attrs, sample.operands);
}

// The kernel on operands with the values given.
std::vector<double> run_values(const OpDef& op, std::string_view text,
                               const std::vector<std::vector<double>>& values) {
  const Sample sample = parse_sample(op, text);
  RefTensors operands;
  for (size_t i = 0; i < values.size(); ++i) {
    operands.push_back(RefTensor(*sample.operands[i]));
    operands.back()->data = values[i];
  }
  const auto types = infer_types(op, sample.attrs, sample.operands);
  const auto want = run_reference(op, sample.attrs, operands, types);
  const auto got = run_kernel(op, sample.attrs, operands, types);
  expect_close(got, want);
  return got[0].data;
}

using Values = std::vector<double>;

TEST(Elementwise, IntegersAreExact) {
  EXPECT_EQ(run_values(add, "x: i64[2], other: i64[]", {{1LL << 52, -3}, {1}}),
            (Values{(1LL << 52) + 1, -2}));
  EXPECT_EQ(run_values(bitwise_and, "x: i64[3], other: i64[]", {{12, -1, 7}, {10}}),
            (Values{8, 10, 2}));
  EXPECT_EQ(run_values(floor_divide, "x: i64[3], other: i64[]", {{7, -7, 6}, {2}}),
            (Values{3, -4, 3}));
  EXPECT_EQ(run_values(cast, "x: f32[4], dtype=i64", {{1.9, -1.9, 0.5, 3}}), (Values{1, -1, 0, 3}));
}

TEST(Elementwise, NansAndInfinities) {
  const double nan = NAN;
  const Values maxima = run_values(maximum, "x: f32[3], other: f32[3]", {{nan, 1, 2}, {1, nan, 3}});
  EXPECT_TRUE(std::isnan(maxima[0]) && std::isnan(maxima[1]) && maxima[2] == 3);
  run_values(relu, "x: f32[3]", {{nan, -1, 2}});
  run_values(where, "condition: bool[2], x: f32[2], other: f32[]", {{1, 0}, {3, 4}, {-INFINITY}});
  run_values(eq, "x: f32[2], other: f32[2]", {{nan, 1}, {nan, 1}});
}

TEST(Elementwise, Expansions) {
  EXPECT_EQ(expansion_of(add, "x: f32[3], other: f32[3]"), "");
  EXPECT_EQ(expansion_of(add, "x: f32[3], other: f32[3], alpha=2"), "add(x, mul(other, 2))");
  EXPECT_EQ(expansion_of(rsub, "x: f32[3], other: f32[]"), "sub(other, x)");
  EXPECT_EQ(expansion_of(bitwise_and, "x: bool[3], other: bool[3]"), "logical_and(x, other)");
  EXPECT_EQ(expansion_of(bitwise_and, "x: i64[3], other: i64[3]"), "");
  EXPECT_EQ(expansion_of(type_as, "x: f32[3], other: bf16[]"), "cast(x, dtype=bf16)");
  EXPECT_EQ(expansion_of(div, "x: f32[3], other: f32[], rounding_mode=floor"),
            "floor_divide(x, other)");
  EXPECT_THROW(expansion_of(div, "x: f32[3], other: f32[], rounding_mode=trunc"), Error);
}

OperandSpec contiguous(DType dtype, Shape shape) {
  return {.type = {dtype, shape}, .strides = contiguous_strides(shape)};
}

// A chain gives the same bits as its operators one by one: mul(silu(x), y), and its sum with z.
TEST(Chain, EqualsItsOperatorsOneByOne) {
  std::mt19937 random(3);
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    const TensorType type{dtype, {3, 70}};
    const RefTensor x = random_tensor(type, 0, random);
    const RefTensor y = random_tensor({dtype, {3, 1}}, 0, random);
    const RefTensor z = random_tensor({dtype, {70}}, 0, random);
    const auto one = [&](const OpDef& op, const RefTensors& operands) {
      return run_kernel(op, {}, operands, {type})[0];
    };
    const RefTensor product = one(mul, {one(silu, {x}), y});
    const RefTensor total = one(add, {product, z});

    const Attrs none;
    const std::vector<ChainOp> chain{
        {&silu, &none, dtype, {0}}, {&mul, &none, dtype, {-1, 1}}, {&add, &none, dtype, {-2, 2}}};
    const std::vector<OperandSpec> inputs{contiguous(dtype, {3, 70}), contiguous(dtype, {3, 1}),
                                          contiguous(dtype, {70})};
    const std::vector<int> outputs{2, 1};
    const std::vector<OperandSpec> specs(2, contiguous(dtype, {3, 70}));
    const auto kernel = make_chain_kernel(chain, inputs, outputs, specs);
    std::vector<TestBuffer> buffers;
    for (const RefTensor* tensor : {&x, &y, &z}) {
      buffers.emplace_back(tensor->type, contiguous_strides(tensor->type.shape));
      buffers.back().write(*tensor);
    }
    for (int i = 0; i < 2; ++i) buffers.emplace_back(type, contiguous_strides(type.shape));
    const void* operands[] = {buffers[0].data(), buffers[1].data(), buffers[2].data()};
    void* results[] = {buffers[3].data(), buffers[4].data()};
    Team team(2);
    team.run([&](Member& member) { kernel->run(member, operands, results, nullptr); });
    expect_close({buffers[3].read(), buffers[4].read()}, {total, product}, 0);
  }
}

}  // namespace
}  // namespace shardwright::ops
