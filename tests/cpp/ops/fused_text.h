// Fused steps from a text of their parts, for tests and benches.
//
//   h = add(x: bf16[2, 5, 64], r: bf16[2, 5, 64]); n = rms_norm(h, w: bf16[64], eps=1e-05);
//   a = ~slice(n, dim=2, end=32); y = silu(a) -> h, y
//
// A name with a type is an operand of the step ("w: panels f32[9, 8]" one in panels); "~" makes a
// view without a part; "*" before a name puts its rows apart, "%" its columns; what stands after
// "->" are the step's results.
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "base/check.h"
#include "ops/fused.h"
#include "ops/test_strides.h"

namespace shardwright::ops {

class FusedCase {
 public:
  explicit FusedCase(std::string_view text, int n_threads = 1) : text_(text) {
    spec.n_threads = n_threads;
    const size_t arrow = text.rfind("->");
    CHECK(arrow != std::string_view::npos);
    for (const std::string_view name : split(text.substr(arrow + 2), ','))
      results_.push_back(std::string(name));
    for (const std::string_view statement : split(text.substr(0, arrow), ';')) add(statement);
    CHECK(result_specs.size() == results_.size(), text_);
  }

  FusedSpec spec;
  std::vector<OperandSpec> operand_specs;  // of the step
  std::vector<OperandSpec> result_specs;

 private:
  using Where = FusedValue::Where;

  static std::string_view trim(std::string_view text) {
    while (!text.empty() && (text.front() == ' ' || text.front() == '\n')) text.remove_prefix(1);
    while (!text.empty() && (text.back() == ' ' || text.back() == '\n')) text.remove_suffix(1);
    return text;
  }
  static std::vector<std::string_view> split(std::string_view text, char separator) {
    std::vector<std::string_view> parts;
    int depth = 0;
    size_t begin = 0;
    for (size_t i = 0; i <= text.size(); ++i) {
      if (i < text.size() && (text[i] == '(' || text[i] == '[')) ++depth;
      if (i < text.size() && (text[i] == ')' || text[i] == ']')) --depth;
      if (i < text.size() && (text[i] != separator || depth > 0)) continue;
      if (const auto part = trim(text.substr(begin, i - begin)); !part.empty())
        parts.push_back(part);
      begin = i + 1;
    }
    return parts;
  }
  static TensorType parse_type(std::string_view text) {
    return *parse_sample(*find_op("neg"), "x: " + std::string(text)).operands[0];
  }

  static char take_mark(std::string_view* name) {
    const char mark = name->front();
    if (mark != '*' && mark != '%') return ' ';
    name->remove_prefix(1);
    return mark;
  }
  static Strides strides_of(const Shape& shape, char mark) {
    return test_strides(shape, mark == '%' ? Strided::kAny : Strided::kRows,
                        mark == ' ' ? TestLayout::kContiguous : TestLayout::kStrided);
  }

  FusedValue operand(std::string_view text) {
    if (text == "-") return {};
    const size_t colon = text.find(':');
    if (colon == std::string_view::npos) {
      CHECK(values_.contains(text), std::string(text) + " in " + text_);
      return values_.find(text)->second;
    }
    std::string_view name = trim(text.substr(0, colon));
    std::string_view type = trim(text.substr(colon + 1));
    const char mark = take_mark(&name);
    FusedValue value{
        .where = Where::kOperand, .index = static_cast<int>(operand_specs.size()), .spec = {}};
    if (type.starts_with("panels ")) {
      value.spec.layout = Layout::kPanels;
      type.remove_prefix(7);
    }
    value.spec.type = parse_type(type);
    value.spec.strides = strides_of(value.spec.type.shape, mark);
    operand_specs.push_back(value.spec);
    return values_[std::string(name)] = value;
  }

  void add(std::string_view statement) {
    const size_t equals = statement.find('=');
    std::string_view name = trim(statement.substr(0, equals));
    std::string_view call = trim(statement.substr(equals + 1));
    const bool is_view = call[0] == '~';
    if (is_view) call.remove_prefix(1);
    const size_t open = call.find('(');
    FusedPart part;
    part.op = find_op(call.substr(0, open));
    CHECK(part.op != nullptr, std::string(call));
    for (std::string_view arg : split(call.substr(open + 1, call.size() - open - 2), ',')) {
      const size_t sign = arg.find('=');
      if (sign == std::string_view::npos) {
        part.operands.push_back(operand(arg));
        continue;
      }
      std::string_view value = arg.substr(sign + 1);
      part.attrs.set(trim(arg.substr(0, sign)), parse_attr(value));
    }
    fill_defaults(*part.op, &part.attrs);
    const std::vector<Argument>& arguments = arguments_of(*part.op);
    while (part.operands.size() < arguments.size() &&
           arguments[part.operands.size()].kind == Argument::Kind::kOptionalTensor)
      part.operands.emplace_back();
    std::vector<std::optional<TensorType>> types;
    for (const FusedValue& value : part.operands)
      types.push_back(value.where == Where::kAbsent ? std::nullopt
                                                    : std::optional(value.spec.type));
    const TensorType type = infer_types(*part.op, part.attrs, types)[0];
    if (is_view) return add_view(name, part, type);
    const char mark = take_mark(&name);
    FusedValue value{.spec = {.type = type, .strides = strides_of(type.shape, mark)}};
    const auto result = std::find(results_.begin(), results_.end(), name);
    if (result != results_.end()) {
      value.where = Where::kResult;
      value.index = static_cast<int>(result - results_.begin());
      result_specs.resize(std::max(result_specs.size(), static_cast<size_t>(value.index) + 1));
      result_specs[static_cast<size_t>(value.index)] = value.spec;
    } else {
      value.where = Where::kScratch;
      value.index = static_cast<int>(spec.scratch_bytes.size());
      spec.scratch_bytes.push_back(type.bytes());
    }
    part.results.push_back(value);
    values_[std::string(name)] = value;
    spec.parts.push_back(std::move(part));
  }

  void add_view(std::string_view name, const FusedPart& part, const TensorType& type) {
    FusedValue value = part.operands[0];
    KernelSpec kernel{.op = part.op,
                      .attrs = &part.attrs,
                      .operands = {value.spec},
                      .results = {{.type = type, .strides = contiguous_strides(type.shape)}},
                      .begins = {}};
    int64_t offset = 0;
    CHECK(part.op->view(kernel, part.operands[0].spec.strides, &value.spec.strides, &offset),
          text_);
    value.offset_bytes += offset * dtype_bytes(type.dtype);
    value.spec.type = type;
    values_[std::string(name)] = value;
  }

  std::string text_;
  std::vector<std::string> results_;
  std::map<std::string, FusedValue, std::less<>> values_;
};

}  // namespace shardwright::ops
