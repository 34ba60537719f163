// The choice of the instruction set.
#include "kernels/cpu/isa.h"

#include <gtest/gtest.h>

namespace shardwright::kernels {
namespace {

TEST(Isa, PortableIsAlwaysThereAndTheOrderRises) {
  const std::vector<Isa> isas = available_isas();
  ASSERT_FALSE(isas.empty());
  for (size_t i = 0; i < isas.size(); ++i) EXPECT_EQ(static_cast<size_t>(isas[i]), i);
}

TEST(Isa, ForcingHoldsUntilItIsEnded) {
  const Isa before = active_isa();
  for (const Isa isa : available_isas()) {
    force_isa(isa);
    EXPECT_EQ(active_isa(), isa) << isa_name(isa);
  }
  force_isa(std::nullopt);
  EXPECT_EQ(active_isa(), before);
}

}  // namespace
}  // namespace shardwright::kernels
