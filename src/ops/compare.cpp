// Comparisons, logic, and the choice between two operands.
#include "ops/elementwise.h"
#include "ops/table.h"

namespace shardwright::ops {

namespace {

using kernels::TileCode;

double equal(double a, double b) { return a == b; }
double not_equal(double a, double b) { return a != b; }
double less(double a, double b) { return a < b; }
double less_or_equal(double a, double b) { return a <= b; }
double greater(double a, double b) { return a > b; }
double greater_or_equal(double a, double b) { return a >= b; }
double both(double a, double b) { return a != 0 && b != 0; }
double either(double a, double b) { return a != 0 || b != 0; }
double negation(double a) { return a == 0; }
double chosen(double condition, double a, double b) { return condition != 0 ? a : b; }

// Of integers, bit by bit, by their 64-bit values: right for every width and sign.
double bits_and(double a, double b) {
  return static_cast<double>(static_cast<int64_t>(a) & static_cast<int64_t>(b));
}
double bits_or(double a, double b) {
  return static_cast<double>(static_cast<int64_t>(a) | static_cast<int64_t>(b));
}
double bits_not(double a) { return static_cast<double>(~static_cast<int64_t>(a)); }

void bitwise_not_reference(const RefCall& call) {
  call.out().type.dtype == DType::kBool ? elementwise_reference<negation>(call)
                                        : elementwise_reference<bits_not>(call);
}

bool all_bool(OperandTypes operands) { return promoted_dtype(operands) == DType::kBool; }
std::string and_expansion(const Attrs&, OperandTypes operands) {
  return all_bool(operands) ? "logical_and(x, other)" : "";
}
std::string or_expansion(const Attrs&, OperandTypes operands) {
  return all_bool(operands) ? "logical_or(x, other)" : "";
}
std::string not_expansion(const Attrs&, OperandTypes operands) {
  return all_bool(operands) ? "logical_not(x)" : "";
}

std::vector<DType> where_dtype(const Attrs&, OperandTypes operands) {
  return {promoted_dtype(operands.subspan(1))};
}

std::vector<DType> masked_fill_dtype(const Attrs&, OperandTypes operands) {
  return {operands[0]->dtype};
}

}  // namespace

const OpDef eq{
    .name = "eq",
    .arguments = "x[self], other",
    .rule_for = elementwise_rule,
    .result_dtypes = bool_result,
    .reference = elementwise_reference<equal>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kEq>,
    .samples = {"x: f32[3, 5], other: f32[5]", "x: i64[7], other: i64[]",
                "x: i64[2, 3], other: i64[2, 1]"},
};

const OpDef ne{
    .name = "ne",
    .arguments = "x[self], other",
    .rule_for = elementwise_rule,
    .result_dtypes = bool_result,
    .reference = elementwise_reference<not_equal>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kNe>,
    .samples = {"x: f32[3, 5], other: f32[5]", "x: i64[7], other: i64[]",
                "x: i64[2, 3], other: i64[2, 1]"},
};

const OpDef lt{
    .name = "lt",
    .arguments = "x[self], other",
    .rule_for = elementwise_rule,
    .result_dtypes = bool_result,
    .reference = elementwise_reference<less>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kLt>,
    .samples = {"x: f32[3, 5], other: f32[5]", "x: i64[7], other: i64[]",
                "x: i64[2, 3], other: i64[2, 1]"},
};

const OpDef le{
    .name = "le",
    .arguments = "x[self], other",
    .rule_for = elementwise_rule,
    .result_dtypes = bool_result,
    .reference = elementwise_reference<less_or_equal>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kLe>,
    .samples = {"x: f32[3, 5], other: f32[5]", "x: i64[7], other: i64[]",
                "x: i64[2, 3], other: i64[2, 1]"},
};

const OpDef gt{
    .name = "gt",
    .arguments = "x[self], other",
    .rule_for = elementwise_rule,
    .result_dtypes = bool_result,
    .reference = elementwise_reference<greater>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kGt>,
    .samples = {"x: f32[3, 5], other: f32[5]", "x: i64[7], other: i64[]",
                "x: i64[2, 3], other: i64[2, 1]"},
};

const OpDef ge{
    .name = "ge",
    .arguments = "x[self], other",
    .rule_for = elementwise_rule,
    .result_dtypes = bool_result,
    .reference = elementwise_reference<greater_or_equal>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kGe>,
    .samples = {"x: f32[3, 5], other: f32[5]", "x: i64[7], other: i64[]",
                "x: i64[2, 3], other: i64[2, 1]"},
};

const OpDef logical_and{
    .name = "logical_and",
    .arguments = "x[self], other",
    .rule_for = elementwise_rule,
    .result_dtypes = bool_result,
    .reference = elementwise_reference<both>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kAnd>,
    .samples = {"x: bool[3, 5], other: bool[5]", "x: bool[7], other: bool[]"},
};

const OpDef logical_or{
    .name = "logical_or",
    .arguments = "x[self], other",
    .rule_for = elementwise_rule,
    .result_dtypes = bool_result,
    .reference = elementwise_reference<either>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kOr>,
    .samples = {"x: bool[3, 5], other: bool[5]", "x: bool[7], other: bool[]"},
};

const OpDef logical_not{
    .name = "logical_not",
    .arguments = "x[self]",
    .rule_for = elementwise_rule,
    .result_dtypes = bool_result,
    .reference = elementwise_reference<negation>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kNot>,
    .samples = {"x: bool[3, 5]", "x: i64[7]"},
};

const OpDef bitwise_and{
    .name = "bitwise_and",
    .aliases = {"__and__"},
    .arguments = "x[self], other",
    .rule_for = elementwise_rule,
    .expansion_for = and_expansion,
    .reference = elementwise_reference<bits_and>,
    .make_kernel = make_reference_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .samples = {"x: bool[3, 5], other: bool[5]", "x: i64[7], other: i64[]"},
};

const OpDef bitwise_or{
    .name = "bitwise_or",
    .aliases = {"__or__"},
    .arguments = "x[self], other",
    .rule_for = elementwise_rule,
    .expansion_for = or_expansion,
    .reference = elementwise_reference<bits_or>,
    .make_kernel = make_reference_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .samples = {"x: bool[3, 5], other: bool[5]", "x: i64[7], other: i64[]"},
};

const OpDef bitwise_not{
    .name = "bitwise_not",
    .arguments = "x[self]",
    .rule_for = elementwise_rule,
    .expansion_for = not_expansion,
    .reference = bitwise_not_reference,
    .make_kernel = make_reference_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .samples = {"x: i64[3, 5]", "x: bool[7]"},
};

const OpDef where{
    .name = "where",
    .arguments = "condition, x[self], other",
    .rule_for = elementwise_rule,
    .linear = {"x other"},
    .result_dtypes = where_dtype,
    .gradient = "dx = where(condition, dy, 0.0); dother = where(condition, 0.0, dy)",
    .reference = elementwise_reference<chosen>,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<TileCode::kWhere>,
    .samples = {"condition: bool[3, 5], x: f32[3, 5], other: f32[5]",
                "condition: bool[5, 1], x: f32[], other: f32[3, 5, 7]",
                "condition: bool[9], x: bf16[9], other: f32[]"},
};

const OpDef masked_fill{
    .name = "masked_fill",
    .arguments = "x[self], mask, value",
    .rule_for = elementwise_rule,
    .result_dtypes = masked_fill_dtype,
    .expansion = "where(mask, value, x)",
    .samples = {"x: f32[3, 5], mask: bool[5], value: f32[]",
                "x: bf16[2, 3, 5], mask: bool[3, 1], value: f32[]"},
};

}  // namespace shardwright::ops
