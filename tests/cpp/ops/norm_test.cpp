// rms_norm, layer_norm, softmax, log_softmax.
#include "ops/run_op.h"
#include "ops/table.h"

namespace shardwright::ops {
namespace {

TEST(Norm, KernelsEqualReferences) {
  for (const OpDef* op : {&rms_norm, &layer_norm, &softmax}) check_samples(*op);
}

std::string expansion_of(const OpDef& op, std::string_view text) {
  const Sample sample = parse_sample(op, text);
  return op.expansion_for(sample.attrs, sample.operands);
}

TEST(Norm, CanonicalFormHasNoShape) {
  EXPECT_EQ(expansion_of(layer_norm,
                         "x: f32[2, 3, 4], weight: f32[4], bias: f32[4], normalized_shape=[4]"),
            "layer_norm(x, weight, bias, eps=1e-05)");
  EXPECT_EQ(
      expansion_of(layer_norm, "x: f32[2, 3, 4], weight: f32[3, 4], normalized_shape=[3, 4]"),
      "reshape(layer_norm(reshape(x, shape=[2, 12]), reshape(weight, shape=[12]), -, eps=1e-05), "
      "shape=[2, 3, 4])");
  EXPECT_EQ(expansion_of(rms_norm, "x: bf16[2, 4], normalized_shape=[4]"),
            "rms_norm(x, -, eps=0.0078125, round_before_weight=false, weight_plus_one=false)");
  EXPECT_EQ(expansion_of(rms_norm, rms_norm.samples[0]), "");
}

TEST(Norm, RefusesAnotherShape) {
  const Sample sample = parse_sample(layer_norm, "x: f32[2, 3, 4], normalized_shape=[3]");
  try {
    infer_types(layer_norm, sample.attrs, sample.operands);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(),
                 "layer_norm: normalized_shape is [3], but x is f32[2, 3, 4]; it must be the last "
                 "sizes of x");
  }
}

TEST(Softmax, CanonicalFormIsOverTheLastDimension) {
  EXPECT_EQ(expansion_of(softmax, "x: f32[2, 3, 4], dim=-1"), "");
  EXPECT_EQ(expansion_of(softmax, "x: bf16[2, 3, 4], dim=2, dtype=f32"), "");
  EXPECT_EQ(expansion_of(softmax, "x: f32[2, 3, 4], dim=0"),
            "permute(softmax(permute(x, dims=[2, 1, 0]), dim=-1), dims=[2, 1, 0])");
  EXPECT_EQ(expansion_of(softmax, "x: f32[2, 4], dim=-1, dtype=bf16"),
            "softmax(_to_copy(x, dtype=bf16), dim=-1)");
}

TEST(LogSoftmax, IsInF32) {
  EXPECT_EQ(expansion_of(log_softmax, "x: bf16[2, 4], dim=-1"),
            "a = _to_copy(x, dtype=f32); y = sub(a, amax(a, dim=[-1], keepdim=true)); "
            "_to_copy(sub(y, log(sum(exp(y), dim=[-1], keepdim=true))), dtype=bf16)");
}

}  // namespace
}  // namespace shardwright::ops
