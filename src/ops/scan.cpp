// cumsum, diff, tril and triu: they build masks and positions, nearly always from constants, so the
// reference is their kernel.
#include "base/check.h"
#include "ops/build.h"
#include "ops/copy.h"
#include "ops/table.h"

namespace shardwright::ops {

namespace {

std::string cumsum_rule(const Attrs& attrs, OperandTypes operands) {
  if (operands[0]->ndim() == 0) return "->";
  std::vector<std::string> words = dim_words("a", operands[0]->shape);
  words[static_cast<size_t>(normal_dim(attrs.integer("dim"), operands[0]->ndim()))] = "k";
  const std::string text = join_words(words);
  return text + " -> " + text + "; k: whole";
}

std::vector<DType> cumsum_dtype(const Attrs& attrs, OperandTypes operands) {
  const DType own = operands[0]->dtype;
  return {attrs.maybe_dtype("dtype").value_or(is_floating(own) ? own : DType::kI64)};
}

void cumsum_reference(const RefCall& call) {
  RefTensor& y = call.out();
  y.data = call.in(0).data;
  if (y.type.shape.empty()) return;
  const auto dim = static_cast<size_t>(normal_dim(call.attrs.integer("dim"), y.type.ndim()));
  const int64_t step = contiguous_strides(y.type.shape)[dim];
  std::vector<int64_t> index(y.type.shape.size(), 0);
  for (size_t i = 0; i < y.data.size(); ++i) {
    if (index[dim] > 0) y.data[i] += y.data[i - static_cast<size_t>(step)];
    next_index(y.type.shape, index);
  }
}

// Every element counts in all sums from its own on.
std::string cumsum_gradient(const Attrs& attrs, OperandTypes operands) {
  if (operands[0]->ndim() == 0) return "dx = dy";
  const std::string dim = std::to_string(attrs.integer("dim"));
  return "dx = add(sub(sum(dy, dim=[" + dim + "], keepdim=true), cumsum(dy, dim=" + dim + ")), dy)";
}

template <bool kLower>
std::string triangle_gradient(const Attrs& attrs, OperandTypes) {
  return std::string("dx = ") + (kLower ? "tril" : "triu") +
         "(dy, diagonal=" + std::to_string(attrs.integer("diagonal", 0)) + ")";
}

size_t diff_dim(const Attrs& attrs, int ndim) {
  return static_cast<size_t>(normal_dim(attrs.integer("dim", -1), ndim));
}

std::string diff_rule(const Attrs& attrs, OperandTypes operands) {
  std::vector<std::string> words = dim_words("a", operands[0]->shape);
  const size_t dim = diff_dim(attrs, operands[0]->ndim());
  int64_t rows = -attrs.integer("n", 1);
  std::string text;
  std::string whole = "k";
  for (size_t i = 0; i < operands.size(); ++i) {
    if (i > 0) text += ", ";
    if (!operands[i]) {
      text += "-";
      continue;
    }
    words[dim] = "k" + std::to_string(i);
    whole += " " + words[dim];
    text += join_words(words);
    CHECK(dim < operands[i]->shape.size());
    rows += operands[i]->shape[dim];
  }
  words[dim] = "k=" + std::to_string(std::max<int64_t>(rows, 0));
  return text + " -> " + join_words(words) + "; " + whole + ": whole";
}

// One line of diff: the differences of neighbours, n times.
std::vector<double> differences(std::vector<double> line, int64_t n) {
  for (int64_t i = 0; i < n && !line.empty(); ++i) {
    for (size_t j = 0; j + 1 < line.size(); ++j) line[j] = line[j + 1] - line[j];
    line.pop_back();
  }
  return line;
}

void diff_reference(const RefCall& call) {
  RefTensor& y = call.out();
  const size_t dim = diff_dim(call.attrs, y.type.ndim());
  const bool is_bool = y.type.dtype == DType::kBool;
  Shape lines = y.type.shape;
  lines[dim] = 1;
  std::vector<int64_t> index(lines.size(), 0);
  const Strides strides = contiguous_strides(y.type.shape);
  for (int64_t i = 0; i < element_count(lines); ++i, next_index(lines, index)) {
    std::vector<double> line;
    for (const size_t operand : {1U, 0U, 2U}) {  // prepend, x, append
      if (!call.has(operand)) continue;
      const RefTensor& x = call.in(operand);
      const Strides x_strides = contiguous_strides(x.type.shape);
      for (int64_t row = 0; row < x.type.shape[dim]; ++row)
        line.push_back(
            x.data[static_cast<size_t>(position_of(index, x_strides) + row * x_strides[dim])]);
    }
    line = differences(std::move(line), call.attrs.integer("n", 1));
    for (size_t row = 0; row < line.size(); ++row)
      y.data[static_cast<size_t>(position_of(index, strides)) +
             row * static_cast<size_t>(strides[dim])] = is_bool ? line[row] != 0 : line[row];
  }
}

std::vector<DType> diff_dtype(const Attrs&, OperandTypes operands) { return {operands[0]->dtype}; }

template <bool kLower>
void triangle_reference(const RefCall& call) {
  RefTensor& y = call.out();
  const int64_t diagonal = call.attrs.integer("diagonal", 0);
  const int64_t columns = y.type.shape.back();
  const int64_t rows = y.type.shape[y.type.shape.size() - 2];
  for (size_t i = 0; i < y.data.size(); ++i) {
    const int64_t column = static_cast<int64_t>(i) % columns;
    const int64_t row = static_cast<int64_t>(i) / columns % rows;
    const bool kept = kLower ? column <= row + diagonal : column >= row + diagonal;
    y.data[i] = kept ? call.in(0).data[i] : 0;
  }
}

}  // namespace

const OpDef cumsum{
    .name = "cumsum",
    .arguments = "x[self], dim: int, dtype: dtype?",
    .rule_for = cumsum_rule,
    .linear = {"x"},
    .result_dtypes = cumsum_dtype,
    .gradient_for = cumsum_gradient,
    .reference = cumsum_reference,
    .make_kernel = make_reference_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .samples = {"x: f32[3, 5, 2], dim=1", "x: bool[2, 7], dim=-1", "x: i64[5], dim=0"},
};

const OpDef diff{
    .name = "diff",
    .arguments = "x[self], prepend?, append?, n: int = 1, dim: int = -1",
    .rule_for = diff_rule,
    .result_dtypes = diff_dtype,
    .reference = diff_reference,
    .make_kernel = make_reference_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .samples = {"x: i64[2, 7], prepend: i64[2, 1]", "x: f32[5, 3], n=2, dim=0",
                "x: f32[4], append: f32[2]"},
};

const OpDef tril{
    .name = "tril",
    .arguments = "x[self], diagonal: int = 0",
    .rule = "t... m n -> t... m n; m n: whole",
    .linear = {"x"},
    .gradient_for = triangle_gradient<true>,
    .reference = triangle_reference<true>,
    .make_kernel = make_reference_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .samples = {"x: f32[2, 5, 7]", "x: bool[4, 4], diagonal=-1"},
};

const OpDef triu{
    .name = "triu",
    .arguments = "x[self], diagonal: int = 0",
    .rule = "t... m n -> t... m n; m n: whole",
    .linear = {"x"},
    .gradient_for = triangle_gradient<false>,
    .reference = triangle_reference<false>,
    .make_kernel = make_reference_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .samples = {"x: f32[2, 5, 7]", "x: f32[4, 6], diagonal=2"},
};

}  // namespace shardwright::ops
