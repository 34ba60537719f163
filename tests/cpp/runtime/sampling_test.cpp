// Sampling: which tokens are left, how often each is drawn, logits that are no numbers.
#include "runtime/sampling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

namespace shardwright::runtime {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

int64_t next(Sampler& sampler, const std::vector<float>& logits) {
  return sampler.next(DType::kF32, logits.data(), std::ssize(logits));
}

TEST(Sampler, DrawsByTheSoftmax) {
  const std::vector<float> logits = {std::log(1.0F), std::log(5.0F), std::log(2.0F), -kInf};
  constexpr int kDraws = 40'000;
  for (const bool top_p : {false, true}) {
    Sampler sampler({.temperature = 1, .top_p = top_p ? 0.8 : 1, .seed = 7});
    std::map<int64_t, int> count;
    for (int i = 0; i < kDraws; ++i) ++count[next(sampler, logits)];
    const double all = top_p ? 7 : 8;  // 5 and 2 of 8 reach 0.8
    EXPECT_NEAR(count[1] / double{kDraws}, 5 / all, 0.01);
    EXPECT_NEAR(count[2] / double{kDraws}, 2 / all, 0.01);
    EXPECT_EQ(count[0] > 0, !top_p);
    EXPECT_EQ(count[3], 0);
  }
}

TEST(Sampler, TopPGoesAsFarAsItMust) {
  const std::vector<float> equal(5000, 1.0F);
  Sampler sampler({.temperature = 1, .top_p = 0.5, .seed = 1});
  int64_t most = 0;
  for (int i = 0; i < 4000; ++i) most = std::max(most, next(sampler, equal));
  EXPECT_LT(most, 2501);  // of equals the first are kept
  EXPECT_GT(most, 2400);
}

TEST(Sampler, InfinityWinsAndNaNLoses) {
  for (const double temperature : {0.0, 1.0}) {
    Sampler sampler({.temperature = temperature, .seed = 3});
    EXPECT_EQ(next(sampler, {1, 2, kInf, 3}), 2);
    EXPECT_EQ(next(sampler, {NAN, -1000, NAN}), 1);
    EXPECT_EQ(next(sampler, {-kInf, -kInf}), 0);
  }
}

}  // namespace
}  // namespace shardwright::runtime
