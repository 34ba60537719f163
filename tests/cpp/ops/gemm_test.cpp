// linear, matmul and what is written with them.
#include "ops/run_op.h"
#include "ops/table.h"

namespace shardwright::ops {
namespace {

TEST(Linear, KernelEqualsReference) { check_samples(linear); }
TEST(LinearInt8, KernelEqualsReference) { check_samples(linear_int8); }
TEST(Matmul, KernelEqualsReference) { check_samples(matmul); }

std::string expansion_of(const OpDef& op, std::string_view text) {
  const Sample sample = parse_sample(op, text);
  return op.expansion_for(sample.attrs, sample.operands);
}

// The message of the Error that infer_types throws for the sample.
std::string error_of(const OpDef& op, std::string_view text) {
  const Sample sample = parse_sample(op, text);
  try {
    infer_types(op, sample.attrs, sample.operands);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

Shape shape_of(const OpDef& op, std::string_view text) {
  const Sample sample = parse_sample(op, text);
  return infer_types(op, sample.attrs, sample.operands)[0].shape;
}

TEST(Linear, EmptyPiecesGiveEmptyOrZero) {
  const auto run = [](int64_t m, int64_t n, int64_t k) {
    const RefTensors operands{
        RefTensor({DType::kF32, {m, k}}), RefTensor({DType::kF32, {n, k}}), {}};
    return run_kernel(linear, {}, operands, {{DType::kF32, {m, n}}}, {}, {.n_threads = 2})[0].data;
  };
  EXPECT_EQ(run(0, 3, 4).size(), 0U);
  EXPECT_EQ(run(3, 0, 4).size(), 0U);
  EXPECT_EQ(run(2, 3, 0), std::vector<double>(6, 0.0));  // a part of a sum that has no terms
}

TEST(Linear, BiasIsAddedOutside) {
  EXPECT_EQ(expansion_of(linear, "x: f32[2, 3], weight: f32[4, 3], bias: f32[4]"),
            "add(linear(x, weight, -), bias)");
  EXPECT_EQ(expansion_of(linear, "x: f32[2, 3], weight: f32[4, 3]"), "");
  EXPECT_EQ(shape_of(linear, "x: f32[2, 3], weight: f32[4, 3], bias: f32[4]"), (Shape{2, 4}));
}

TEST(Linear, RefusesMixedTypes) {
  EXPECT_EQ(error_of(linear, "x: f32[2, 3], weight: bf16[4, 3]"),
            "linear: operand weight is bf16[4, 3], but x is f32[2, 3]; all must be of one type: "
            "cast one of them");
}

TEST(LinearInt8, RefusesOtherTypes) {
  EXPECT_EQ(error_of(linear_int8, "x: f32[2, 3], weight: f32[4, 3], scale: f32[4]"),
            "linear_int8: weight is f32[4, 3] and scale f32[4]; they must be i8 and f32");
}

TEST(Matmul, ShapesOfVectorsAndBatches) {
  EXPECT_EQ(shape_of(matmul, "x: f32[5], other: f32[5]"), (Shape{}));
  EXPECT_EQ(shape_of(matmul, "x: f32[2, 3, 5], other: f32[5]"), (Shape{2, 3}));
  EXPECT_EQ(shape_of(matmul, "x: f32[5], other: f32[2, 5, 7]"), (Shape{2, 7}));
  EXPECT_EQ(shape_of(matmul, "x: f32[4, 1, 3, 5], other: f32[2, 5, 7]"), (Shape{4, 2, 3, 7}));
  EXPECT_EQ(shape_of(baddbmm, "bias: f32[7], batch1: f32[2, 3, 5], batch2: f32[2, 5, 7]"),
            (Shape{2, 3, 7}));
}

TEST(Matmul, MatrixOperandIsLinear) {
  EXPECT_EQ(expansion_of(matmul, "x: f32[2, 3, 5], other: f32[5, 7]"),
            "linear(x, permute(other, dims=[1, 0]), -)");
  EXPECT_EQ(expansion_of(matmul, "x: f32[5], other: f32[2, 5, 7]"),
            "reshape(matmul(reshape(x, shape=[1, 5]), other), shape=[2, 7])");
  EXPECT_EQ(expansion_of(matmul, "x: f32[2, 3, 5], other: f32[5]"),
            "reshape(linear(x, reshape(other, shape=[1, 5]), -), shape=[2, 3])");
}

TEST(Addmm, ScalesOnlyWhereAsked) {
  EXPECT_EQ(expansion_of(addmm, "bias: f32[7], mat1: f32[3, 5], mat2: f32[5, 7]"),
            "add(linear(mat1, permute(mat2, dims=[1, 0]), -), bias)");
  EXPECT_EQ(expansion_of(addmm, "bias: f32[7], mat1: f32[3, 5], mat2: f32[5, 7], beta=0, alpha=2"),
            "mul(linear(mat1, permute(mat2, dims=[1, 0]), -), 2)");
  EXPECT_EQ(expansion_of(baddbmm, baddbmm.samples[0]),
            "add(mul(matmul(batch1, batch2), 0.25), bias)");
}

TEST(Conv2d, IsALinearOverPatches) {
  EXPECT_EQ(shape_of(conv2d, conv2d.samples[0]), (Shape{2, 5, 2, 3}));
  EXPECT_EQ(shape_of(conv2d, conv2d.samples[1]), (Shape{1, 5, 4, 2}));
  EXPECT_NE(expansion_of(conv2d, conv2d.samples[1]).find("slice(x, dim=2, start=0, end=8)"),
            std::string::npos);
}

TEST(Conv2d, SaysWhatIsSupported) {
  EXPECT_EQ(error_of(conv2d, "x: f32[1, 3, 8, 8], weight: f32[5, 3, 3, 3], padding=[1, 1]"),
            "conv2d: kernel [3, 3], stride [1, 1], padding [1, 1], dilation [1, 1], groups 1; "
            "supported: patches that do not overlap, that is stride [3, 3], padding [0, 0], "
            "dilation [1, 1], groups 1");
}

}  // namespace
}  // namespace shardwright::ops
