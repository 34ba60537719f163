// permute: the dimensions in another order; transpose and t are written with it.
#include <algorithm>

#include "base/error.h"
#include "ops/build.h"
#include "ops/copy.h"
#include "ops/table.h"

namespace shardwright::ops {

namespace {

// dims[i]: the dimension of the operand that is dimension i of the result.
std::vector<size_t> permutation(const Attrs& attrs, int ndim) {
  std::vector<size_t> dims;
  std::vector<bool> seen(static_cast<size_t>(ndim), false);
  for (int64_t dim : attrs.integers("dims")) {
    dims.push_back(static_cast<size_t>(normal_dim(dim, ndim)));
    seen[dims.back()] = true;
  }
  if (dims.size() != seen.size() || std::find(seen.begin(), seen.end(), false) != seen.end())
    throw Error(ErrorCode::kUsage, "dims " + ints_text(attrs.integers("dims")) +
                                       " are not an order of " + std::to_string(ndim) +
                                       " dimensions; each must stand there once");
  return dims;
}

std::string permute_rule(const Attrs& attrs, OperandTypes operands) {
  const std::vector<std::string> from = dim_words("a", operands[0]->shape);
  std::vector<std::string> to;
  for (size_t dim : permutation(attrs, operands[0]->ndim())) to.push_back(from[dim]);
  return join_words(from) + " -> " + join_words(to);
}

void permute_reference(const RefCall& call) {
  const RefTensor& x = call.in(0);
  const std::vector<size_t> dims = permutation(call.attrs, x.type.ndim());
  const Strides strides = contiguous_strides(x.type.shape);
  gather_elements(x, call.out(), [&](std::span<const int64_t> index) {
    int64_t position = 0;
    for (size_t i = 0; i < dims.size(); ++i) position += index[i] * strides[dims[i]];
    return position;
  });
}

bool permute_view(const KernelSpec& spec, const Strides& in, Strides* out, int64_t* offset) {
  out->clear();
  *offset = 0;
  for (size_t dim : permutation(*spec.attrs, spec.operands[0].type.ndim())) out->push_back(in[dim]);
  return true;
}

std::string transpose_dims(const Attrs& attrs, OperandTypes operands) {
  const int ndim = operands[0]->ndim();
  if (ndim == 0) return "[]";
  return swapped_dims_text(ndim, normal_dim(attrs.integer("dim0"), ndim),
                           normal_dim(attrs.integer("dim1"), ndim));
}

std::string transpose_rule(const Attrs& attrs, OperandTypes operands) {
  Shape shape = operands[0]->shape;
  const int ndim = operands[0]->ndim();
  if (ndim > 0)
    std::swap(shape[static_cast<size_t>(normal_dim(attrs.integer("dim0"), ndim))],
              shape[static_cast<size_t>(normal_dim(attrs.integer("dim1"), ndim))]);
  return whole_rule(operands, {shape});
}

std::string transpose_expansion(const Attrs& attrs, OperandTypes operands) {
  return "permute(x, dims=" + transpose_dims(attrs, operands) + ")";
}

std::string t_rule(const Attrs&, OperandTypes operands) {
  const Shape& shape = operands[0]->shape;
  if (shape.size() > 2)
    throw Error(ErrorCode::kUsage, "shape " + to_string(shape) + "; at most 2 dimensions");
  return whole_rule(operands, {Shape(shape.rbegin(), shape.rend())});
}

std::string t_expansion(const Attrs&, OperandTypes operands) {
  return operands[0]->ndim() < 2 ? "clone(x)" : "permute(x, dims=[1, 0])";
}

std::string permute_gradient(const Attrs& attrs, OperandTypes operands) {
  const std::vector<size_t> dims = permutation(attrs, operands[0]->ndim());
  std::vector<int64_t> inverse(dims.size());
  for (size_t i = 0; i < dims.size(); ++i) inverse[dims[i]] = static_cast<int64_t>(i);
  return "dx = permute(dy, dims=" + ints_text(inverse) + ")";
}

}  // namespace

const OpDef permute{
    .name = "permute",
    .arguments = "x[self], dims: ints",
    .rule_for = permute_rule,
    .linear = {"x"},
    .gradient_for = permute_gradient,
    .reference = permute_reference,
    .make_kernel = make_view_copy,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .view = permute_view,
    .samples = {"x: f32[3, 5, 7], dims=[2, 0, 1]", "x: bf16[2, 9, 3, 5], dims=[0, 2, 1, 3]",
                "x: i64[4, 5], dims=[-1, -2]"},
};

const OpDef transpose{
    .name = "transpose",
    .arguments = "x[self], dim0: int, dim1: int",
    .rule_for = transpose_rule,
    .expansion_for = transpose_expansion,
    .samples = {"x: f32[3, 5, 7], dim0=1, dim1=-1", "x: f32[3, 5], dim0=0, dim1=1"},
};

const OpDef t{
    .name = "t",
    .arguments = "x[self]",
    .rule_for = t_rule,
    .expansion_for = t_expansion,
    .samples = {"x: f32[3, 5]", "x: f32[4]"},
};

}  // namespace shardwright::ops
