// Functions of one operand, element by element.
#include "base/error.h"
#include "ops/elementwise.h"
#include "ops/table.h"

namespace shardwright::ops {

namespace {

using kernels::TileCode;

double negated(double x) { return -x; }
double magnitude(double x) { return std::fabs(x); }
double floor_of(double x) { return std::floor(x); }
double exp_of(double x) { return std::exp(x); }
double log_of(double x) { return std::log(x); }
double sqrt_of(double x) { return std::sqrt(x); }
double rsqrt_of(double x) { return 1 / std::sqrt(x); }
double reciprocal_of(double x) { return 1 / x; }
double sin_of(double x) { return std::sin(x); }
double cos_of(double x) { return std::cos(x); }
double tanh_of(double x) { return std::tanh(x); }
double erf_of(double x) { return std::erf(x); }
double sigmoid_of(double x) { return 1 / (1 + std::exp(-x)); }
double silu_of(double x) { return x / (1 + std::exp(-x)); }
double relu_of(double x) { return x < 0 ? 0 : x; }
double gelu_of(double x) { return 0.5 * x * (1 + std::erf(x * std::sqrt(0.5))); }
double gelu_tanh_of(double x) {
  constexpr double kSqrt2OverPi = 0.79788456080286535588;
  return 0.5 * x * (1 + std::tanh(kSqrt2OverPi * (x + 0.044715 * x * x * x)));
}

bool with_tanh(const Attrs& attrs) {
  const std::string& approximate = attrs.text("approximate");
  if (approximate == "tanh") return true;
  if (approximate == "none") return false;
  throw Error(ErrorCode::kUnsupported,
              "gelu: approximate is \"" + approximate + "\"; it may be \"none\" or \"tanh\"");
}

void gelu_reference(const RefCall& call) {
  with_tanh(call.attrs) ? elementwise_reference<gelu_tanh_of>(call)
                        : elementwise_reference<gelu_of>(call);
}

// d/dx of x Phi(x), and of 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
std::string gelu_gradient(const Attrs& attrs, OperandTypes) {
  if (!with_tanh(attrs))
    return "dx = mul(dy, add(mul(add(erf(mul(x, 0.7071067811865476)), 1.0), 0.5), "
           "mul(mul(x, 0.3989422804014327), exp(mul(mul(x, x), -0.5)))))";
  return "q = mul(x, x); t = tanh(mul(mul(x, add(mul(q, 0.044715), 1.0)), 0.7978845608028654)); "
         "dx = mul(dy, mul(add(add(t, 1.0), mul(mul(x, sub(1.0, mul(t, t))), "
         "add(mul(q, 0.10703222440890037), 0.7978845608028654))), 0.5))";
}

TileCode gelu_code(const Attrs& attrs) {
  return with_tanh(attrs) ? TileCode::kGeluTanh : TileCode::kGelu;
}

}  // namespace

const OpDef neg{
    .name = "neg",
    .arguments = "x[self]",
    .rule_for = elementwise_rule,
    .linear = {"x"},
    .gradient = "dx = neg(dy)",
    .reference = elementwise_reference<negated>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kNeg>,
    .samples = {"x: f32[3, 5, 7]", "x: i64[6]", "x: bf16[33]"},
};

const OpDef abs{
    .name = "abs",
    .arguments = "x[self]",
    .rule_for = elementwise_rule,
    .gradient = "dx = where(gt(x, 0.0), dy, where(lt(x, 0.0), neg(dy), 0.0))",
    .reference = elementwise_reference<magnitude>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kAbs>,
    .samples = {"x: f32[3, 5]", "x: i64[7]"},
};

const OpDef floor{
    .name = "floor",
    .arguments = "x[self]",
    .rule_for = elementwise_rule,
    .gradient = "",
    .reference = elementwise_reference<floor_of>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kFloor>,
    .samples = {"x: f32[3, 5]", "x: f32[7]"},
};

const OpDef exp{
    .name = "exp",
    .arguments = "x[self]",
    .rule_for = elementwise_rule,
    .result_dtypes = float_result,
    .gradient = "dx = mul(dy, y)",
    .reference = elementwise_reference<exp_of>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kExp>,
    .samples = {"x: f32[3, 5, 7]", "x: bf16[33]"},
};

const OpDef log{
    .name = "log",
    .arguments = "x[self]",
    .rule_for = elementwise_rule,
    .result_dtypes = float_result,
    .gradient = "dx = div(dy, x)",
    .reference = elementwise_reference<log_of>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kLog>,
    .samples = {"x: f32[3, 5, 7]", "x: bf16[33]"},
};

const OpDef sqrt{
    .name = "sqrt",
    .arguments = "x[self]",
    .rule_for = elementwise_rule,
    .result_dtypes = float_result,
    .gradient = "dx = div(mul(dy, 0.5), y)",
    .reference = elementwise_reference<sqrt_of>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kSqrt>,
    .samples = {"x: f32[3, 5, 7]", "x: bf16[33]"},
};

const OpDef rsqrt{
    .name = "rsqrt",
    .arguments = "x[self]",
    .rule_for = elementwise_rule,
    .result_dtypes = float_result,
    .gradient = "dx = mul(mul(dy, -0.5), mul(y, mul(y, y)))",
    .reference = elementwise_reference<rsqrt_of>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kRsqrt>,
    .samples = {"x: f32[3, 5, 7]", "x: bf16[33]"},
};

const OpDef reciprocal{
    .name = "reciprocal",
    .arguments = "x[self]",
    .rule_for = elementwise_rule,
    .result_dtypes = float_result,
    .gradient = "dx = neg(mul(dy, mul(y, y)))",
    .reference = elementwise_reference<reciprocal_of>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kReciprocal>,
    .samples = {"x: f32[3, 5, 7]", "x: bf16[33]"},
};

const OpDef sin{
    .name = "sin",
    .arguments = "x[self]",
    .rule_for = elementwise_rule,
    .result_dtypes = float_result,
    .gradient = "dx = mul(dy, cos(x))",
    .reference = elementwise_reference<sin_of>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kSin>,
    .samples = {"x: f32[3, 5, 7]", "x: bf16[33]"},
};

const OpDef cos{
    .name = "cos",
    .arguments = "x[self]",
    .rule_for = elementwise_rule,
    .result_dtypes = float_result,
    .gradient = "dx = neg(mul(dy, sin(x)))",
    .reference = elementwise_reference<cos_of>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kCos>,
    .samples = {"x: f32[3, 5, 7]", "x: bf16[33]"},
};

const OpDef tanh{
    .name = "tanh",
    .arguments = "x[self]",
    .rule_for = elementwise_rule,
    .result_dtypes = float_result,
    .gradient = "dx = mul(dy, sub(1.0, mul(y, y)))",
    .reference = elementwise_reference<tanh_of>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kTanh>,
    .samples = {"x: f32[3, 5, 7]", "x: bf16[33]"},
};

const OpDef erf{
    .name = "erf",
    .arguments = "x[self]",
    .rule_for = elementwise_rule,
    .result_dtypes = float_result,
    .gradient = "dx = mul(dy, mul(1.1283791670955126, exp(neg(mul(x, x)))))",
    .reference = elementwise_reference<erf_of>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kErf>,
    .samples = {"x: f32[3, 5, 7]", "x: bf16[33]"},
};

const OpDef sigmoid{
    .name = "sigmoid",
    .arguments = "x[self]",
    .rule_for = elementwise_rule,
    .result_dtypes = float_result,
    .gradient = "dx = mul(dy, mul(y, sub(1.0, y)))",
    .reference = elementwise_reference<sigmoid_of>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kSigmoid>,
    .samples = {"x: f32[3, 5, 7]", "x: bf16[33]"},
};

const OpDef silu{
    .name = "silu",
    .arguments = "x[self]",
    .rule_for = elementwise_rule,
    .result_dtypes = float_result,
    .gradient = "dx = mul(dy, mul(sigmoid(x), add(1.0, mul(x, sub(1.0, sigmoid(x))))))",
    .reference = elementwise_reference<silu_of>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kSilu>,
    .samples = {"x: f32[3, 5, 7]", "x: bf16[4, 33]", "x: f16[19]"},
};

const OpDef relu{
    .name = "relu",
    .arguments = "x[self]",
    .rule_for = elementwise_rule,
    .gradient = "dx = where(gt(x, 0.0), dy, 0.0)",
    .reference = elementwise_reference<relu_of>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kRelu>,
    .samples = {"x: f32[3, 5, 7]", "x: bf16[33]"},
};

const OpDef gelu{
    .name = "gelu",
    .arguments = "x[self], approximate: str = none",
    .rule_for = elementwise_rule,
    .result_dtypes = float_result,
    .gradient_for = gelu_gradient,
    .reference = gelu_reference,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = gelu_code,
    .samples = {"x: f32[3, 5, 7]", "x: bf16[33], approximate=tanh", "x: f32[19], approximate=tanh"},
};

const OpDef square{
    .name = "square",
    .arguments = "x[self]",
    .rule_for = elementwise_rule,
    .expansion = "mul(x, x)",
    .samples = {"x: f32[3, 5]", "x: i64[7]"},
};

}  // namespace shardwright::ops
