// cross_entropy_loss: its types, what it is expanded into, what it refuses.
#include <gtest/gtest.h>

#include "base/error.h"
#include "ops/op.h"
#include "ops/table.h"

namespace shardwright::ops {
namespace {

std::string message_of(std::string_view text) {
  const Sample sample = parse_sample(cross_entropy_loss, text);
  try {
    infer_types(cross_entropy_loss, sample.attrs, sample.operands);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

std::string result_of(std::string_view text) {
  const Sample sample = parse_sample(cross_entropy_loss, text);
  return to_string(infer_types(cross_entropy_loss, sample.attrs, sample.operands).at(0));
}

TEST(CrossEntropy, Types) {
  EXPECT_EQ(result_of("x: f32[5, 37], target: i64[5]"), "f32[]");
  EXPECT_EQ(result_of("x: bf16[5, 37], target: i64[5], reduction=2"), "bf16[]");
  EXPECT_EQ(result_of("x: f32[5, 37, 2, 1], target: i64[5, 2, 1], reduction=0"), "f32[5, 2, 1]");
  EXPECT_EQ(result_of("x: f64[37], target: i32[], reduction=0"), "f64[]");
}

TEST(CrossEntropy, Refuses) {
  EXPECT_EQ(message_of("x: f32[5, 37], target: f32[5, 37]"),
            "cross_entropy_loss: target is f32[5, 37], which are probabilities of classes; give "
            "the index of a class, as i64");
  EXPECT_EQ(message_of("x: f32[5, 37], target: i64[5], weight: f32[37]"),
            "cross_entropy_loss: weight is f32[37]; weights of classes are not supported yet: "
            "leave weight out");
  EXPECT_EQ(message_of("x: f32[5, 37], target: i64[5], label_smoothing=0.1"),
            "cross_entropy_loss: label_smoothing is 0.1; only 0.0 is supported yet");
  EXPECT_EQ(message_of("x: f32[5, 37], target: i64[5], reduction=3"),
            "cross_entropy_loss: reduction is 3; it may be 0 (none), 1 (mean) or 2 (sum)");
  EXPECT_EQ(message_of("x: f32[5, 37], target: i64[5, 1]"),
            "cross_entropy_loss: x is f32[5, 37] and target i64[5, 1]; with x of f32[N, C, d...] "
            "target must be i64[N, d...]");
}

TEST(CrossEntropy, ComputesInF32AndPutsTheClassesLast) {
  const Sample sample =
      parse_sample(cross_entropy_loss, "x: bf16[2, 9, 3], target: i64[2, 3], ignore_index=4");
  EXPECT_EQ(cross_entropy_loss.expansion_for(sample.attrs, sample.operands),
            "a = permute(x, dims=[0, 2, 1]); c = unsqueeze(target, dim=-1); counts = ne(c, 4); "
            "w = _to_copy(a, dtype=f32); m = detach(amax(w, dim=[-1], keepdim=true)); "
            "s = log(sum(exp(sub(w, m)), dim=[-1], keepdim=true)); "
            "p = _to_copy(gather(a, c, dim=-1), dtype=f32); "
            "l = where(counts, sub(s, sub(p, m)), 0.0); "
            "_to_copy(div(sum(l), sum(_to_copy(counts, dtype=f32))), dtype=bf16)");
}

}  // namespace
}  // namespace shardwright::ops
