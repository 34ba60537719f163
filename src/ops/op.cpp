// What follows from an OpDef: its arguments, rule, result types, cost; and finding one by name.
#include "ops/op.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <unordered_map>

#include <fmt/ranges.h>

#include "base/check.h"
#include "base/error.h"
#include "base/nearest.h"

namespace shardwright::ops {

namespace {

using Kind = Argument::Kind;

std::string_view trim(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

// Splits at `separator` outside brackets and quotes.
std::vector<std::string_view> split_outside(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  int depth = 0;
  bool in_string = false;
  size_t begin = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '"') in_string = !in_string;
    if (text[i] == '[' || text[i] == '(') ++depth;
    if (text[i] == ']' || text[i] == ')') --depth;
    if (text[i] != separator || depth > 0 || in_string) continue;
    parts.push_back(trim(text.substr(begin, i - begin)));
    begin = i + 1;
  }
  if (!trim(text.substr(begin)).empty() || begin > 0) parts.push_back(trim(text.substr(begin)));
  return parts;
}

Kind parse_kind(std::string_view type) {
  static constexpr std::pair<std::string_view, Kind> kKinds[] = {
      {"tensors", Kind::kTensors}, {"int", Kind::kInt},       {"float", Kind::kFloat},
      {"number", Kind::kNumber},   {"bool", Kind::kBool},     {"str", Kind::kString},
      {"ints", Kind::kInts},       {"floats", Kind::kFloats}, {"dtype", Kind::kDType}};
  for (const auto& [name, kind] : kKinds)
    if (name == type) return kind;
  CHECK(false, "unknown type of an argument: " + std::string(type));
  return Kind::kTensor;
}

Attr parse_default(Kind kind, std::string_view text) {
  if (kind == Kind::kString && !text.starts_with('"') && text != "None") return std::string(text);
  Attr value = parse_attr(text);
  CHECK(trim(text).empty(), "text after a default: " + std::string(text));
  if (const auto* integer = std::get_if<int64_t>(&value); integer && kind == Kind::kFloat)
    return static_cast<double>(*integer);
  return value;
}

Argument parse_argument(std::string_view text) {
  Argument argument;
  const size_t colon = text.find(':');
  std::string_view name = trim(text.substr(0, colon));
  if (colon != std::string_view::npos) {
    std::string_view type = trim(text.substr(colon + 1));
    const size_t equals = type.find('=');
    const std::string_view otherwise =
        equals == std::string_view::npos ? std::string_view() : trim(type.substr(equals + 1));
    type = trim(type.substr(0, equals));
    if (type.ends_with('?')) {
      argument.optional = true;
      type.remove_suffix(1);
    }
    argument.kind = parse_kind(type);
    if (!otherwise.empty()) argument.otherwise = parse_default(argument.kind, otherwise);
    if (argument.optional && !argument.otherwise) argument.otherwise = std::monostate();
  } else if (name.ends_with('?')) {
    argument.kind = Kind::kOptionalTensor;
    argument.optional = true;
    name.remove_suffix(1);
  }
  const size_t bracket = name.find('[');
  argument.name = std::string(name.substr(0, bracket));
  argument.aten_name = bracket == std::string_view::npos
                           ? argument.name
                           : std::string(name.substr(bracket + 1, name.size() - bracket - 2));
  return argument;
}

int category(DType dtype) { return dtype == DType::kBool ? 0 : is_floating(dtype) ? 2 : 1; }

std::optional<DType> promote_all(OperandTypes operands, bool scalars) {
  std::optional<DType> result;
  for (const auto& type : operands)
    if (type && (type->ndim() == 0) == scalars)
      result = result ? promote(*result, type->dtype) : type->dtype;
  return result;
}

// "f32[2, 3]" -> its type; "< 10" behind it -> below.
TensorType parse_sample_type(std::string_view text, int64_t* below) {
  const size_t bracket = text.find('[');
  const size_t end = text.find(']');
  CHECK(bracket != std::string_view::npos && end != std::string_view::npos, std::string(text));
  const auto dtype = parse_dtype(text.substr(0, bracket));
  CHECK(dtype.has_value(), std::string(text));
  std::string_view sizes = text.substr(bracket, end + 1 - bracket);
  *below = 0;
  std::string_view rest = trim(text.substr(end + 1));
  if (rest.starts_with('<')) {
    rest.remove_prefix(1);
    *below = std::get<int64_t>(parse_attr(rest));
  }
  return {*dtype, std::get<std::vector<int64_t>>(parse_attr(sizes))};
}

// make(), with the operator's name before the message of an Error.
template <typename Make>
auto within_op(const OpDef& op, Make make) {
  try {
    return make();
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kBug) throw;
    throw error.within(op.name);
  }
}

const Argument& argument_named(const OpDef& op, std::string_view name) {
  for (const Argument& argument : arguments_of(op))
    if (argument.name == name) return argument;
  CHECK(false, std::string(op.name) + " has no argument " + std::string(name));
  return arguments_of(op)[0];
}

}  // namespace

const std::vector<Argument>& arguments_of(const OpDef& op) {
  static std::mutex mutex;
  static std::map<const OpDef*, std::vector<Argument>> parsed;  // references stay valid
  const std::lock_guard lock(mutex);
  const auto [entry, is_new] = parsed.try_emplace(&op);
  if (is_new)
    for (std::string_view text : split_outside(op.arguments, ','))
      entry->second.push_back(parse_argument(text));
  return entry->second;
}

void fill_defaults(const OpDef& op, Attrs* attrs) {
  for (const Argument& argument : arguments_of(op))
    if (argument.otherwise && !std::holds_alternative<std::monostate>(*argument.otherwise) &&
        attrs->find(argument.name) == nullptr)
      attrs->set(argument.name, *argument.otherwise);
}

const OpDef* find_op(std::string_view name) {
  static const auto* by_name = [] {
    auto* ops = new std::unordered_map<std::string_view, const OpDef*>;  // lives to the end
    for (const OpDef* op : all_ops()) {
      CHECK(ops->emplace(op->name, op).second, std::string("two operators named ") + op->name);
      for (std::string_view alias : op->aliases)
        CHECK(ops->emplace(alias, op).second, "two operators named " + std::string(alias));
    }
    return ops;
  }();
  const auto found = by_name->find(name);
  return found == by_name->end() ? nullptr : found->second;
}

std::string nearest_op(std::string_view name) {
  constexpr size_t kNames = 3;
  std::vector<std::string> names;
  for (const OpDef* op : all_ops()) {
    names.emplace_back(op->name);
    names.insert(names.end(), op->aliases.begin(), op->aliases.end());
  }
  return fmt::format("{}", fmt::join(nearest_names(name, std::move(names), kNames), ", "));
}

std::string rule_text(const OpDef& op, const Attrs& attrs, OperandTypes operands) {
  if (op.rule_for != nullptr) return op.rule_for(attrs, operands);
  CHECK(op.rule != nullptr, std::string(op.name) + " has no rule");
  return op.rule;
}

Rule rule_of(const OpDef& op, const Attrs& attrs, OperandTypes operands) {
  return within_op(op, [&] { return bind_rule(rule_text(op, attrs, operands), operands); });
}

// PyTorch's result_type: operands without dimensions count only where they are of a higher category
// (bool < integer < float) than those with dimensions.
DType promoted_dtype(OperandTypes operands) {
  const auto with_dims = promote_all(operands, false);
  const auto scalars = promote_all(operands, true);
  if (!with_dims) return scalars.value_or(DType::kF32);
  if (!scalars || category(*with_dims) >= category(*scalars)) return *with_dims;
  return promote(*with_dims, *scalars);
}

std::vector<TensorType> infer_types(const OpDef& op, const Attrs& attrs, OperandTypes operands) {
  const Rule rule = rule_of(op, attrs, operands);
  std::vector<DType> dtypes;
  if (op.result_dtypes != nullptr) {
    dtypes = within_op(op, [&] { return op.result_dtypes(attrs, operands); });
  } else {
    dtypes.assign(rule.results.size(), promoted_dtype(operands));
  }
  CHECK(dtypes.size() == rule.results.size(), std::string(op.name) + ": a dtype for each result");
  std::vector<TensorType> types;
  for (size_t i = 0; i < rule.results.size(); ++i)
    types.push_back({dtypes[i], rule.result_shape(static_cast<int>(i))});
  return types;
}

double flops_of(const OpDef& op, const Attrs& attrs, const Rule& rule) {
  if (op.flops != nullptr) return op.flops(attrs, rule);
  double flops = 0;
  for (size_t i = 0; i < rule.results.size(); ++i)
    flops += static_cast<double>(element_count(rule.result_shape(static_cast<int>(i))));
  return flops;
}

Sample parse_sample(const OpDef& op, std::string_view text) {
  Sample sample;
  const auto& arguments = arguments_of(op);
  size_t next = 0;  // argument that the next tensor may be
  for (std::string_view part : split_outside(text, ',')) {
    const size_t mark = part.find_first_of(":=");
    CHECK(mark != std::string_view::npos, std::string(text));
    const Argument& argument = argument_named(op, trim(part.substr(0, mark)));
    std::string_view value = trim(part.substr(mark + 1));
    if (!argument.is_tensor()) {
      sample.attrs.set(argument.name, parse_default(argument.kind, value));
      continue;
    }
    for (; &arguments[next] != &argument; ++next) {
      CHECK(arguments[next].kind == Kind::kOptionalTensor, "missing operand: " + std::string(text));
      sample.operands.emplace_back();
      sample.below.push_back(0);
    }
    sample.below.push_back(0);
    sample.operands.emplace_back(parse_sample_type(value, &sample.below.back()));
    if (argument.kind != Kind::kTensors) ++next;
  }
  for (; next < arguments.size() && arguments[next].kind == Kind::kOptionalTensor; ++next) {
    sample.operands.emplace_back();
    sample.below.push_back(0);
  }
  fill_defaults(op, &sample.attrs);
  return sample;
}

}  // namespace shardwright::ops
