// cat: tensors one behind the other in one dimension; stack: in a new one.
#include "base/error.h"
#include "ops/build.h"
#include "ops/copy.h"
#include "ops/table.h"

namespace shardwright::ops {

namespace {

// PyTorch lets tensors of shape [0] stand among tensors of any shape.
bool is_nothing(const TensorType& type) { return type.shape == Shape{0}; }

const Shape& model_shape(OperandTypes operands) {
  for (const auto& type : operands)
    if (!is_nothing(*type)) return type->shape;
  return operands[0]->shape;
}

std::string cat_rule(const Attrs& attrs, OperandTypes operands) {
  if (operands.empty()) throw Error(ErrorCode::kUsage, "no tensors; there must be at least one");
  const Shape& shape = model_shape(operands);
  const auto dim =
      static_cast<size_t>(normal_dim(attrs.integer("dim", 0), static_cast<int>(shape.size())));
  std::vector<std::string> words = dim_words("a", shape);
  std::string text;
  std::string whole = "c";
  int64_t total = 0;
  for (size_t i = 0; i < operands.size(); ++i) {
    const std::string name = "c" + std::to_string(i);
    whole += " " + name;
    words[dim] = name;
    text += (i > 0 ? ", " : "") + (is_nothing(*operands[i]) ? name : join_words(words));
    if (is_nothing(*operands[i])) continue;
    if (operands[i]->shape.size() != shape.size())
      throw Error(ErrorCode::kUsage, "tensors of shapes " + to_string(shape) + " and " +
                                         to_string(operands[i]->shape) +
                                         "; all must have the same number of dimensions");
    total += operands[i]->shape[dim];
  }
  words[dim] = "c=" + std::to_string(total);
  return text + " -> " + join_words(words) + "; " + whole + ": whole";
}

std::vector<PartCopy> cat_copies(const KernelSpec& spec) {
  const OperandSpec& y = spec.results[0];
  const auto dim = static_cast<size_t>(normal_dim(spec.attrs->integer("dim", 0), y.type.ndim()));
  std::vector<PartCopy> copies;
  int64_t begin = 0;
  for (size_t i = 0; i < spec.operands.size(); ++i) {
    const OperandSpec& x = spec.operands[i];
    if (is_nothing(x.type)) continue;
    copies.push_back({.operand = i,
                      .shape = x.type.shape,
                      .from = x.strides,
                      .to = y.strides,
                      .to_offset = begin * y.strides[dim]});
    begin += x.type.shape[dim];
  }
  return copies;
}

std::unique_ptr<Kernel> make_cat(const KernelSpec& spec) {
  for (const OperandSpec& x : spec.operands)
    if (x.type.dtype != spec.results[0].type.dtype) return make_reference_kernel(spec);
  return make_part_copies(spec, cat_copies(spec));
}

void cat_reference(const RefCall& call) {
  RefTensor& y = call.out();
  const auto dim = static_cast<size_t>(normal_dim(call.attrs.integer("dim", 0), y.type.ndim()));
  const Strides strides = contiguous_strides(y.type.shape);
  int64_t begin = 0;
  for (const RefTensor* x : call.operands) {
    if (is_nothing(x->type)) continue;
    std::vector<int64_t> index(x->type.shape.size(), 0);
    for (double element : x->data) {
      y.data[static_cast<size_t>(position_of(index, strides) + begin * strides[dim])] = element;
      next_index(x->type.shape, index);
    }
    begin += x->type.shape[dim];
  }
}

std::string cat_gradient(const Attrs& attrs, OperandTypes operands) {
  const Shape& shape = model_shape(operands);
  const int64_t dim = normal_dim(attrs.integer("dim", 0), static_cast<int>(shape.size()));
  std::string text;
  int64_t begin = 0;
  for (size_t i = 0; i < operands.size(); ++i) {
    const int64_t size =
        is_nothing(*operands[i]) ? 0 : operands[i]->shape[static_cast<size_t>(dim)];
    text += (text.empty() ? "dxs" : "; dxs") + std::to_string(i) +
            " = reshape(slice(dy, dim=" + std::to_string(dim) + ", start=" + std::to_string(begin) +
            ", end=" + std::to_string(begin + size) + "), shape=" + ints_text(operands[i]->shape) +
            ")";
    begin += size;
  }
  return text;
}

Shape stacked(const Attrs& attrs, Shape shape, int64_t count, size_t* dim) {
  *dim =
      static_cast<size_t>(normal_dim(attrs.integer("dim", 0), static_cast<int>(shape.size()) + 1));
  shape.insert(shape.begin() + static_cast<std::ptrdiff_t>(*dim), count);
  return shape;
}

std::string stack_rule(const Attrs& attrs, OperandTypes operands) {
  size_t dim = 0;
  const auto count = static_cast<int64_t>(operands.size());
  return whole_rule(operands, {stacked(attrs, operands[0]->shape, count, &dim)});
}

std::string stack_expansion(const Attrs& attrs, OperandTypes operands) {
  size_t dim = 0;
  const std::string shape = to_string(stacked(attrs, operands[0]->shape, 1, &dim));
  std::string text = "cat(";
  for (size_t i = 0; i < operands.size(); ++i)
    text += "reshape(xs" + std::to_string(i) + ", shape=" + shape + "), ";
  return text + "dim=" + std::to_string(dim) + ")";
}

}  // namespace

const OpDef cat{
    .name = "cat",
    .aliases = {"concat", "concatenate"},
    .arguments = "xs[tensors]: tensors, dim: int = 0",
    .rule_for = cat_rule,
    .linear = {"xs"},
    .gradient_for = cat_gradient,
    .reference = cat_reference,
    .make_kernel = make_cat,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .samples = {"xs: f32[3, 5, 2], xs: f32[3, 1, 2], xs: f32[3, 4, 2], dim=1",
                "xs: bf16[7], xs: bf16[2]", "xs: i64[2, 3], xs: i64[2, 3], dim=-1",
                "xs: f32[0], xs: f32[4, 3]"},
};

const OpDef stack{
    .name = "stack",
    .arguments = "xs[tensors]: tensors, dim: int = 0",
    .rule_for = stack_rule,
    .expansion_for = stack_expansion,
    .samples = {"xs: f32[3, 5], xs: f32[3, 5], dim=-1", "xs: f32[4], xs: f32[4], xs: f32[4]"},
};

}  // namespace shardwright::ops
