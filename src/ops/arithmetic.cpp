// add, sub, mul, div, pow and their like: two operands that broadcast.
#include "base/error.h"
#include "ops/elementwise.h"
#include "ops/table.h"

namespace shardwright::ops {

namespace {

using kernels::TileCode;

double plus(double a, double b) { return a + b; }
double minus(double a, double b) { return a - b; }
double times(double a, double b) { return a * b; }
double divided(double a, double b) { return a / b; }
double floor_divided(double a, double b) { return std::floor(a / b); }
// The sign of the result is that of the divisor.
double remainder_of(double a, double b) { return a - std::floor(a / b) * b; }
double power(double a, double b) { return std::pow(a, b); }
double larger(double a, double b) { return std::isnan(a) || a > b ? a : b; }
double smaller(double a, double b) { return std::isnan(a) || a < b ? a : b; }

// Division of integers by 0 is an error in PyTorch; here it gives what storing infinity gives.
template <auto kFunction>
void division_reference(const RefCall& call) {
  elementwise_reference<kFunction>(call);
  const DType dtype = call.out().type.dtype;
  if (is_floating(dtype)) return;
  for (double& value : call.out().data) value = round_to(dtype, value);
}

// `other` times alpha, which is nearly always 1.
std::string scaled_other(const Attrs& attrs) {
  const Attr* alpha = attrs.find("alpha");
  return alpha == nullptr || attrs.number("alpha") == 1 ? "other"
                                                        : "mul(other, " + to_string(*alpha) + ")";
}

std::string add_expansion(const Attrs& attrs, OperandTypes) {
  const std::string other = scaled_other(attrs);
  return other == "other" ? "" : "add(x, " + other + ")";
}

std::string sub_expansion(const Attrs& attrs, OperandTypes) {
  const std::string other = scaled_other(attrs);
  return other == "other" ? "" : "sub(x, " + other + ")";
}

std::string clamp_expansion(const Attrs& attrs, OperandTypes) {
  std::string text = "x";
  if (attrs.has("min")) text = "maximum(" + text + ", " + to_string(*attrs.find("min")) + ")";
  if (attrs.has("max")) text = "minimum(" + text + ", " + to_string(*attrs.find("max")) + ")";
  return text;
}

std::string rsub_expansion(const Attrs& attrs, OperandTypes) {
  const Attr* alpha = attrs.find("alpha");
  const bool scaled = alpha != nullptr && attrs.number("alpha") != 1;
  return scaled ? "sub(other, mul(x, " + to_string(*alpha) + "))" : "sub(other, x)";
}

std::string div_expansion(const Attrs& attrs, OperandTypes) {
  if (!attrs.has("rounding_mode")) return "";
  if (attrs.text("rounding_mode") == "floor") return "floor_divide(x, other)";
  throw Error(ErrorCode::kUnsupported, "div: rounding_mode \"" + attrs.text("rounding_mode") +
                                           "\" is not supported; \"floor\" is");
}

std::vector<DType> div_dtype(const Attrs& attrs, OperandTypes operands) {
  if (attrs.has("rounding_mode")) return {promoted_dtype(operands)};
  return float_result(attrs, operands);
}

}  // namespace

const OpDef add{
    .name = "add",
    .arguments = "x[self], other, alpha: number = 1",
    .rule_for = elementwise_rule,
    .linear = {"x other"},
    .gradient = "dx = dy; dother = dy",
    .expansion_for = add_expansion,
    .reference = elementwise_reference<plus>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kAdd>,
    .samples = {"x: f32[3, 5, 7], other: f32[3, 5, 7]", "x: f32[3, 1, 7], other: f32[5, 1]",
                "x: bf16[4, 6], other: f32[]", "x: i64[5], other: i64[1]"},
};

const OpDef sub{
    .name = "sub",
    .arguments = "x[self], other, alpha: number = 1",
    .rule_for = elementwise_rule,
    .linear = {"x other"},
    .gradient = "dx = dy; dother = neg(dy)",
    .expansion_for = sub_expansion,
    .reference = elementwise_reference<minus>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kSub>,
    .samples = {"x: f32[3, 5], other: f32[5]", "x: i64[6], other: i64[]"},
};

const OpDef rsub{
    .name = "rsub",
    .arguments = "x[self], other, alpha: number = 1",
    .rule_for = elementwise_rule,
    .expansion_for = rsub_expansion,
    .samples = {"x: f32[3, 5], other: f32[]", "x: f32[4], other: f32[4], alpha=2"},
};

const OpDef clamp{
    .name = "clamp",
    .arguments = "x[self], min: number?, max: number?",
    .rule_for = elementwise_rule,
    .expansion_for = clamp_expansion,
    .samples = {"x: f32[3, 5], min=-0.5, max=0.5", "x: i64[4], min=0", "x: bf16[7], max=1"},
};

const OpDef mul{
    .name = "mul",
    .arguments = "x[self], other",
    .rule_for = elementwise_rule,
    .linear = {"x", "other"},
    .gradient = "dx = mul(dy, other); dother = mul(dy, x)",
    .reference = elementwise_reference<times>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kMul>,
    .samples = {"x: f32[3, 5, 7], other: f32[3, 5, 1]", "x: f32[7], other: f32[2, 3, 7]",
                "x: bf16[4, 9], other: bf16[4, 9]", "x: i64[5], other: bool[5]"},
};

const OpDef div{
    .name = "div",
    .aliases = {"true_divide"},
    .arguments = "x[self], other, rounding_mode: str?",
    .rule_for = elementwise_rule,
    .linear = {"x"},
    .result_dtypes = div_dtype,
    .gradient = "dx = div(dy, other); dother = neg(div(mul(dy, y), other))",
    .expansion_for = div_expansion,
    .reference = elementwise_reference<divided>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kDiv>,
    .samples = {"x: f32[3, 5], other: f32[3, 1]", "x: i64[6], other: i64[]"},
};

const OpDef floor_divide{
    .name = "floor_divide",
    .arguments = "x[self], other",
    .rule_for = elementwise_rule,
    .gradient = "",
    .reference = division_reference<floor_divided>,
    .make_kernel = make_reference_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .samples = {"x: i64[7], other: i64[]", "x: f32[3, 5], other: f32[5]"},
};

const OpDef remainder{
    .name = "remainder",
    .arguments = "x[self], other",
    .rule_for = elementwise_rule,
    .gradient = "dx = dy; dother = neg(mul(dy, floor_divide(x, other)))",
    .reference = division_reference<remainder_of>,
    .make_kernel = make_reference_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .samples = {"x: i64[7], other: i64[]", "x: f32[3, 5], other: f32[5]"},
};

const OpDef pow{
    .name = "pow",
    .arguments = "x[self], exponent",
    .rule_for = elementwise_rule,
    .gradient =
        "dx = mul(dy, mul(exponent, pow(x, sub(exponent, 1.0)))); dexponent = mul(dy, mul(y, "
        "log(x)))",
    .reference = elementwise_reference<power>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kPow>,
    .samples = {"x: f32[3, 5], exponent: f32[]", "x: f32[], exponent: f32[7]",
                "x: f32[2, 5], exponent: f32[5]"},
};

const OpDef maximum{
    .name = "maximum",
    .arguments = "x[self], other",
    .rule_for = elementwise_rule,
    .gradient =
        "h = mul(dy, 0.5); e = where(eq(x, other), h, 0.0); dx = where(gt(x, other), dy, e); "
        "dother = where(lt(x, other), dy, e)",
    .reference = elementwise_reference<larger>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kMax>,
    .samples = {"x: f32[3, 5], other: f32[5]", "x: i64[6], other: i64[]"},
};

const OpDef minimum{
    .name = "minimum",
    .arguments = "x[self], other",
    .rule_for = elementwise_rule,
    .gradient =
        "h = mul(dy, 0.5); e = where(eq(x, other), h, 0.0); dx = where(lt(x, other), dy, e); "
        "dother = where(gt(x, other), dy, e)",
    .reference = elementwise_reference<smaller>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kMin>,
    .samples = {"x: f32[3, 5], other: f32[5]", "x: i64[6], other: i64[]"},
};

}  // namespace shardwright::ops
