// attention: groups of query heads, masks, and the offsets that a chip with some of the heads or
// rows has.
#include "ops/run_op.h"
#include "ops/table.h"

namespace shardwright::ops {
namespace {

TEST(Attention, KernelEqualsReference) { check_samples(attention); }
TEST(Attention, GradientKernelEqualsReference) { check_samples(attention_gradient); }

// More rows than a block, more keys than registers, heads of an odd size, part of a group.
TEST(Attention, GradientOfManyRows) {
  const Sample sample = parse_sample(
      attention_gradient,
      "dy: f32[2, 5, 77, 19], query: f32[2, 5, 77, 13], key: f32[2, 2, 91, 13], value: f32[2, 2, "
      "91, 19], is_causal=true, group=3");
  const RefTensors operands = random_operands(sample, 6);
  std::vector<TensorType> types;
  for (const size_t i : {1, 2, 3}) types.push_back(operands[i]->type);
  const Begins begins{{"h", 4}, {"q", 9}};
  const auto want = run_reference(attention_gradient, sample.attrs, operands, types, begins);
  for (const int threads : {1, 3})
    expect_close(run_kernel(attention_gradient, sample.attrs, operands, types, begins,
                            {.n_threads = threads}),
                 want);
}

// Elements [begin, end) along `dim`.
RefTensor part_of(const RefTensor& whole, size_t dim, int64_t begin, int64_t end) {
  TensorType type = whole.type;
  type.shape[dim] = end - begin;
  RefTensor part(type);
  int64_t inner = 1;
  for (size_t i = dim + 1; i < type.shape.size(); ++i) inner *= type.shape[i];
  for (int64_t i = 0; i < type.count(); ++i) {
    const int64_t row = i / inner;
    const int64_t from =
        row / type.shape[dim] * whole.type.shape[dim] + row % type.shape[dim] + begin;
    part.data[static_cast<size_t>(i)] = whole.data[static_cast<size_t>(from * inner + i % inner)];
  }
  return part;
}

// 9 query heads of 3 KV heads: heads [4, 9) use KV heads [1, 3).
TEST(Attention, UnevenHeadsOfAGroup) {
  const Sample sample = parse_sample(attention, attention.samples[1]);
  const RefTensors whole = random_operands(sample, 3);
  const std::vector<TensorType> types = infer_types(attention, sample.attrs, sample.operands);
  const RefTensor want = run_reference(attention, sample.attrs, whole, types)[0];
  for (const auto& [begin, end, kv_begin, kv_end] :
       {std::array<int64_t, 4>{0, 4, 0, 2}, std::array<int64_t, 4>{4, 9, 1, 3},
        std::array<int64_t, 4>{2, 4, 0, 2}, std::array<int64_t, 4>{5, 5, 0, 0}}) {
    SCOPED_TRACE("heads from " + std::to_string(begin));
    const RefTensors local{part_of(*whole[0], 1, begin, end),
                           part_of(*whole[1], 1, kv_begin, kv_end),
                           part_of(*whole[2], 1, kv_begin, kv_end),
                           {}};
    TensorType type = types[0];
    type.shape[1] = end - begin;
    const Begins begins{{"h", begin}};
    const std::vector<RefTensor> part{part_of(want, 1, begin, end)};
    expect_close(run_reference(attention, sample.attrs, local, {type}, begins), part);
    expect_close(run_kernel(attention, sample.attrs, local, {type}, begins, {.n_threads = 2}),
                 part);
  }
}

TEST(Attention, CausalRowsFromTheMiddle) {
  const Sample sample = parse_sample(attention, attention.samples[1]);
  const RefTensors whole = random_operands(sample, 4);
  const std::vector<TensorType> types = infer_types(attention, sample.attrs, sample.operands);
  const RefTensor want = run_reference(attention, sample.attrs, whole, types)[0];
  RefTensors local = whole;
  local[0] = part_of(*whole[0], 2, 2, 5);
  TensorType type = types[0];
  type.shape[2] = 3;
  const std::vector<RefTensor> part{part_of(want, 2, 2, 5)};
  expect_close(run_reference(attention, sample.attrs, local, {type}, {{"q", 2}}), part);
  expect_close(run_kernel(attention, sample.attrs, local, {type}, {{"q", 2}}, {.n_threads = 2}),
               part);
}

TEST(Attention, RowThatSeesNothingIsZero) {
  const Sample sample = parse_sample(attention, attention.samples[3]);
  RefTensors operands = random_operands(sample, 5);
  std::fill(operands[3]->data.begin(), operands[3]->data.end(), 0.0);
  const std::vector<TensorType> types = infer_types(attention, sample.attrs, sample.operands);
  const std::vector<RefTensor> zeros{RefTensor(types[0])};
  expect_close(run_reference(attention, sample.attrs, operands, types), zeros);
  expect_close(run_kernel(attention, sample.attrs, operands, types), zeros);
}

TEST(Attention, CanonicalFormSaysItsGroup) {
  const auto expansion = [](std::string_view text) {
    const Sample sample = parse_sample(attention, text);
    return attention.expansion_for(sample.attrs, sample.operands);
  };
  EXPECT_EQ(expansion("query: f32[1, 9, 6, 4], key: f32[1, 3, 6, 4], value: f32[1, 3, 6, 4], "
                      "is_causal=true, enable_gqa=true"),
            "attention(query, key, value, -, is_causal=true, group=3)");
  EXPECT_EQ(expansion("query: f32[1, 3, 6, 4], key: f32[1, 3, 6, 4], value: f32[1, 3, 6, 4], "
                      "attn_mask: bool[6, 6], scale=0.5"),
            "attention(query, key, value, attn_mask, scale=0.5, group=1)");
  EXPECT_EQ(expansion(attention.samples[1]), "");
}

TEST(Attention, Refusals) {
  const auto error_of = [](std::string_view text) -> std::string {
    const Sample sample = parse_sample(attention, text);
    try {
      infer_types(attention, sample.attrs, sample.operands);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_EQ(error_of("query: f32[1, 4, 6, 4], key: f32[1, 4, 6, 4], value: f32[1, 4, 6, 4], "
                     "dropout_p=0.1"),
            "attention: dropout_p is 0.1; only 0 is supported: capture the model in eval() mode");
  EXPECT_EQ(error_of("query: f32[1, 4, 6, 4], key: f32[1, 3, 6, 4], value: f32[1, 3, 6, 4], "
                     "enable_gqa=true"),
            "attention: query has 4 heads and key has 3; the first must be the second, or a "
            "multiple with enable_gqa=True");
}

TEST(Attention, FlopsOfBothProducts) {
  const Sample sample = parse_sample(attention, attention.samples[0]);
  const Rule rule = rule_of(attention, sample.attrs, sample.operands);
  EXPECT_EQ(flops_of(attention, sample.attrs, rule), 2.0 * 2 * 3 * 5 * 7 * (8 + 6));
}

}  // namespace
}  // namespace shardwright::ops
