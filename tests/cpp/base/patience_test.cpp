// Patience: a deadline that a stopped process does not use up.
#include "base/patience.h"

#include <gtest/gtest.h>

namespace shardwright {
namespace {

TEST(Patience, EndsAtTheLimit) {
  Patience patience(800, 1000);
  int wakes = 0;
  int64_t now = 1000;
  do {
    EXPECT_EQ(patience.wake_ns(), now + 100);
    now = patience.wake_ns();
    ++wakes;
  } while (!patience.is_spent(now));
  EXPECT_EQ(now, 1800);
  EXPECT_EQ(wakes, 8);
}

TEST(Patience, AStopCostsOneSlice) {
  Patience patience(800, 1000);
  EXPECT_FALSE(patience.is_spent(1'000'000));
  EXPECT_EQ(patience.wake_ns(), 1'000'100);
  EXPECT_FALSE(patience.is_spent(2'000'000));
  for (int64_t now = 2'000'100; now < 2'000'600; now += 100) EXPECT_FALSE(patience.is_spent(now));
  EXPECT_TRUE(patience.is_spent(2'000'600));
}

TEST(Patience, WakesInBetweenCountWhatPassed) {
  Patience patience(800, 0);
  for (int64_t now = 10; now < 800; now += 10) EXPECT_FALSE(patience.is_spent(now));
  EXPECT_EQ(patience.wake_ns(), 800);
  EXPECT_TRUE(patience.is_spent(800));
}

}  // namespace
}  // namespace shardwright
