// cast: another dtype; type_as, which takes it from another tensor.
#include "ops/elementwise.h"
#include "ops/table.h"

namespace shardwright::ops {

namespace {

std::vector<DType> cast_dtype(const Attrs& attrs, OperandTypes operands) {
  return {attrs.maybe_dtype("dtype").value_or(operands[0]->dtype)};
}

void cast_reference(const RefCall& call) {
  const DType dtype = call.out().type.dtype;
  for (size_t i = 0; i < call.out().data.size(); ++i) {
    const double value = call.in(0).data[i];
    call.out().data[i] = is_floating(dtype) ? value : round_to(dtype, value);
  }
}

std::vector<DType> dtype_of_other(const Attrs&, OperandTypes operands) {
  return {operands[1]->dtype};
}

std::string type_as_expansion(const Attrs&, OperandTypes operands) {
  return "cast(x, dtype=" + std::string(dtype_name(operands[1]->dtype)) + ")";
}

}  // namespace

// Not linear: a cast that narrows rounds, and the sum of rounded parts is not the rounded sum.
const OpDef cast{
    .name = "cast",
    .aliases = {"_to_copy", "to"},
    .arguments = "x[self], dtype: dtype?",
    .rule_for = elementwise_rule,
    .result_dtypes = cast_dtype,
    .gradient = "dx = dy",
    .reference = cast_reference,
    .make_kernel = make_elementwise_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .elementwise = true,
    .tile_code = tile<kernels::TileCode::kCopy>,
    .samples = {"x: f32[3, 5], dtype=bf16", "x: bf16[7, 3], dtype=f32", "x: f32[9], dtype=i64",
                "x: i64[2, 5], dtype=bool", "x: bool[7], dtype=f32"},
};

const OpDef type_as{
    .name = "type_as",
    .arguments = "x[self], other",
    .rule = "t..., u... -> t...; u...: whole",
    .result_dtypes = dtype_of_other,
    .expansion_for = type_as_expansion,
    .samples = {"x: f32[3, 5], other: bf16[2]", "x: i64[4], other: f32[]"},
};

}  // namespace shardwright::ops
