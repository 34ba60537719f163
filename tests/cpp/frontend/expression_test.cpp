// Size expressions: Python's arithmetic, and clean errors for what is none.
#include "frontend/expression.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace shardwright::frontend {
namespace {

int64_t at(const std::string& text, int64_t s = 7) {
  return evaluate(text, [&](const std::string& symbol) {
    EXPECT_EQ(symbol, "s0");
    return s;
  });
}

constexpr const char* kSymbol = "Symbol('s0', positive=True, integer=True)";

TEST(Expression, ComputesAsPythonDoes) {
  const std::string s = kSymbol;
  EXPECT_EQ(at(s), 7);
  EXPECT_EQ(at("Integer(-3)"), -3);
  EXPECT_EQ(at("Add(Mul(Integer(2), " + s + "), Integer(-1), " + s + ")"), 20);
  EXPECT_EQ(at("FloorDiv(" + s + ", Integer(2))"), 3);
  EXPECT_EQ(at("FloorDiv(Mul(Integer(-1), " + s + "), Integer(2))"), -4);
  EXPECT_EQ(at("Mod(Mul(Integer(-1), " + s + "), Integer(4))"), 1);
  EXPECT_EQ(at("CeilDiv(" + s + ", Integer(2))"), 4);
  EXPECT_EQ(at("Max(Integer(1), " + s + ", Integer(9))"), 9);
  EXPECT_EQ(at("Pow(" + s + ", Integer(2))"), 49);
  EXPECT_EQ(at("And(StrictLessThan(" + s + ", Integer(8)), Not(Equality(" + s + ", Integer(6))))"),
            1);
  EXPECT_EQ(at("true"), 1);
}

TEST(Expression, RefusesWhatIsNone) {
  const auto code_of = [](const std::string& text) {
    try {
      (void)at(text);
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::kBug;
  };
  const std::string whole = std::string("Add(Mul(Integer(2), ") + kSymbol + "), Integer(-1))";
  for (size_t length = 0; length < whole.size(); ++length)
    EXPECT_EQ(code_of(whole.substr(0, length)), ErrorCode::kBrokenFile) << length;
  EXPECT_EQ(code_of(whole + ")"), ErrorCode::kBrokenFile);
  EXPECT_EQ(code_of("Mod(Integer(1), Integer(0))"), ErrorCode::kBrokenFile);
  EXPECT_EQ(code_of("Mul(Integer(4611686018427387904), Integer(2))"), ErrorCode::kBrokenFile);
  EXPECT_EQ(code_of("Integer(9223372036854775808)"), ErrorCode::kBrokenFile);
  EXPECT_EQ(code_of("FloorDiv(Integer(-9223372036854775808), Integer(-1))"),
            ErrorCode::kBrokenFile);
  EXPECT_EQ(code_of("Pow(Integer(1), Integer(-1))"), ErrorCode::kUnsupported);
  EXPECT_EQ(code_of("Log(Integer(1))"), ErrorCode::kUnsupported);
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += "Not(";
  EXPECT_EQ(code_of(deep), ErrorCode::kBrokenFile);
}

}  // namespace
}  // namespace shardwright::frontend
