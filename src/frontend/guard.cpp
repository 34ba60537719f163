// Precedence climbing over Python's operators.
#include "frontend/guard.h"

#include <algorithm>
#include <cctype>
#include <charconv>

#include <fmt/format.h>

#include "base/checked.h"
#include "base/error.h"
#include "frontend/expression.h"

namespace shardwright::frontend {
namespace {

struct Operator {
  std::string_view symbol;
  int precedence;
  int64_t (*apply)(int64_t a, int64_t b);
};

constexpr int kNot = 3, kComparison = 4, kMinus = 7, kPower = 8;

// What starts as another one does stands before it.
constexpr Operator kOperators[] = {
    {"or ", 1, [](int64_t a, int64_t b) -> int64_t { return a || b; }},
    {"and ", 2, [](int64_t a, int64_t b) -> int64_t { return a && b; }},
    {"==", kComparison, [](int64_t a, int64_t b) -> int64_t { return a == b; }},
    {"!=", kComparison, [](int64_t a, int64_t b) -> int64_t { return a != b; }},
    {"<=", kComparison, [](int64_t a, int64_t b) -> int64_t { return a <= b; }},
    {">=", kComparison, [](int64_t a, int64_t b) -> int64_t { return a >= b; }},
    {"<", kComparison, [](int64_t a, int64_t b) -> int64_t { return a < b; }},
    {">", kComparison, [](int64_t a, int64_t b) -> int64_t { return a > b; }},
    {"+", 5, checked_add},
    {"-", 5, [](int64_t a, int64_t b) { return checked_add(a, checked_mul(b, -1)); }},
    {"**", kPower, power},
    {"*", 6, checked_mul},
    {"//", 6, floor_div},
    {"%", 6, floor_mod},
};

class Guard {
 public:
  Guard(std::string_view text,
        const std::function<int64_t(const std::string& input, int64_t dim)>& size_of)
      : text_(text), size_of_(size_of) {}

  bool holds() {
    const int64_t value = expression(0, 0);
    if (!rest().empty()) unknown();
    return value != 0;
  }

 private:
  [[noreturn]] void unknown() const {
    throw Error(
        ErrorCode::kUnsupported,
        fmt::format("the file demands {} of the sizes, which can't be checked here", text_));
  }
  std::string_view rest() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
    return text_.substr(at_);
  }
  bool take(std::string_view token) {
    if (!rest().starts_with(token)) return false;
    at_ += token.size();
    return true;
  }
  void expect(std::string_view token) {
    if (!take(token)) unknown();
  }
  int64_t integer() {
    const std::string_view digits = rest();
    int64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc()) unknown();
    at_ += static_cast<size_t>(end - digits.data());
    return value;
  }
  // L['x'].size()[0]
  int64_t size() {
    const size_t end = rest().find('\'');
    if (end == std::string_view::npos) unknown();
    const std::string input(rest().substr(0, end));
    at_ += end;
    expect("'].size()[");
    const int64_t dim = integer();
    expect("]");
    return size_of_(input, dim);
  }
  int64_t operand(int depth) {
    if (take("not ")) return expression(kNot, depth + 1) == 0 ? 1 : 0;
    if (take("-")) return checked_mul(expression(kMinus, depth + 1), -1);
    if (take("L['")) return size();
    for (const bool most : {true, false})
      if (take(most ? "max(" : "min(")) {
        int64_t value = expression(0, depth + 1);
        while (take(",")) {
          const int64_t other = expression(0, depth + 1);
          value = most ? std::max(value, other) : std::min(value, other);
        }
        expect(")");
        return value;
      }
    if (!take("(")) return integer();
    const int64_t value = expression(0, depth + 1);
    expect(")");
    return value;
  }
  int64_t expression(int least, int depth);

  std::string_view text_;
  const std::function<int64_t(const std::string& input, int64_t dim)>& size_of_;
  size_t at_ = 0;
};

// Operators that bind at least as strongly as `least`.
int64_t Guard::expression(int least, int depth) {
  constexpr int kMaxDepth = 64;
  if (depth > kMaxDepth) unknown();
  int64_t value = operand(depth);
  bool compared = false;
  for (;;) {
    const std::string_view here = rest();
    const auto* op = std::find_if(std::begin(kOperators), std::end(kOperators),
                                  [&](const Operator& o) { return here.starts_with(o.symbol); });
    if (op == std::end(kOperators) || op->precedence < least) return value;
    if (op->precedence == kComparison && compared) unknown();  // a < b < c means something else
    compared = op->precedence == kComparison;
    (void)take(op->symbol);
    const bool from_the_right = op->precedence == kPower;
    const int64_t right = expression(op->precedence + (from_the_right ? 0 : 1), depth + 1);
    value = op->apply(value, right);
  }
}

}  // namespace

bool guard_holds(std::string_view guard,
                 const std::function<int64_t(const std::string& input, int64_t dim)>& size_of) {
  return Guard(guard, size_of).holds();
}

}  // namespace shardwright::frontend
