// One function call inside another, read and computed in one pass.
#include "frontend/expression.h"

#include <algorithm>
#include <cctype>
#include <charconv>

#include <fmt/format.h>

#include "base/checked.h"
#include "base/error.h"

namespace shardwright::frontend {

// Division and remainder round towards minus infinity.
int64_t floor_div(int64_t a, int64_t b) {
  if (b == 0) throw Error(ErrorCode::kBrokenFile, "a size is divided by 0");
  if (b == -1) return checked_mul(a, -1);
  return a / b - (a % b != 0 && (a < 0) != (b < 0) ? 1 : 0);
}

int64_t floor_mod(int64_t a, int64_t b) {
  return checked_add(a, checked_mul(checked_mul(floor_div(a, b), b), -1));
}

int64_t power(int64_t base, int64_t exponent) {
  constexpr int64_t kMostFactors = 64;  // more overflow, but for bases that need none
  if (exponent < 0 || exponent > kMostFactors)
    throw Error(ErrorCode::kUnsupported, fmt::format("a size to the power of {}", exponent));
  int64_t result = 1;
  for (; exponent > 0; --exponent) result = checked_mul(result, base);
  return result;
}

namespace {

// A function of two arguments; of more, where `variadic`, from left to right.
struct Function {
  std::string_view name;
  int64_t (*apply)(int64_t a, int64_t b);
  bool variadic = false;
};

constexpr Function kFunctions[] = {
    {"Add", checked_add, true},
    {"Mul", checked_mul, true},
    {"Max", [](int64_t a, int64_t b) { return std::max(a, b); }, true},
    {"Min", [](int64_t a, int64_t b) { return std::min(a, b); }, true},
    {"And", [](int64_t a, int64_t b) -> int64_t { return a && b; }, true},
    {"Or", [](int64_t a, int64_t b) -> int64_t { return a || b; }, true},
    {"FloorDiv", floor_div},
    {"CleanDiv", floor_div},
    {"CeilDiv", [](int64_t a, int64_t b) { return -floor_div(checked_mul(a, -1), b); }},
    {"Mod", floor_mod},
    {"PythonMod", floor_mod},
    {"Pow", power},
    {"Equality", [](int64_t a, int64_t b) -> int64_t { return a == b; }},
    {"Unequality", [](int64_t a, int64_t b) -> int64_t { return a != b; }},
    {"GreaterThan", [](int64_t a, int64_t b) -> int64_t { return a >= b; }},
    {"LessThan", [](int64_t a, int64_t b) -> int64_t { return a <= b; }},
    {"StrictGreaterThan", [](int64_t a, int64_t b) -> int64_t { return a > b; }},
    {"StrictLessThan", [](int64_t a, int64_t b) -> int64_t { return a < b; }},
};

class Evaluator {
 public:
  Evaluator(std::string_view text,
            const std::function<int64_t(const std::string& symbol)>& value_of)
      : text_(text), value_of_(value_of) {}

  int64_t whole() {
    const int64_t value = expression(0);
    if (at_ != text_.size()) broken("its end");
    return value;
  }

 private:
  [[noreturn]] void broken(const std::string& expected) const {
    throw Error(ErrorCode::kBrokenFile,
                fmt::format("size expression '{}': expected {} at character {}",
                            text_.substr(0, 80), expected, at_));
  }
  char next() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool take(char c) {
    if (next() != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!take(c)) broken(fmt::format("'{}'", c));
  }
  std::string word() {
    (void)next();
    const size_t begin = at_;
    while (at_ < text_.size() &&
           (std::isalnum(static_cast<unsigned char>(text_[at_])) != 0 || text_[at_] == '_'))
      ++at_;
    return std::string(text_.substr(begin, at_ - begin));
  }
  int64_t integer() {
    (void)next();
    int64_t value = 0;
    const char* begin = text_.data() + at_;
    const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), value);
    if (error != std::errc()) broken("an integer");
    at_ += static_cast<size_t>(end - begin);
    return value;
  }
  // 's34', positive=True, integer=True: what else sympy says of it is of no use here.
  int64_t symbol() {
    expect('\'');
    const std::string name = word();
    expect('\'');
    while (take(',')) {
      (void)word();
      expect('=');
      (void)word();
    }
    return value_of_(name);
  }

  int64_t expression(int depth);

  std::string_view text_;
  const std::function<int64_t(const std::string& symbol)>& value_of_;
  size_t at_ = 0;
};

int64_t Evaluator::expression(int depth) {
  constexpr int kMaxDepth = 64;
  if (depth > kMaxDepth) broken(fmt::format("nesting of at most {}", kMaxDepth));
  const std::string name = word();
  if (name == "true") return 1;
  if (name == "false") return 0;
  expect('(');
  int64_t value = 0;
  if (name == "Integer") {
    value = integer();
  } else if (name == "Symbol") {
    value = symbol();
  } else if (name == "Not") {
    value = expression(depth + 1) == 0 ? 1 : 0;
  } else {
    const auto* function = std::find_if(std::begin(kFunctions), std::end(kFunctions),
                                        [&](const Function& f) { return f.name == name; });
    if (function == std::end(kFunctions))
      throw Error(ErrorCode::kUnsupported,
                  fmt::format("the size expression '{}' uses {}, which is not supported; export "
                              "with fixed sizes (without dynamic_shapes)",
                              text_.substr(0, 80), name));
    value = expression(depth + 1);
    expect(',');
    do {
      value = function->apply(value, expression(depth + 1));
    } while (function->variadic && take(','));
  }
  expect(')');
  return value;
}

}  // namespace

int64_t evaluate(std::string_view text,
                 const std::function<int64_t(const std::string& symbol)>& value_of) {
  return Evaluator(text, value_of).whole();
}

}  // namespace shardwright::frontend
