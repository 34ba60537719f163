// pad with a constant; and two operators of local graphs: zero_pad puts a piece in its place among
// zeros, keep lets one chip of many keep a value.
#include <algorithm>

#include "base/error.h"
#include "ops/build.h"
#include "ops/copy.h"
#include "ops/table.h"

namespace shardwright::ops {

namespace {

struct Margin {
  int64_t before = 0;  // negative: that many rows are cut off
  int64_t after = 0;
};

// A margin for each dimension; the attribute starts with the last dimension.
std::vector<Margin> pad_margins(const Attrs& attrs, size_t ndim) {
  const std::vector<int64_t>& pad_sizes = attrs.integers("pad");
  if (pad_sizes.size() % 2 != 0 || pad_sizes.size() > 2 * ndim)
    throw Error(ErrorCode::kUsage, "pad is " + ints_text(pad_sizes) + " for " +
                                       std::to_string(ndim) +
                                       " dimensions; it must hold two numbers for each of the "
                                       "last dimensions");
  std::vector<Margin> margins(ndim);
  for (size_t i = 0; i < pad_sizes.size() / 2; ++i)
    margins[ndim - 1 - i] = {pad_sizes[2 * i], pad_sizes[2 * i + 1]};
  return margins;
}

std::vector<Margin> zero_pad_margins(const Attrs& attrs, size_t ndim) {
  std::vector<Margin> margins(ndim);
  margins[static_cast<size_t>(normal_dim(attrs.integer("dim"), static_cast<int>(ndim)))] = {
      attrs.integer("before"), attrs.integer("after")};
  return margins;
}

std::string margins_rule(const Shape& shape, const std::vector<Margin>& margins) {
  std::vector<std::string> from = dim_words("a", shape);
  std::vector<std::string> to = from;
  std::string whole;
  for (size_t d = 0; d < shape.size(); ++d) {
    if (margins[d].before == 0 && margins[d].after == 0) continue;
    const int64_t size = shape[d] + margins[d].before + margins[d].after;
    if (size < 0)
      throw Error(ErrorCode::kUsage, "dimension " + std::to_string(d) + " of shape " +
                                         to_string(shape) + " has fewer rows than are cut off");
    from[d] = "b" + std::to_string(d);
    to[d] = "c" + std::to_string(d);
    whole += from[d] + " " + to[d] + " ";
    to[d] += "=" + std::to_string(size);
  }
  const std::string text = join_words(from) + " -> " + join_words(to);
  return whole.empty() ? text : text + "; " + whole + ": whole";
}

// Copies what is left of the operand to its place; the rest of the result keeps its value.
PartCopy margins_copy(const KernelSpec& spec, const std::vector<Margin>& margins) {
  const OperandSpec& x = spec.operands[0];
  const OperandSpec& y = spec.results[0];
  PartCopy copy{.shape = x.type.shape, .from = x.strides, .to = y.strides};
  for (size_t d = 0; d < margins.size(); ++d) {
    const int64_t cut_before = std::max<int64_t>(-margins[d].before, 0);
    const int64_t cut_after = std::max<int64_t>(-margins[d].after, 0);
    copy.shape[d] = std::max<int64_t>(copy.shape[d] - cut_before - cut_after, 0);
    copy.from_offset += cut_before * x.strides[d];
    copy.to_offset += std::max<int64_t>(margins[d].before, 0) * y.strides[d];
  }
  return copy;
}

void margins_reference(const RefCall& call, const std::vector<Margin>& margins, double value) {
  const RefTensor& x = call.in(0);
  const Strides strides = contiguous_strides(x.type.shape);
  std::vector<int64_t> index(margins.size(), 0);
  for (double& element : call.out().data) {
    bool inside = true;
    int64_t position = 0;
    for (size_t d = 0; d < margins.size(); ++d) {
      const int64_t row = index[d] - margins[d].before;
      inside &= 0 <= row && row < x.type.shape[d];
      position += row * strides[d];
    }
    element = inside ? x.data[static_cast<size_t>(position)] : value;
    next_index(call.out().type.shape, index);
  }
}

// What was added is cut off; what was cut off gets zeros.
std::string pad_gradient(const Attrs& attrs, OperandTypes) {
  std::vector<int64_t> back = attrs.integers("pad");
  for (int64_t& size : back) size = -size;
  return "dx = pad(dy, pad=" + ints_text(back) + ")";
}

std::string zero_pad_gradient(const Attrs& attrs, OperandTypes operands) {
  const auto ndim = operands[0]->shape.size();
  const auto dim = static_cast<size_t>(normal_dim(attrs.integer("dim"), static_cast<int>(ndim)));
  const int64_t before = attrs.integer("before");
  return "dx = slice(dy, dim=" + std::to_string(dim) + ", start=" + std::to_string(before) +
         ", end=" + std::to_string(before + operands[0]->shape[dim]) + ")";
}

std::string pad_rule(const Attrs& attrs, OperandTypes operands) {
  if (attrs.text("mode") != "constant")
    throw Error(ErrorCode::kUnsupported,
                "mode is \"" + attrs.text("mode") + "\"; only \"constant\" is supported");
  return margins_rule(operands[0]->shape, pad_margins(attrs, operands[0]->shape.size()));
}

void pad_reference(const RefCall& call) {
  margins_reference(call, pad_margins(call.attrs, call.in(0).type.shape.size()),
                    call.attrs.number("value", 0));
}

std::unique_ptr<Kernel> make_pad(const KernelSpec& spec) {
  const PartCopy copy =
      margins_copy(spec, pad_margins(*spec.attrs, spec.operands[0].type.shape.size()));
  return make_part_copies(spec, {&copy, 1}, spec.attrs->number("value", 0));
}

std::string constant_pad_expansion(const Attrs& attrs, OperandTypes) {
  return "pad(x, pad=" + ints_text(attrs.integers("pad")) +
         ", value=" + to_string(*attrs.find("value")) + ")";
}

std::string constant_pad_rule(const Attrs& attrs, OperandTypes operands) {
  return margins_rule(operands[0]->shape, pad_margins(attrs, operands[0]->shape.size()));
}

std::string zero_pad_rule(const Attrs& attrs, OperandTypes operands) {
  return margins_rule(operands[0]->shape, zero_pad_margins(attrs, operands[0]->shape.size()));
}

void zero_pad_reference(const RefCall& call) {
  margins_reference(call, zero_pad_margins(call.attrs, call.in(0).type.shape.size()), 0);
}

std::unique_ptr<Kernel> make_zero_pad(const KernelSpec& spec) {
  const PartCopy copy =
      margins_copy(spec, zero_pad_margins(*spec.attrs, spec.operands[0].type.shape.size()));
  return make_part_copies(spec, {&copy, 1}, 0.0);
}

void keep_reference(const RefCall& call) {
  if (call.attrs.boolean("keep")) call.out().data = call.in(0).data;
}

std::unique_ptr<Kernel> make_keep(const KernelSpec& spec) {
  if (!spec.attrs->boolean("keep")) return make_part_copies(spec, {}, 0.0);
  const PartCopy copy{.shape = spec.operands[0].type.shape,
                      .from = spec.operands[0].strides,
                      .to = spec.results[0].strides};
  return make_part_copies(spec, {&copy, 1});
}

}  // namespace

const OpDef pad{
    .name = "pad",
    .arguments = "x[self], pad: ints, mode: str = constant, value: number?",
    .rule_for = pad_rule,
    .gradient_for = pad_gradient,
    .reference = pad_reference,
    .make_kernel = make_pad,
    .operand_strides = Strided::kAny,
    .samples = {"x: f32[3, 5, 4], pad=[1, 2]", "x: i64[2, 5], pad=[0, 1], value=-100.0",
                "x: bf16[3, 5, 2], pad=[0, 0, 2, -1], value=1.5",
                "x: f32[4, 6], pad=[-2, 3, 1, -3]"},
};

const OpDef constant_pad_nd{
    .name = "constant_pad_nd",
    .arguments = "x[self], pad: ints, value: number = 0",
    .rule_for = constant_pad_rule,
    .expansion_for = constant_pad_expansion,
    .samples = {"x: f32[3, 5], pad=[1, 2]", "x: f32[3, 5], pad=[0, 0, 1, 1], value=2.5"},
};

const OpDef zero_pad{
    .name = "zero_pad",
    .arguments = "x, dim: int, before: int, after: int",
    .rule_for = zero_pad_rule,
    .linear = {"x"},
    .gradient_for = zero_pad_gradient,
    .reference = zero_pad_reference,
    .make_kernel = make_zero_pad,
    .operand_strides = Strided::kAny,
    .samples = {"x: f32[3, 5, 4], dim=1, before=2, after=3", "x: bf16[7], dim=0, before=0, after=4",
                "x: f32[0, 3], dim=0, before=0, after=2"},
};

const OpDef keep{
    .name = "keep",
    .arguments = "x, keep: bool",
    .rule = "t... -> t...",
    .linear = {"x"},
    .reference = keep_reference,
    .make_kernel = make_keep,
    .operand_strides = Strided::kAny,
    .samples = {"x: f32[3, 5], keep=true", "x: f32[3, 5], keep=false"},
};

}  // namespace shardwright::ops
