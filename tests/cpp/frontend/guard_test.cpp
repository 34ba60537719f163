// Guards: Python's precedence, and refusal of what is not understood.
#include "frontend/guard.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace shardwright::frontend {
namespace {

// x: sizes 7 and 4; y: 3.
bool holds(const std::string& guard) {
  return guard_holds(guard, [](const std::string& input, int64_t dim) -> int64_t {
    return input == "y" ? 3 : dim == 0 ? 7 : 4;
  });
}

constexpr const char* kTrue[] = {
    "((L['y'].size()[0] + 2*L['x'].size()[0]) % 5) == 2",
    "L['y'].size()[0] + L['x'].size()[1] != 9",
    "2 + 3 * 4 == 14",
    "10 - 3 - 2 == 5",
    "2 * 3 ** 2 == 18",
    "2 ** 3 ** 2 == 512",
    "-2 ** 2 == -4",
    "-7 // 2 == -4",
    "-7 % 4 == 1",
    "17 // 3 % 4 == 1",
    "not 1 == 2 and 3 <= 3 or 1 > 2",
    "1 == 1 or 1 == 2 and 1 == 3",
    "max(L['x'].size()[1], 9, 2) == 9",
    "min(5, 2 * 4) >= 5",
    "(1 < 2) == (3 < 4)",
};

TEST(Guard, HoldsAsInPython) {
  for (const char* guard : kTrue) {
    EXPECT_TRUE(holds(guard)) << guard;
    EXPECT_FALSE(holds(std::string("not (") + guard + ")")) << guard;
  }
}

TEST(Guard, RefusesWhatIsNotUnderstood) {
  std::string deep(100'000, '(');
  for (const std::string& guard :
       {std::string(""), std::string("1 +"), std::string("1 2"), std::string("(1"),
        std::string("1 < 2 < 3"), std::string("math.sqrt(4) == 2"), std::string("8 / 2 == 4"),
        std::string("L['x'].stride()[0] == 1"), std::string("L['a']['b'].size()[0] == 1"),
        std::string("L['x"), std::string("L['x'].size()[0"), deep}) {
    try {
      (void)holds(guard);
      ADD_FAILURE() << guard;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUnsupported) << guard;
    }
  }
}

}  // namespace
}  // namespace shardwright::frontend
