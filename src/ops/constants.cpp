// Tensors made from attributes alone: arange, full, and what is written with full. They are folded
// into constants, so none has a kernel.
#include <cmath>

#include "base/error.h"
#include "ops/build.h"
#include "ops/copy.h"
#include "ops/table.h"

namespace shardwright::ops {

namespace {

// Python's numbers: int gives i64, bool gives bool, float gives f32.
DType number_dtype(const Attr& number) {
  if (std::holds_alternative<int64_t>(number)) return DType::kI64;
  return std::holds_alternative<bool>(number) ? DType::kBool : DType::kF32;
}

std::vector<DType> full_dtype(const Attrs& attrs, OperandTypes) {
  return {attrs.maybe_dtype("dtype").value_or(number_dtype(*attrs.find("fill_value")))};
}

std::string full_rule(const Attrs& attrs, OperandTypes operands) {
  return whole_rule(operands, {attrs.integers("size")});
}

void full_reference(const RefCall& call) {
  const double value = round_to(call.out().type.dtype, call.attrs.number("fill_value"));
  call.out().data.assign(call.out().data.size(), value);
}

struct Steps {
  double start = 0;
  double step = 1;
  int64_t count = 0;
};

Steps steps_of(const Attrs& attrs) {
  Steps steps{.start = attrs.number("start", 0), .step = attrs.number("step", 1)};
  if (steps.step == 0) throw Error(ErrorCode::kUsage, "step is 0; it may be any other number");
  const double count = std::ceil((attrs.number("end") - steps.start) / steps.step);
  steps.count = count > 0 ? static_cast<int64_t>(count) : 0;
  return steps;
}

std::string arange_rule(const Attrs& attrs, OperandTypes operands) {
  return whole_rule(operands, {Shape{steps_of(attrs).count}});
}

std::vector<DType> arange_dtype(const Attrs& attrs, OperandTypes) {
  if (attrs.has("dtype")) return {attrs.dtype("dtype")};
  for (const char* name : {"start", "end", "step"})
    if (attrs.has(name) && !std::holds_alternative<int64_t>(*attrs.find(name)))
      return {DType::kF32};
  return {DType::kI64};
}

void arange_reference(const RefCall& call) {
  const Steps steps = steps_of(call.attrs);
  for (size_t i = 0; i < call.out().data.size(); ++i)
    call.out().data[i] = steps.start + static_cast<double>(i) * steps.step;
}

std::string full_text(const Shape& shape, const std::string& value, DType dtype) {
  return "full(size=" + to_string(shape) + ", fill_value=" + value +
         ", dtype=" + std::string(dtype_name(dtype)) + ")";
}

// zeros, ones, empty: sizes from the attribute, f32 where no dtype is given.
std::vector<DType> filled_dtype(const Attrs& attrs, OperandTypes) {
  return {attrs.maybe_dtype("dtype").value_or(DType::kF32)};
}
template <bool kOne>
std::string filled_expansion(const Attrs& attrs, OperandTypes operands) {
  return full_text(attrs.integers("size"), kOne ? "1" : "0", filled_dtype(attrs, operands)[0]);
}

// new_*: sizes from the attribute, dtype of x where none is given.
std::vector<DType> like_dtype(const Attrs& attrs, OperandTypes operands) {
  return {attrs.maybe_dtype("dtype").value_or(operands[0]->dtype)};
}
template <bool kOne>
std::string new_expansion(const Attrs& attrs, OperandTypes operands) {
  return full_text(attrs.integers("size"), kOne ? "1" : "0", like_dtype(attrs, operands)[0]);
}
std::string new_full_expansion(const Attrs& attrs, OperandTypes operands) {
  return full_text(attrs.integers("size"), to_string(*attrs.find("fill_value")),
                   like_dtype(attrs, operands)[0]);
}

// *_like: sizes of x.
std::string like_rule(const Attrs&, OperandTypes operands) {
  return whole_rule(operands, {operands[0]->shape});
}
template <bool kOne>
std::string like_expansion(const Attrs& attrs, OperandTypes operands) {
  return full_text(operands[0]->shape, kOne ? "1" : "0", like_dtype(attrs, operands)[0]);
}
std::string full_like_expansion(const Attrs& attrs, OperandTypes operands) {
  return full_text(operands[0]->shape, to_string(*attrs.find("fill_value")),
                   like_dtype(attrs, operands)[0]);
}

std::string scalar_rule(const Attrs&, OperandTypes) { return "->"; }
std::string scalar_expansion(const Attrs& attrs, OperandTypes operands) {
  return full_text({}, to_string(*attrs.find("s")), filled_dtype(attrs, operands)[0]);
}

}  // namespace

const OpDef arange{
    .name = "arange",
    .arguments = "start: number = 0, end: number, step: number = 1, dtype: dtype?",
    .rule_for = arange_rule,
    .result_dtypes = arange_dtype,
    .reference = arange_reference,
    .samples = {"end=7", "start=2, end=11, step=3", "start=1.0, end=0.0, step=-0.25"},
};

const OpDef full{
    .name = "full",
    .arguments = "size: ints, fill_value: number, dtype: dtype?",
    .rule_for = full_rule,
    .result_dtypes = full_dtype,
    .reference = full_reference,
    .samples = {"size=[3, 5], fill_value=2.5", "size=[], fill_value=7",
                "size=[2], fill_value=true"},
};

const OpDef zeros{
    .name = "zeros",
    .aliases = {"empty"},
    .arguments = "size: ints, dtype: dtype?",
    .rule_for = full_rule,
    .result_dtypes = filled_dtype,
    .expansion_for = filled_expansion<false>,
    .samples = {"size=[3, 5]", "size=[2], dtype=i64"},
};

const OpDef ones{
    .name = "ones",
    .arguments = "size: ints, dtype: dtype?",
    .rule_for = full_rule,
    .result_dtypes = filled_dtype,
    .expansion_for = filled_expansion<true>,
    .samples = {"size=[3, 5]", "size=[2], dtype=bool"},
};

const OpDef new_zeros{
    .name = "new_zeros",
    .aliases = {"new_empty"},
    .arguments = "x[self], size: ints, dtype: dtype?",
    .rule_for = full_rule,
    .result_dtypes = like_dtype,
    .expansion_for = new_expansion<false>,
    .samples = {"x: f32[4], size=[3, 5]", "x: f32[4], size=[], dtype=i64"},
};

const OpDef new_ones{
    .name = "new_ones",
    .arguments = "x[self], size: ints, dtype: dtype?",
    .rule_for = full_rule,
    .result_dtypes = like_dtype,
    .expansion_for = new_expansion<true>,
    .samples = {"x: f32[4], size=[3, 5]", "x: f32[4], size=[], dtype=bool"},
};

const OpDef new_full{
    .name = "new_full",
    .arguments = "x[self], size: ints, fill_value: number, dtype: dtype?",
    .rule_for = full_rule,
    .result_dtypes = like_dtype,
    .expansion_for = new_full_expansion,
    .samples = {"x: f32[4], size=[3, 5], fill_value=2", "x: i64[], size=[2], fill_value=-1"},
};

const OpDef zeros_like{
    .name = "zeros_like",
    .aliases = {"empty_like"},
    .arguments = "x[self], dtype: dtype?",
    .rule_for = like_rule,
    .result_dtypes = like_dtype,
    .expansion_for = like_expansion<false>,
    .samples = {"x: f32[3, 5]", "x: f32[4], dtype=i64"},
};

const OpDef ones_like{
    .name = "ones_like",
    .arguments = "x[self], dtype: dtype?",
    .rule_for = like_rule,
    .result_dtypes = like_dtype,
    .expansion_for = like_expansion<true>,
    .samples = {"x: f32[3, 5]", "x: f32[4], dtype=bool"},
};

const OpDef full_like{
    .name = "full_like",
    .arguments = "x[self], fill_value: number, dtype: dtype?",
    .rule_for = like_rule,
    .result_dtypes = like_dtype,
    .expansion_for = full_like_expansion,
    .samples = {"x: f32[3, 5], fill_value=2", "x: f32[4], fill_value=-1, dtype=i64"},
};

const OpDef scalar_tensor{
    .name = "scalar_tensor",
    .arguments = "s: number, dtype: dtype?",
    .rule_for = scalar_rule,
    .result_dtypes = filled_dtype,
    .expansion_for = scalar_expansion,
    .samples = {"s=2.5", "s=3, dtype=i64"},
};

}  // namespace shardwright::ops
