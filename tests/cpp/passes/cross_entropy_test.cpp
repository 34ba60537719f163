// cross_entropy_loss: what it is expanded into computes the formula, here as the obvious loop.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "ir/interpret.h"
#include "ir/text.h"
#include "passes/canonicalize.h"

namespace shardwright::passes {
namespace {

constexpr int64_t kN = 3, kClasses = 7, kD = 2, kIgnored = 4;
constexpr unsigned kSeed = 7;

// Of the whole graph, in f64. Reductions: 0 none, 1 mean, 2 sum.
std::vector<double> losses(int reduction, const ops::RefTensor& x, const ops::RefTensor& target) {
  const std::string shape = reduction == 0 ? "[3, 2]" : "[]";
  ir::Module module = ir::parse(
      "graph forward {\n  input %x: f32[3, 7, 2] = user_input \"x\"\n"
      "  input %t: i64[3, 2] = user_input \"t\"\n  %y: f32" +
      shape + " = cross_entropy_loss(%x, %t, -) {ignore_index=4, label_smoothing=0.0, reduction=" +
      std::to_string(reduction) + "}\n  output %y = user_output \"y\"\n}\n");
  canonicalize(module);
  return ir::interpret(module, module.graphs[0], {{"x", x}, {"t", target}}, {}).at("y").data;
}

TEST(CrossEntropy, EqualsTheFormula) {
  std::mt19937 random(kSeed);
  ops::RefTensor x({DType::kF32, {kN, kClasses, kD}});
  ops::RefTensor target({DType::kI64, {kN, kD}});
  // So large that exp would overflow without the maximum.
  for (double& value : x.data) value = 900 + static_cast<double>(random() % 17) / 4;
  for (double& value : target.data) value = static_cast<double>(random() % kClasses);
  target.data[1] = target.data[4] = static_cast<double>(kIgnored);
  std::vector<double> each;
  double total = 0, count = 0;
  for (size_t n = 0; n < kN; ++n)
    for (size_t d = 0; d < kD; ++d) {
      const auto at = [&](size_t c) { return x.data[(n * kClasses + c) * kD + d]; };
      const auto wanted = static_cast<size_t>(target.data[n * kD + d]);
      double sum = 0;
      for (size_t c = 0; c < kClasses; ++c) sum += std::exp(at(c) - at(wanted));
      each.push_back(wanted == kIgnored ? 0 : std::log(sum));
      total += each.back();
      count += wanted == kIgnored ? 0 : 1;
    }
  const std::vector<double> got = losses(0, x, target);
  ASSERT_EQ(got.size(), each.size());
  for (size_t i = 0; i < each.size(); ++i) EXPECT_NEAR(got[i], each[i], 1e-12) << i;
  EXPECT_NEAR(losses(1, x, target).at(0), total / count, 1e-12) << "seed " << kSeed;
  EXPECT_NEAR(losses(2, x, target).at(0), total, 1e-12) << "seed " << kSeed;
  EXPECT_GT(count, 0);
  EXPECT_LT(count, kN * kD);
  std::fill(target.data.begin(), target.data.end(), static_cast<double>(kIgnored));
  EXPECT_TRUE(std::isnan(losses(1, x, target).at(0)));
}

}  // namespace
}  // namespace shardwright::passes
