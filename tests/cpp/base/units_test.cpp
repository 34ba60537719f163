// Units: what people read.
#include "base/units.h"

#include <gtest/gtest.h>

namespace shardwright {
namespace {

TEST(Units, CountsTakeTheirPlural) {
  EXPECT_EQ(count_text(1, "chip"), "1 chip");
  EXPECT_EQ(count_text(0, "chip"), "0 chips");
  EXPECT_EQ(count_text(2, "match"), "2 matches");
}

}  // namespace
}  // namespace shardwright
