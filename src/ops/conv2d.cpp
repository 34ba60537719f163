// conv2d, in the one form that is a product of matrices: the patch embedding of vision models.
#include <array>

#include "base/error.h"
#include "ops/build.h"
#include "ops/table.h"

namespace shardwright::ops {
namespace {

// stride, padding, dilation: one number stands for both dimensions.
std::array<int64_t, 2> pair_of(const Attrs& attrs, const char* name, int64_t otherwise) {
  const Attr* attr = attrs.find(name);
  if (attr == nullptr) return {otherwise, otherwise};
  if (const auto* one = std::get_if<int64_t>(attr)) return {*one, *one};
  const auto* list = std::get_if<std::vector<int64_t>>(attr);
  if (list == nullptr || list->empty()) return {otherwise, otherwise};
  return {list->front(), list->back()};
}

void check_supported(const Attrs& attrs, const Shape& weight) {
  const std::array<int64_t, 2> stride = pair_of(attrs, "stride", 1);
  const std::array<int64_t, 2> padding = pair_of(attrs, "padding", 0);
  const std::array<int64_t, 2> dilation = pair_of(attrs, "dilation", 1);
  const int64_t groups = attrs.integer("groups", 1);
  const std::array<int64_t, 2> kernel{weight[2], weight[3]};
  if (stride == kernel && padding == std::array<int64_t, 2>{0, 0} &&
      dilation == std::array<int64_t, 2>{1, 1} && groups == 1)
    return;
  throw Error(ErrorCode::kUnsupported,
              "kernel " + ints_text(kernel) + ", stride " + ints_text(stride) + ", padding " +
                  ints_text(padding) + ", dilation " + ints_text(dilation) + ", groups " +
                  std::to_string(groups) +
                  "; supported: patches that do not overlap, that is stride " + ints_text(kernel) +
                  ", padding [0, 0], dilation [1, 1], groups 1");
}

// n c (y p) (x q), rows and columns beyond the last patch being left out.
std::string conv2d_rule(const Attrs& attrs, OperandTypes operands) {
  if (operands[0]->ndim() != 4 || operands[1]->ndim() != 4)
    throw Error(ErrorCode::kUnsupported, "input is " + to_string(*operands[0]) + " and weight " +
                                             to_string(*operands[1]) +
                                             "; both must have 4 dimensions");
  const Shape& x = operands[0]->shape;
  const Shape& weight = operands[1]->shape;
  check_supported(attrs, weight);
  return "n c h w, m c p q, m -> n m y=" + std::to_string(x[2] / weight[2]) +
         " x=" + std::to_string(x[3] / weight[3]) + "; c: sum; h w p q y x: whole";
}

std::vector<DType> conv2d_dtypes(const Attrs&, OperandTypes operands) {
  return {common_dtype(conv2d, operands)};
}

std::string conv2d_expansion(const Attrs&, OperandTypes operands) {
  const Shape& x = operands[0]->shape;
  const Shape& weight = operands[1]->shape;
  const int64_t n = x[0];
  const int64_t c = x[1];
  const int64_t m = weight[0];
  const int64_t p = weight[2];
  const int64_t q = weight[3];
  const int64_t rows = x[2] / p;
  const int64_t columns = x[3] / q;
  std::string image = "x";
  if (x[2] != rows * p)
    image = "slice(" + image + ", dim=2, start=0, end=" + std::to_string(rows * p) + ")";
  if (x[3] != columns * q)
    image = "slice(" + image + ", dim=3, start=0, end=" + std::to_string(columns * q) + ")";
  return "a = reshape(" + image + ", shape=" + ints_text(Shape{n, c, rows, p, columns, q}) +
         "); b = reshape(permute(a, dims=[0, 2, 4, 1, 3, 5]), shape=" +
         ints_text(Shape{n, rows * columns, c * p * q}) +
         "); y = linear(b, reshape(weight, shape=" + ints_text(Shape{m, c * p * q}) + "), " +
         (operands[2] ? "bias" : "-") +
         "); reshape(permute(y, dims=[0, 2, 1]), shape=" + ints_text(Shape{n, m, rows, columns}) +
         ")";
}

}  // namespace

const OpDef conv2d{
    .name = "conv2d",
    .arguments =
        "x[input], weight, bias?, stride: ints = [1, 1], padding: ints = [0, 0], "
        "dilation: ints = [1, 1], groups: int = 1",
    .rule_for = conv2d_rule,
    .result_dtypes = conv2d_dtypes,
    .expansion_for = conv2d_expansion,
    .samples = {"x: f32[2, 3, 8, 12], weight: f32[5, 3, 4, 4], bias: f32[5], stride=[4, 4]",
                "x: f32[1, 3, 9, 8], weight: f32[5, 3, 2, 4], stride=[2, 4]"},
};

}  // namespace shardwright::ops
