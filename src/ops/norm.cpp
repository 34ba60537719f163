// rms_norm and layer_norm over the last dimension.
#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/error.h"
#include "kernels/cpu/rows.h"
#include "ops/build.h"
#include "ops/fused_stage.h"
#include "ops/table.h"

namespace shardwright::ops {
namespace {

// normalized_shape is in ATen's form alone: canonical norms are over the last dimension, whose size
// the types say.
void check_normalized_shape(const Attrs& attrs, OperandTypes operands) {
  if (!attrs.has("normalized_shape")) return;
  const std::vector<int64_t>& sizes = attrs.integers("normalized_shape");
  const Shape& shape = operands[0]->shape;
  if (!sizes.empty() && sizes.size() <= shape.size() &&
      std::equal(sizes.rbegin(), sizes.rend(), shape.rbegin()))
    return;
  throw Error(ErrorCode::kUsage, "normalized_shape is " + ints_text(sizes) + ", but x is " +
                                     to_string(*operands[0]) + "; it must be the last sizes of x");
}

size_t n_normalized(const Attrs& attrs) {
  return attrs.has("normalized_shape") ? attrs.integers("normalized_shape").size() : 1;
}

std::string norm_rule(int n_parameters, const Attrs& attrs, OperandTypes operands) {
  check_normalized_shape(attrs, operands);
  std::string dims;
  for (size_t i = 0; i < n_normalized(attrs); ++i) dims += " d" + std::to_string(i);
  std::string text = "t..." + dims;
  for (int i = 0; i < n_parameters; ++i) text += "," + dims;
  return text + " -> t..." + dims + ";" + dims + ": whole";
}

std::string rms_norm_rule(const Attrs& attrs, OperandTypes operands) {
  return norm_rule(1, attrs, operands);
}
std::string layer_norm_rule(const Attrs& attrs, OperandTypes operands) {
  return norm_rule(2, attrs, operands);
}

// The same over one last dimension, without normalized_shape.
std::string norm_expansion(const std::string& op, const std::string& parameters,
                           const std::string& attributes, const Attrs& attrs,
                           OperandTypes operands) {
  if (!attrs.has("normalized_shape")) return "";
  const size_t n = n_normalized(attrs);
  if (n == 1) return op + "(x, " + parameters + ", " + attributes + ")";
  const Shape& shape = operands[0]->shape;
  Shape flat(shape.begin(), shape.end() - static_cast<std::ptrdiff_t>(n));
  flat.push_back(element_count(Shape(shape.end() - static_cast<std::ptrdiff_t>(n), shape.end())));
  std::string flat_parameters;
  for (size_t i = 1; i < operands.size(); ++i) {
    const std::string name = i == 1 ? "weight" : "bias";
    flat_parameters += i > 1 ? ", " : "";
    flat_parameters +=
        operands[i] ? "reshape(" + name + ", shape=" + ints_text(Shape{flat.back()}) + ")" : "-";
  }
  return "reshape(" + op + "(reshape(x, shape=" + ints_text(flat) + "), " + flat_parameters + ", " +
         attributes + "), shape=" + ints_text(shape) + ")";
}

// PyTorch's eps where none is given: the smallest step at 1 in the dtype of x.
double default_eps(DType dtype) {
  switch (dtype) {
    case DType::kBF16:
      return 0x1p-7;
    case DType::kF16:
      return 0x1p-10;
    case DType::kF64:
      return 0x1p-52;
    default:
      return 0x1p-23;
  }
}

double rms_eps(const Attrs& attrs, DType dtype) {
  return attrs.has("eps") ? attrs.number("eps") : default_eps(dtype);
}

std::string bool_text(const Attrs& attrs, const char* name) {
  return std::string(", ") + name + "=" + (attrs.boolean(name, false) ? "true" : "false");
}

std::string rms_norm_expansion(const Attrs& attrs, OperandTypes operands) {
  const std::string attributes = "eps=" + to_string(Attr(rms_eps(attrs, operands[0]->dtype))) +
                                 bool_text(attrs, "round_before_weight") +
                                 bool_text(attrs, "weight_plus_one");
  return norm_expansion("rms_norm", operands[1] ? "weight" : "-", attributes, attrs, operands);
}

std::string layer_norm_expansion(const Attrs& attrs, OperandTypes operands) {
  const std::string attributes = "eps=" + to_string(Attr(attrs.number("eps")));
  const std::string parameters =
      std::string(operands[1] ? "weight" : "-") + ", " + (operands[2] ? "bias" : "-");
  return norm_expansion("layer_norm", parameters, attributes, attrs, operands);
}

// With n = (x - mean) / sqrt(var + eps) and g = dy * weight:
//   dx = (g - mean(g) - n mean(g n)) / sqrt(var + eps)      (no mean(g) for rms_norm)
//   dweight = sum over rows of dy n,  dbias = sum over rows of dy
// In f32, rounded once.
std::string norm_gradient(bool subtract_mean, const std::string& weight, double eps,
                          OperandTypes operands) {
  const std::string dtype = operands[0]->dtype == DType::kF64 ? "f64" : "f32";
  const auto inner = [&](const std::string& name) {
    return "cast(" + name + ", dtype=" + dtype + ")";
  };
  const auto mean = [](const std::string& of) {
    return "mean(" + of + ", dim=[-1], keepdim=true)";
  };
  std::string text = "a = " + inner("x") + "; d = " + inner("dy") + "; ";
  text += subtract_mean ? "c = sub(a, " + mean("a") + "); " : "c = a; ";
  text +=
      "r = rsqrt(add(" + mean("mul(c, c)") + ", " + to_string(Attr(eps)) + ")); n = mul(c, r); ";
  text += weight.empty() ? "g = d; " : "g = mul(d, " + weight + "); ";
  text += "h = sub(g, mul(n, " + mean("mul(g, n)") + ")); ";
  text += "dx = mul(r, " + (subtract_mean ? "sub(h, " + mean("g") + ")" : std::string("h")) + ")";
  if (!weight.empty()) text += "; dweight = mul(d, n)";
  if (operands.size() > 2 && operands[2]) text += "; dbias = d";
  return text;
}

std::string rms_norm_gradient(const Attrs& attrs, OperandTypes operands) {
  const DType dtype = operands[0]->dtype;
  std::string weight;
  if (operands[1]) weight = dtype == DType::kF64 ? "weight" : "cast(weight, dtype=f32)";
  if (operands[1] && attrs.boolean("weight_plus_one", false)) weight = "add(" + weight + ", 1.0)";
  return norm_gradient(false, weight, rms_eps(attrs, dtype), operands.subspan(0, 2));
}

std::string layer_norm_gradient(const Attrs& attrs, OperandTypes operands) {
  const bool is_f64 = operands[0]->dtype == DType::kF64;
  const std::string weight = !operands[1] ? "" : is_f64 ? "weight" : "cast(weight, dtype=f32)";
  return norm_gradient(true, weight, attrs.number("eps"), operands);
}

// y = (x - mean) / sqrt(var + eps) * weight + bias of every row; the mean is 0 for rms_norm.
void norm_reference(const RefCall& call, bool subtract_mean, double eps) {
  const RefTensor& x = call.in(0);
  const size_t size = static_cast<size_t>(x.type.shape.back());
  const double plus = call.attrs.boolean("weight_plus_one", false) ? 1 : 0;
  for (size_t row = 0; row < x.data.size(); row += size) {
    double mean = 0;
    for (size_t i = 0; i < size && subtract_mean; ++i)
      mean += x.data[row + i] / static_cast<double>(size);
    double variance = 0;
    for (size_t i = 0; i < size; ++i)
      variance += (x.data[row + i] - mean) * (x.data[row + i] - mean) / static_cast<double>(size);
    const double scale = 1 / std::sqrt(variance + eps);
    for (size_t i = 0; i < size; ++i) {
      double y = (x.data[row + i] - mean) * scale;
      if (call.has(1)) y *= call.in(1).data[i] + plus;
      if (call.has(2)) y += call.in(2).data[i];
      call.out().data[row + i] = y;
    }
  }
}

void rms_norm_reference(const RefCall& call) {
  norm_reference(call, false, rms_eps(call.attrs, call.in(0).type.dtype));
}
void layer_norm_reference(const RefCall& call) {
  norm_reference(call, true, call.attrs.number("eps"));
}

class NormKernel : public Kernel {
 public:
  using Function = void (*)(Member&, const kernels::NormArgs&);

  NormKernel(const KernelSpec& spec, Function function, double eps) : function_(function) {
    const RowsOf x = rows_of(spec.operands[0]);
    const RowsOf y = rows_of(spec.results[0]);
    args_.n_rows = x.count;
    args_.row_size = x.size;
    args_.dtype = spec.operands[0].type.dtype;
    args_.x_stride = x.stride;
    args_.y_stride = y.stride;
    args_.eps = static_cast<float>(eps);
    args_.round_before_weight = spec.attrs->boolean("round_before_weight", false);
    args_.weight_plus_one = spec.attrs->boolean("weight_plus_one", false);
    n_operands_ = spec.operands.size();
    for (size_t i = 1; i < n_operands_; ++i) {
      if (!spec.operands[i].present) continue;
      has_[i - 1] = true;
      args_.weight_dtype = spec.operands[i].type.dtype;
    }
  }

  // One operand more, which is added to x first, and a second result for the sum if it is kept.
  void add_first(const OperandSpec& other, const OperandSpec* kept) {
    adds_ = true;
    args_.add_stride = rows_of(other).stride;
    keeps_sum_ = kept != nullptr;
    if (keeps_sum_) args_.sum_stride = rows_of(*kept).stride;
  }

  void run(Member& member, const void* const* operands, void* const* results,
           void* /*scratch*/) const noexcept override {
    kernels::NormArgs args = args_;
    args.x = operands[0];
    args.y = results[0];
    if (has_[0]) args.weight = operands[1];
    if (has_[1]) args.bias = operands[2];
    if (adds_) args.add = operands[n_operands_];
    if (keeps_sum_) args.sum = results[1];
    function_(member, args);
  }

 private:
  Function function_;
  kernels::NormArgs args_;
  size_t n_operands_ = 0;
  bool has_[2] = {false, false};
  bool adds_ = false;
  bool keeps_sum_ = false;
};

// Null: there is no row kernel for these types.
std::unique_ptr<NormKernel> make_norm(const KernelSpec& spec) {
  std::optional<DType> parameters;
  for (size_t i = 0; i < spec.operands.size(); ++i) {
    const OperandSpec& operand = spec.operands[i];
    if (!operand.present) continue;
    // Parameters of two types are rare enough for the slow way.
    const bool mixed = i > 0 && parameters && *parameters != operand.type.dtype;
    if (mixed || !is_kernel_float(operand.type.dtype)) return nullptr;
    if (i > 0) parameters = operand.type.dtype;
  }
  if (spec.op == &rms_norm)
    return std::make_unique<NormKernel>(spec, kernels::rms_norm,
                                        rms_eps(*spec.attrs, spec.operands[0].type.dtype));
  return std::make_unique<NormKernel>(spec, kernels::layer_norm, spec.attrs->number("eps"));
}

std::unique_ptr<Kernel> make_norm_kernel(const KernelSpec& spec) {
  if (auto kernel = make_norm(spec)) return kernel;
  return make_reference_kernel(spec);
}

}  // namespace

std::unique_ptr<Kernel> make_add_norm_kernel(const KernelSpec& norm, const OperandSpec& other,
                                             const OperandSpec* kept) {
  auto kernel = make_norm(norm);
  CHECK(kernel != nullptr, "a norm without a row kernel");
  kernel->add_first(other, kept);
  return kernel;
}

// round_before_weight: the normalised x is rounded to its dtype before the weight (Llama).
// weight_plus_one: multiplies by 1 + weight (Gemma). Both come from recognised patterns.
const OpDef rms_norm{
    .name = "rms_norm",
    .arguments =
        "x[input], weight?, normalized_shape: ints?, eps: float?, "
        "round_before_weight: bool = false, weight_plus_one: bool = false",
    .rule_for = rms_norm_rule,
    .result_dtypes = first_dtype,
    .gradient_for = rms_norm_gradient,
    .expansion_for = rms_norm_expansion,
    .reference = rms_norm_reference,
    .make_kernel = make_norm_kernel,
    .operand_strides = Strided::kRows,
    .result_strides = Strided::kRows,
    .in_place = true,
    .samples = {"x: f32[3, 5, 17], weight: f32[17], eps=1e-05", "x: f32[5, 33]",
                "x: bf16[2, 40], weight: bf16[40], eps=1e-06, round_before_weight=true",
                "x: bf16[3, 24], weight: f32[24], eps=1e-06, weight_plus_one=true",
                "x: f16[4, 19], weight: f16[19], eps=1e-05"},
};

const OpDef layer_norm{
    .name = "layer_norm",
    .aliases = {"native_layer_norm"},  // of which it is the first result
    .arguments =
        "x[input], weight?, bias?, normalized_shape: ints?, eps: float = 1e-05, "
        "cudnn_enable: bool = true",
    .rule_for = layer_norm_rule,
    .result_dtypes = first_dtype,
    .gradient_for = layer_norm_gradient,
    .expansion_for = layer_norm_expansion,
    .reference = layer_norm_reference,
    .make_kernel = make_norm_kernel,
    .operand_strides = Strided::kRows,
    .result_strides = Strided::kRows,
    .in_place = true,
    .samples = {"x: f32[3, 5, 17], weight: f32[17], bias: f32[17]", "x: f32[5, 33], eps=0.001",
                "x: bf16[2, 40], weight: bf16[40]",
                "x: f16[7, 19], weight: f16[19], bias: f16[19]"},
};

}  // namespace shardwright::ops
