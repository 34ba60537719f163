// Reductions over dimensions: sum, mean, amax, amin, argmax.
#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "kernels/cpu/tile.h"
#include "ops/build.h"
#include "ops/table.h"

namespace shardwright::ops {
namespace {

// Which dims of an operand of `ndim` dims are reduced: those of "dim" (one or a list); all where it
// is None or empty.
std::vector<bool> reduced_dims(const Attrs& attrs, int ndim) {
  std::vector<int64_t> dims;
  if (const Attr* dim = attrs.find("dim")) {
    if (const auto* one = std::get_if<int64_t>(dim)) dims = {*one};
    if (const auto* list = std::get_if<std::vector<int64_t>>(dim)) dims = *list;
  }
  std::vector<bool> reduced(static_cast<size_t>(ndim), dims.empty());
  if (ndim > 0)
    for (const int64_t dim : dims) reduced[static_cast<size_t>(normal_dim(dim, ndim))] = true;
  return reduced;
}

// "a0 a1 a2 -> a0 1 a2; a1: KIND"
std::string reduce_rule(const Attrs& attrs, OperandTypes operands, const std::string& kind) {
  const Shape& shape = operands[0]->shape;
  const std::vector<bool> reduced = reduced_dims(attrs, static_cast<int>(shape.size()));
  const bool keepdim = attrs.boolean("keepdim", false);
  const std::vector<std::string> words = dim_words("a", shape);
  std::vector<std::string> result;
  std::vector<std::string> gone;
  for (size_t i = 0; i < words.size(); ++i) {
    if (!reduced[i]) {
      result.push_back(words[i]);
    } else {
      if (keepdim) result.emplace_back("1");
      if (words[i] != "1") gone.push_back(words[i]);
    }
  }
  const std::string text = join_words(words) + " -> " + join_words(result);
  return gone.empty() ? text : text + "; " + join_words(gone) + ": " + kind;
}

std::string sum_rule(const Attrs& attrs, OperandTypes operands) {
  return reduce_rule(attrs, operands, "sum");
}
std::string amax_rule(const Attrs& attrs, OperandTypes operands) {
  return reduce_rule(attrs, operands, "max");
}
std::string whole_rule(const Attrs& attrs, OperandTypes operands) {
  return reduce_rule(attrs, operands, "whole");
}

DType sum_dtype(const Attrs& attrs, OperandTypes operands) {
  const DType own = operands[0]->dtype;
  return attrs.maybe_dtype("dtype").value_or(is_floating(own) ? own : DType::kI64);
}
DType mean_dtype(const Attrs& attrs, OperandTypes operands) {
  return attrs.maybe_dtype("dtype").value_or(operands[0]->dtype);
}
std::vector<DType> sum_dtypes(const Attrs& attrs, OperandTypes operands) {
  return {sum_dtype(attrs, operands)};
}
std::vector<DType> mean_dtypes(const Attrs& attrs, OperandTypes operands) {
  return {mean_dtype(attrs, operands)};
}
std::vector<DType> index_dtypes(const Attrs&, OperandTypes) { return {DType::kI64}; }

std::string cast_text(const std::string& text, DType from, DType to) {
  if (from == to) return text;
  return "_to_copy(" + text + ", dtype=" + std::string(dtype_name(to)) + ")";
}

std::string sum_text(const std::string& x, const Attrs& attrs) {
  std::string text = "sum(" + x;
  for (const char* name : {"dim", "keepdim"})
    if (attrs.has(name)) text += std::string(", ") + name + "=" + to_string(*attrs.find(name));
  return text + ")";
}

// PyTorch casts before it adds.
std::string sum_expansion(const Attrs& attrs, OperandTypes operands) {
  const DType own = operands[0]->dtype;
  const DType wanted = sum_dtype(attrs, operands);
  if (own == wanted && !attrs.has("dtype")) return "";
  return sum_text(cast_text("x", own, wanted), attrs);
}

// The count is that of the whole tensor, so a kernel of a part can't know it. 16-bit types are
// added and divided in f32 and rounded once.
std::string mean_expansion(const Attrs& attrs, OperandTypes operands) {
  const Shape& shape = operands[0]->shape;
  const std::vector<bool> reduced = reduced_dims(attrs, static_cast<int>(shape.size()));
  int64_t count = 1;
  for (size_t i = 0; i < shape.size(); ++i)
    if (reduced[i]) count *= shape[i];
  const DType own = operands[0]->dtype;
  const DType wanted = mean_dtype(attrs, operands);
  const DType inner = wanted == DType::kF64 ? DType::kF64 : DType::kF32;
  const std::string x = cast_text("x", own, inner);
  return cast_text(
      "div(" + sum_text(x, attrs) + ", " + to_string(Attr(static_cast<double>(count))) + ")", inner,
      wanted);
}

// `name` of the result's shape, with its reduced dims as 1.
std::string kept_text(const std::string& name, const Attrs& attrs, OperandTypes operands) {
  Shape kept = operands[0]->shape;
  const std::vector<bool> reduced = reduced_dims(attrs, static_cast<int>(kept.size()));
  for (size_t i = 0; i < kept.size(); ++i)
    if (reduced[i]) kept[i] = 1;
  return "reshape(" + name + ", shape=" + ints_text(kept) + ")";
}

std::string sum_gradient(const Attrs& attrs, OperandTypes operands) {
  return "dx = expand(" + kept_text("dy", attrs, operands) +
         ", shape=" + ints_text(operands[0]->shape) + ")";
}

// Equals share it evenly, as in PyTorch.
std::string extreme_gradient(const Attrs& attrs, OperandTypes operands) {
  std::string dims = "[";
  const std::vector<bool> reduced = reduced_dims(attrs, operands[0]->ndim());
  for (size_t i = 0; i < reduced.size(); ++i)
    if (reduced[i]) dims += (dims.size() > 1 ? ", " : "") + std::to_string(i);
  const std::string dtype(dtype_name(operands[0]->dtype));
  return "e = eq(x, " + kept_text("y", attrs, operands) + "); c = cast(e, dtype=" + dtype +
         "); dx = where(e, div(" + kept_text("dy", attrs, operands) + ", sum(c, dim=" + dims +
         "], keepdim=true)), 0.0)";
}

// Calls take(at, value) for every element of x: `at` is its result, `value` its value.
template <typename Take>
void for_each_reduced(const RefCall& call, Take take) {
  const RefTensor& x = call.in(0);
  const Shape& shape = x.type.shape;
  const std::vector<bool> reduced = reduced_dims(call.attrs, x.type.ndim());
  Strides strides(shape.size(), 0);
  int64_t count = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    if (reduced[i]) continue;
    strides[i] = count;
    count *= shape[i];
  }
  if (x.data.empty()) return;
  std::vector<int64_t> place(shape.size(), 0);
  size_t from = 0;
  do {
    take(static_cast<size_t>(position_of(place, strides)), x.data[from++]);
  } while (next_index(shape, place));
}

void sum_reference(const RefCall& call) {
  for_each_reduced(call, [&](size_t at, double value) { call.out().data[at] += value; });
}

void extreme_reference(const RefCall& call, bool is_max) {
  std::fill(call.out().data.begin(), call.out().data.end(), is_max ? -INFINITY : INFINITY);
  for_each_reduced(call, [&](size_t at, double value) {
    double& best = call.out().data[at];
    if (std::isnan(value) || (is_max ? value > best : value < best)) best = value;
  });
}
void amax_reference(const RefCall& call) { extreme_reference(call, true); }
void amin_reference(const RefCall& call) { extreme_reference(call, false); }

// The first of the largest, by its position among the elements that have the same result.
void argmax_reference(const RefCall& call) {
  std::vector<double> best(call.out().data.size(), -INFINITY);
  std::vector<double> seen(best.size(), 0);
  for_each_reduced(call, [&](size_t at, double value) {
    const bool larger = value > best[at] || (std::isnan(value) && !std::isnan(best[at]));
    if (larger) {
      best[at] = value;
      call.out().data[at] = seen[at];
    }
    seen[at] += 1;
  });
}

class ReduceKernel : public Kernel {
 public:
  explicit ReduceKernel(const kernels::TileProgram& program) : tile_(program) {}

  void run(Member& member, const void* const* operands, void* const* results,
           void* /*scratch*/) const noexcept override {
    kernels::run_tile(member, tile_, operands, results);
  }

 private:
  kernels::TileKernel tile_;
};

std::unique_ptr<Kernel> make_reduce(const KernelSpec& spec, kernels::TileCode code) {
  const OperandSpec& x = spec.operands[0];
  const OperandSpec& y = spec.results[0];
  if (x.type.count() == 0 || x.type.ndim() == 0) return make_reference_kernel(spec);
  const std::vector<bool> reduced = reduced_dims(*spec.attrs, x.type.ndim());
  const bool keepdim = spec.attrs->boolean("keepdim", false);
  kernels::TileProgram program;
  program.shape = x.type.shape;
  program.inputs = {{.dtype = x.type.dtype, .strides = x.strides}};
  Strides strides(reduced.size(), 0);
  size_t dim = 0;  // of the result
  for (size_t i = 0; i < reduced.size(); ++i) {
    if (reduced[i]) program.reduced.push_back(static_cast<int>(i));
    if (!reduced[i]) strides[i] = y.strides[dim];
    if (!reduced[i] || keepdim) ++dim;
  }
  CHECK(dim == y.strides.size());
  program.outputs = {{.dtype = y.type.dtype, .strides = strides}};
  program.ops = {{.code = kernels::TileCode::kLoad, .dtype = x.type.dtype, .dst = 0, .a = 0},
                 {.code = code, .dtype = y.type.dtype, .dst = 1, .a = 0},
                 {.code = kernels::TileCode::kStore, .dtype = y.type.dtype, .dst = 0, .a = 1}};
  return std::make_unique<ReduceKernel>(program);
}

std::unique_ptr<Kernel> make_sum(const KernelSpec& spec) {
  return make_reduce(spec, kernels::TileCode::kReduceSum);
}
std::unique_ptr<Kernel> make_amax(const KernelSpec& spec) {
  return make_reduce(spec, kernels::TileCode::kReduceMax);
}
std::unique_ptr<Kernel> make_amin(const KernelSpec& spec) {
  return make_reduce(spec, kernels::TileCode::kReduceMin);
}
std::unique_ptr<Kernel> make_argmax(const KernelSpec& spec) {
  return make_reduce(spec, kernels::TileCode::kReduceArgMax);
}

}  // namespace

const OpDef sum{
    .name = "sum",
    .arguments = "x[self], dim: ints?, keepdim: bool = false, dtype: dtype?",
    .rule_for = sum_rule,
    .linear = {"x"},
    .result_dtypes = sum_dtypes,
    .gradient_for = sum_gradient,
    .expansion_for = sum_expansion,
    .reference = sum_reference,
    .make_kernel = make_sum,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .samples = {"x: f32[3, 5, 17], dim=[-1], keepdim=true", "x: f32[3, 5, 17], dim=[0, 2]",
                "x: f32[4, 300]", "x: bf16[3, 40], dim=[1]", "x: i64[5, 3] < 100, dim=[0]"},
};

const OpDef mean{
    .name = "mean",
    .arguments = "x[self], dim: ints?, keepdim: bool = false, dtype: dtype?",
    .rule_for = sum_rule,
    .result_dtypes = mean_dtypes,
    .expansion_for = mean_expansion,
    .samples = {"x: f32[3, 5, 17], dim=[-1], keepdim=true", "x: bf16[3, 40]"},
};

const OpDef amax{
    .name = "amax",
    .arguments = "x[self], dim: ints?, keepdim: bool = false",
    .rule_for = amax_rule,
    .result_dtypes = first_dtype,
    .gradient_for = extreme_gradient,
    .reference = amax_reference,
    .make_kernel = make_amax,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .samples = {"x: f32[3, 5, 17], dim=[-1], keepdim=true", "x: bf16[3, 40], dim=[0]",
                "x: i32[7, 3] < 50"},
};

const OpDef amin{
    .name = "amin",
    .arguments = "x[self], dim: ints?, keepdim: bool = false",
    .rule_for = whole_rule,  // there is no kind for a minimum
    .result_dtypes = first_dtype,
    .gradient_for = extreme_gradient,
    .reference = amin_reference,
    .make_kernel = make_amin,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .samples = {"x: f32[3, 5, 17], dim=[-1], keepdim=true", "x: f16[3, 40]"},
};

const OpDef argmax{
    .name = "argmax",
    .arguments = "x[self], dim: int?, keepdim: bool = false",
    .rule_for = whole_rule,
    .result_dtypes = index_dtypes,
    .reference = argmax_reference,
    .make_kernel = make_argmax,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .samples = {"x: f32[3, 5, 17], dim=-1", "x: f32[3, 5, 7], dim=1, keepdim=true", "x: bf16[4, 9]",
                "x: i64[5, 6] < 4, dim=0"},
};

}  // namespace shardwright::ops
