// The expression language, by recursive descent; nodes are appended while reading.
#include "passes/expression.h"

#include "base/check.h"

namespace shardwright::passes {
namespace {

using ir::kNoValue;
using ir::ValueId;
using ops::Attr;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_word_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || c == '_';
}

class Builder {
 public:
  Builder(ir::Module& module, ir::Graph& graph, std::string_view text, const Names& operands,
          int source)
      : module_(module),
        graph_(graph),
        all_(text),
        rest_(text),
        names_(operands),
        source_(source) {}

  Built run() {
    std::vector<ValueId> results;
    do results = statement();
    while (take(';') && !at_end());
    check(at_end(), "unexpected text");
    return {std::move(results), std::move(names_)};
  }

 private:
  // An argument of an operator: a value, or a number whose dtype follows from the other arguments.
  struct Operand {
    ValueId value = kNoValue;
    bool is_number = false;
    bool is_integer = false;
    double number = 0;
  };

  void check(bool condition, const std::string& what) const {
    CHECK(condition, what + " at '" + std::string(rest_) + "' in \"" + std::string(all_) + "\"");
  }
  void skip_space() {
    while (!rest_.empty() && (rest_.front() == ' ' || rest_.front() == '\n'))
      rest_.remove_prefix(1);
  }
  bool at_end() {
    skip_space();
    return rest_.empty();
  }
  bool peek(char c) {
    skip_space();
    return !rest_.empty() && rest_.front() == c;
  }
  bool take(char c) {
    if (!peek(c)) return false;
    rest_.remove_prefix(1);
    return true;
  }
  void expect(char c) { check(take(c), std::string("expected '") + c + "'"); }

  // The word here, not removed.
  std::string_view next_word() {
    skip_space();
    size_t length = 0;
    while (length < rest_.size() && is_word_char(rest_[length])) ++length;
    return rest_.substr(0, length);
  }
  std::string word() {
    const std::string_view found = next_word();
    check(!found.empty() && !is_digit(found.front()), "expected a name");
    rest_.remove_prefix(found.size());
    return std::string(found);
  }

  std::vector<ValueId> statement() {
    const std::string_view before = rest_;
    std::vector<std::string> targets;
    if (!next_word().empty() && !is_digit(next_word().front())) {
      do targets.push_back(word());
      while (take(','));
    }
    if (targets.empty() || !take('=')) {
      rest_ = before;  // no assignment: the result
      return result();
    }
    std::vector<ValueId> values = expression();
    check(values.size() >= targets.size(), "fewer results than names");
    for (size_t i = 0; i < targets.size(); ++i) names_[targets[i]] = values[i];
    values.resize(targets.size());
    return values;
  }

  std::vector<ValueId> result() {
    if (!take('(')) return {expression().front()};
    std::vector<ValueId> values;
    do values.push_back(expression().front());
    while (take(','));
    expect(')');
    return values;
  }

  // All results of a node, or the one value of a name.
  std::vector<ValueId> expression() {
    if (take('-')) return {kNoValue};
    const std::string name = word();
    if (peek('(')) return call(name);
    const auto found = names_.find(name);
    check(found != names_.end(), "unknown name " + name);
    return {found->second};
  }

  bool at_number() {
    skip_space();
    if (rest_.empty()) return false;
    const bool negative = rest_.front() == '-';
    const std::string_view digits = rest_.substr(negative ? 1 : 0);
    if (digits.empty()) return false;
    return is_digit(digits.front()) || digits.starts_with("inf");
  }

  Operand operand() {
    if (!at_number()) return {expression().front()};
    const Attr attr = ops::parse_attr(rest_);
    const auto* integer = std::get_if<int64_t>(&attr);
    const double number = integer ? static_cast<double>(*integer) : std::get<double>(attr);
    return {kNoValue, true, integer != nullptr, number};
  }

  // Like a Python number beside tensors: it never changes the dtype of a floating-point result.
  DType number_dtype(const std::vector<Operand>& operands, bool is_integer) const {
    std::optional<DType> scalar;
    bool floating = false;
    for (const Operand& other : operands) {
      if (other.value == kNoValue) continue;
      const TensorType& type = graph_.type(other.value);
      if (!is_floating(type.dtype)) continue;
      if (type.dtype == DType::kF64) return DType::kF64;
      if (type.ndim() == 0 && !scalar) scalar = type.dtype;
      floating |= type.ndim() > 0;
    }
    if (scalar && !floating) return *scalar;
    return floating || !is_integer ? DType::kF32 : DType::kI64;
  }

  std::vector<ValueId> call(const std::string& name) {
    const ops::OpDef* op = ops::find_op(name);
    check(op != nullptr, "unknown operator " + name);
    std::vector<Operand> operands;
    ops::Attrs attrs;
    expect('(');
    while (!take(')')) {
      const std::string_view before = rest_;
      const std::string_view key = next_word();
      rest_.remove_prefix(static_cast<size_t>(key.data() - rest_.data()) + key.size());
      if (!key.empty() && take('=')) {
        attrs.set(key, ops::parse_attr(rest_));
      } else {
        rest_ = before;
        operands.push_back(operand());
      }
      check(take(',') || peek(')'), "expected ',' or ')'");
    }
    std::vector<ValueId> inputs;
    for (const Operand& o : operands)
      inputs.push_back(
          o.is_number ? add_scalar(module_, graph_, number_dtype(operands, o.is_integer), o.number)
                      : o.value);
    ir::append(graph_, *op, std::move(inputs), std::move(attrs), source_);
    return graph_.nodes.back().outputs;
  }

  ir::Module& module_;
  ir::Graph& graph_;
  std::string_view all_;
  std::string_view rest_;
  Names names_;
  int source_;
};

}  // namespace

Built build(ir::Module& module, ir::Graph& graph, std::string_view text, const Names& operands,
            int source) {
  return Builder(module, graph, text, operands, source).run();
}

Names operand_names(const ir::Node& node) {
  Names names;
  size_t next = 0;
  for (const ops::Argument& argument : ops::arguments_of(*node.op)) {
    if (!argument.is_tensor()) continue;
    if (argument.kind == ops::Argument::Kind::kTensors) {
      for (size_t i = 0; next < node.inputs.size(); ++i)
        names[argument.name + std::to_string(i)] = node.inputs[next++];
    } else {
      names[argument.name] = next < node.inputs.size() ? node.inputs[next] : kNoValue;
      ++next;
    }
  }
  return names;
}

}  // namespace shardwright::passes
