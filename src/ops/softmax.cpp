// softmax: y[..., k] = exp(x - max_k x) / sum_k exp(x - max_k x); log_softmax, its logarithm.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/rows.h"
#include "ops/build.h"
#include "ops/table.h"

namespace shardwright::ops {
namespace {

std::string softmax_rule(const Attrs& attrs, OperandTypes operands) {
  const Shape& shape = operands[0]->shape;
  std::vector<std::string> words = dim_words("a", shape);
  std::string kind;
  if (!words.empty()) {
    std::string& word = words[static_cast<size_t>(
        normal_dim(attrs.integer("dim"), static_cast<int>(shape.size())))];
    if (word != "1") kind = "; " + word + ": whole";
  }
  const std::string text = join_words(words);
  return text + " -> " + text + kind;
}

DType softmax_dtype(const Attrs& attrs, OperandTypes operands) {
  const DType own = operands[0]->dtype;
  if (const auto stated = attrs.maybe_dtype("dtype")) return *stated;
  return attrs.boolean("half_to_float", false) ? DType::kF32 : is_floating(own) ? own : DType::kF32;
}

std::vector<DType> softmax_dtypes(const Attrs& attrs, OperandTypes operands) {
  return {softmax_dtype(attrs, operands)};
}

// The input in the type of the result where that is not merely wider: PyTorch casts first.
std::string cast_input(const Attrs& attrs, OperandTypes operands) {
  const DType own = operands[0]->dtype;
  const DType wanted = softmax_dtype(attrs, operands);
  const bool is_wider = is_kernel_float(own) && wanted == DType::kF32;
  if (own == wanted || is_wider) return "x";
  return "_to_copy(x, dtype=" + std::string(dtype_name(wanted)) + ")";
}

// Canonical softmax is over the last dimension, of a floating-point x.
std::string softmax_expansion(const Attrs& attrs, OperandTypes operands) {
  const int ndim = operands[0]->ndim();
  if (ndim == 0) return "";
  const int dim = normal_dim(attrs.integer("dim"), ndim);
  const std::string x = cast_input(attrs, operands);
  if (dim == ndim - 1 && x == "x") return "";
  std::string dtype;
  if (x == "x" && softmax_dtype(attrs, operands) != operands[0]->dtype) dtype = ", dtype=f32";
  if (dim == ndim - 1) return "softmax(" + x + ", dim=-1)";
  const std::string swap = ", dims=" + swapped_dims_text(ndim, dim, ndim - 1) + ")";
  return "permute(softmax(permute(" + x + swap + ", dim=-1" + dtype + ")" + swap;
}

// Sums over a split dimension are three small all_reduces; in f32, rounded once.
std::string log_softmax_expansion(const Attrs& attrs, OperandTypes operands) {
  const DType own = operands[0]->dtype;
  const DType wanted = softmax_dtype(attrs, operands);
  const DType inner = wanted == DType::kF64 ? DType::kF64 : DType::kF32;
  const auto cast = [](const std::string& text, DType from, DType to) {
    if (from == to) return text;
    return "_to_copy(" + text + ", dtype=" + std::string(dtype_name(to)) + ")";
  };
  const std::string x = cast_input(attrs, operands);
  const std::string over = ", dim=" + ints_text(Shape{attrs.integer("dim")}) + ", keepdim=true)";
  const std::string result = "sub(y, log(sum(exp(y)" + over + "))";
  return "a = " + cast(x, x == "x" ? own : wanted, inner) + "; y = sub(a, amax(a" + over + "); " +
         cast(result, inner, wanted);
}

void softmax_reference(const RefCall& call) {
  const RefTensor& x = call.in(0);
  const Shape& shape = x.type.shape;
  if (x.data.empty()) return;
  const size_t dim =
      shape.empty() ? 0 : static_cast<size_t>(normal_dim(call.attrs.integer("dim"), x.type.ndim()));
  const size_t size = shape.empty() ? 1 : static_cast<size_t>(shape[dim]);
  size_t inner = 1;
  for (size_t i = dim + 1; i < shape.size(); ++i) inner *= static_cast<size_t>(shape[i]);
  for (size_t row = 0; row < x.data.size() / size; ++row) {
    const size_t first = row / inner * inner * size + row % inner;
    double largest = -INFINITY;
    for (size_t i = 0; i < size; ++i) largest = std::max(largest, x.data[first + i * inner]);
    double total = 0;
    for (size_t i = 0; i < size; ++i) total += std::exp(x.data[first + i * inner] - largest);
    for (size_t i = 0; i < size; ++i)
      call.out().data[first + i * inner] = std::exp(x.data[first + i * inner] - largest) / total;
  }
}

class SoftmaxKernel : public Kernel {
 public:
  explicit SoftmaxKernel(const KernelSpec& spec) {
    const RowsOf x = rows_of(spec.operands[0]);
    const RowsOf y = rows_of(spec.results[0]);
    args_ = {.n_rows = x.count,
             .row_size = x.size,
             .x_dtype = spec.operands[0].type.dtype,
             .y_dtype = spec.results[0].type.dtype,
             .x_stride = x.stride,
             .y_stride = y.stride};
  }

  void run(Member& member, const void* const* operands, void* const* results,
           void* /*scratch*/) const noexcept override {
    kernels::SoftmaxArgs args = args_;
    args.x = operands[0];
    args.y = results[0];
    kernels::softmax(member, args);
  }

 private:
  kernels::SoftmaxArgs args_;
};

std::unique_ptr<Kernel> make_softmax(const KernelSpec& spec) {
  const TensorType& x = spec.operands[0].type;
  const bool last =
      x.ndim() > 0 && normal_dim(spec.attrs->integer("dim"), x.ndim()) == x.ndim() - 1;
  if (!last || !is_kernel_float(x.dtype) || !is_kernel_float(spec.results[0].type.dtype))
    return make_reference_kernel(spec);
  return std::make_unique<SoftmaxKernel>(spec);
}

}  // namespace

const OpDef softmax{
    .name = "softmax",
    .aliases = {"_softmax"},
    .arguments = "x[self], dim: int, dtype: dtype?, half_to_float: bool = false",
    .rule_for = softmax_rule,
    .result_dtypes = softmax_dtypes,
    .gradient = "dx = mul(y, sub(dy, sum(mul(dy, y), dim=[-1], keepdim=true)))",
    .expansion_for = softmax_expansion,
    .reference = softmax_reference,
    .make_kernel = make_softmax,
    .operand_strides = Strided::kRows,
    .result_strides = Strided::kRows,
    .in_place = true,
    .samples = {"x: f32[3, 5, 37], dim=-1", "x: f32[4, 9], dim=1",
                "x: bf16[3, 40], dim=-1, dtype=f32", "x: bf16[5, 7], dim=-1",
                "x: f16[2, 19], dim=-1"},
};

const OpDef log_softmax{
    .name = "log_softmax",
    .aliases = {"_log_softmax"},
    .arguments = "x[self], dim: int, dtype: dtype?, half_to_float: bool = false",
    .rule_for = softmax_rule,
    .result_dtypes = softmax_dtypes,
    .expansion_for = log_softmax_expansion,
    .samples = {"x: f32[3, 5, 37], dim=-1", "x: bf16[4, 9], dim=0"},
};

}  // namespace shardwright::ops
