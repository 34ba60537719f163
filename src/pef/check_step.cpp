// The checks of one operator.
#include "pef/check_step.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace shardwright::pef {
namespace {

// Operators whose rule must fit on a chip's own pieces as it does on whole tensors: those with one
// text. (A rule made from attributes speaks of whole tensors: 5 of 9 heads need not share KV heads
// as 9 do.)
bool rule_holds_locally(const ops::OpDef& op) {
  return op.elementwise || (op.rule != nullptr && op.rule_for == nullptr &&
                            std::string_view(op.rule).find('/') == std::string_view::npos);
}

bool kind_fits(ops::Argument::Kind kind, const ops::Attr& attr) {
  using Kind = ops::Argument::Kind;
  const auto is = [&]<typename T>(T) { return std::holds_alternative<T>(attr); };
  switch (kind) {
    case Kind::kInt:
      return is(int64_t{});
    case Kind::kFloat:
    case Kind::kNumber:
      return is(int64_t{}) || is(double{}) || is(bool{});
    case Kind::kBool:
      return is(bool{});
    case Kind::kString:
      return is(std::string{});
    case Kind::kInts:
      return is(std::vector<int64_t>{});
    case Kind::kFloats:
      return is(std::vector<double>{});
    case Kind::kDType:
      return is(DType{});
    default:
      return false;
  }
}

// From the smallest stride up, each is longer than all that lies within it.
bool elements_are_apart(const Buffer& buffer) {
  std::vector<std::pair<int64_t, int64_t>> dims;  // stride, size
  for (size_t d = 0; d < buffer.strides.size(); ++d) {
    if (buffer.type.shape[d] == 0) return true;
    if (buffer.type.shape[d] > 1) dims.emplace_back(buffer.strides[d], buffer.type.shape[d]);
  }
  std::sort(dims.begin(), dims.end());
  int64_t last = 0;  // element; byte_range has shown that 64 bits hold it
  for (const auto& [stride, size] : dims) {
    if (stride <= last) return false;
    last += stride * (size - 1);
  }
  return true;
}

}  // namespace

void broken(const std::string& message) { throw Error(ErrorCode::kBrokenFile, message); }

void check_arguments(const ops::OpDef& op, const Step& step) {
  size_t tensors = 0;
  bool list = false;
  for (const ops::Argument& argument : ops::arguments_of(op)) {
    if (argument.kind == ops::Argument::Kind::kTensors) list = true;
    if (argument.kind == ops::Argument::Kind::kTensor &&
        (tensors >= step.operands.size() || step.operands[tensors].space == Space::kNone))
      broken("operand " + argument.name + " is missing");
    if (argument.is_tensor()) {
      ++tensors;
      continue;
    }
    const ops::Attr* attr = step.attrs.find(argument.name);
    const bool none = attr == nullptr || std::holds_alternative<std::monostate>(*attr);
    if (!none && !kind_fits(argument.kind, *attr))
      broken("attribute " + argument.name + " is " + ops::to_string(*attr));
  }
  if (step.results.empty() || (!list && step.operands.size() > tensors))
    broken(fmt::format("it has {} operands and {} results", step.operands.size(),
                       step.results.size()));
  for (const auto& [factor, begin] : step.begins)
    if (begin < 0) broken(fmt::format("factor {} begins at {}", factor, begin));
}

void check_operator(const Step& step) {
  const ops::OpDef* op = ops::find_op(step.op);
  if (op == nullptr || step.op != op->name || op->make_kernel == nullptr)
    broken("this version can't run operator '" + step.op + "'");
  check_arguments(*op, step);
}

void check_rule(const Step& step) {
  const ops::OpDef& op = *ops::find_op(step.op);
  std::vector<std::optional<TensorType>> operands;
  for (const Buffer& buffer : step.operands) {
    if (buffer.space == Space::kNone)
      operands.emplace_back();
    else
      operands.emplace_back(buffer.type);
    if (buffer.space != Space::kNone && buffer.type.count() == 0) return;
  }
  if (!rule_holds_locally(op)) return;
  size_t tensors = 0;
  for (const ops::Argument& argument : ops::arguments_of(op)) tensors += argument.is_tensor();
  operands.resize(std::max(tensors, operands.size()));
  const std::vector<TensorType> types = ops::infer_types(op, step.attrs, operands);
  if (types.size() != step.results.size())
    broken(fmt::format("it has {} results, not {}", step.results.size(), types.size()));
  for (size_t i = 0; i < types.size(); ++i)
    if (types[i] != step.results[i].type)
      broken(fmt::format("result {} is {}, its rule gives {}", i, to_string(step.results[i].type),
                         to_string(types[i])));
}

void check_inside(const Buffer& buffer, const Range& range, int64_t size_bytes) {
  if (range.end > size_bytes || (range.empty() && buffer.offset_bytes > size_bytes))
    broken(fmt::format("a buffer reaches to byte {} of {}", range.end, size_bytes));
  if (buffer.offset_bytes % dtype_bytes(buffer.type.dtype) != 0)
    broken(fmt::format("a buffer starts at byte {}", buffer.offset_bytes));
}

void check_strides(const Step& step, const std::vector<ops::Layout>& layouts) {
  const ops::OpDef& op = *ops::find_op(step.op);
  const auto wrong = [](const char* what, size_t i, const Buffer& buffer) {
    broken(fmt::format("{} {} of shape {} has strides {}", what, i, to_string(buffer.type.shape),
                       to_string(buffer.strides)));
  };
  for (size_t i = 0; i < step.operands.size(); ++i) {
    const Buffer& buffer = step.operands[i];
    if (layouts[i] == ops::Layout::kPanels) {
      if (op.panel_operand != static_cast<int>(i) && !(op.panels_readable && i == 0))
        broken(fmt::format("operand {} lies in panels", i));
    } else if (!ops::accepts(op.operand_strides, buffer.type.shape, buffer.strides)) {
      wrong("operand", i, buffer);
    }
  }
  for (size_t i = 0; i < step.results.size(); ++i) {
    const Buffer& buffer = step.results[i];
    if (!ops::accepts(op.result_strides, buffer.type.shape, buffer.strides))
      wrong("result", i, buffer);
    if (!elements_are_apart(buffer))
      broken(fmt::format("elements of result {} of shape {} with strides {} share memory", i,
                         to_string(buffer.type.shape), to_string(buffer.strides)));
  }
}

}  // namespace shardwright::pef
