// slice: every step-th row of a range of one dimension; select, unbind and the splits are written
// with it.
#include <algorithm>

#include "base/check.h"
#include "base/checked.h"
#include "base/error.h"
#include "ops/build.h"
#include "ops/copy.h"
#include "ops/table.h"

namespace shardwright::ops {

namespace {

struct Rows {
  int64_t start = 0;
  int64_t count = 0;
  int64_t step = 1;
};

// Python's meaning of start:end:step in a dimension of this size.
Rows rows_of_slice(const Attrs& attrs, int64_t size) {
  const auto bound = [&](const char* name, int64_t otherwise) {
    const int64_t value = attrs.integer(name, otherwise);
    return std::clamp<int64_t>(value < 0 ? value + size : value, 0, size);
  };
  Rows rows{.start = bound("start", 0), .step = attrs.integer("step", 1)};
  if (rows.step < 1)
    throw Error(ErrorCode::kUsage,
                "step is " + std::to_string(rows.step) + "; it must be at least 1");
  rows.count = ceil_div(std::max<int64_t>(bound("end", size) - rows.start, 0), rows.step);
  return rows;
}

size_t slice_dim(const Attrs& attrs, const Shape& shape) {
  return static_cast<size_t>(normal_dim(attrs.integer("dim", 0), static_cast<int>(shape.size())));
}

std::string slice_rule(const Attrs& attrs, OperandTypes operands) {
  const Shape& shape = operands[0]->shape;
  const size_t dim = slice_dim(attrs, shape);
  const Rows rows = rows_of_slice(attrs, shape[dim]);
  std::vector<std::string> words = dim_words("a", shape);
  const std::string all = join_words(words);
  if (rows.count == shape[dim]) return all + " -> " + all;
  words[dim] = "b";
  const std::string from = join_words(words);
  words[dim] = "c=" + std::to_string(rows.count);
  return from + " -> " + join_words(words) + "; b c: whole";
}

void slice_reference(const RefCall& call) {
  const RefTensor& x = call.in(0);
  const size_t dim = slice_dim(call.attrs, x.type.shape);
  const Rows rows = rows_of_slice(call.attrs, x.type.shape[dim]);
  const Strides strides = contiguous_strides(x.type.shape);
  gather_elements(x, call.out(), [&](std::span<const int64_t> index) {
    std::vector<int64_t> from(index.begin(), index.end());
    from[dim] = rows.start + from[dim] * rows.step;
    return position_of(from, strides);
  });
}

bool slice_view(const KernelSpec& spec, const Strides& in, Strides* out, int64_t* offset) {
  const Shape& shape = spec.operands[0].type.shape;
  const size_t dim = slice_dim(*spec.attrs, shape);
  const Rows rows = rows_of_slice(*spec.attrs, shape[dim]);
  *out = in;
  *offset = rows.count == 0 ? 0 : rows.start * in[dim];
  (*out)[dim] *= rows.step;
  return true;
}

// Zeros where nothing was taken.
std::string slice_gradient(const Attrs& attrs, OperandTypes operands) {
  const Shape& shape = operands[0]->shape;
  const size_t dim = slice_dim(attrs, shape);
  const Rows rows = rows_of_slice(attrs, shape[dim]);
  if (rows.step != 1)
    throw Error(ErrorCode::kUnsupported, "step is " + std::to_string(rows.step) +
                                             "; a slice has a gradient only with step 1 yet");
  return "dx = zero_pad(dy, dim=" + std::to_string(dim) + ", before=" + std::to_string(rows.start) +
         ", after=" + std::to_string(shape[dim] - rows.start - rows.count) + ")";
}

std::string slice_text(size_t dim, int64_t start, int64_t end) {
  return "slice(x, dim=" + std::to_string(dim) + ", start=" + std::to_string(start) +
         ", end=" + std::to_string(end) + ")";
}

Shape without_dim(Shape shape, size_t dim) {
  shape.erase(shape.begin() + static_cast<std::ptrdiff_t>(dim));
  return shape;
}

std::string row_text(const Shape& shape, size_t dim, int64_t row) {
  return "reshape(" + slice_text(dim, row, row + 1) +
         ", shape=" + to_string(without_dim(shape, dim)) + ")";
}

std::string select_rule(const Attrs& attrs, OperandTypes operands) {
  const Shape& shape = operands[0]->shape;
  const size_t dim = slice_dim(attrs, shape);
  const int64_t index = attrs.integer("index");
  if (index < -shape[dim] || index >= shape[dim])
    throw Error(ErrorCode::kUsage, "index is " + std::to_string(index) + ", but dimension " +
                                       std::to_string(dim) + " of shape " + to_string(shape) +
                                       " has " + std::to_string(shape[dim]) + " rows");
  return whole_rule(operands, {without_dim(shape, dim)});
}

std::string select_expansion(const Attrs& attrs, OperandTypes operands) {
  const Shape& shape = operands[0]->shape;
  const size_t dim = slice_dim(attrs, shape);
  const int64_t index = attrs.integer("index");
  return row_text(shape, dim, index < 0 ? index + shape[dim] : index);
}

std::string unbind_rule(const Attrs& attrs, OperandTypes operands) {
  const Shape& shape = operands[0]->shape;
  const size_t dim = slice_dim(attrs, shape);
  return whole_rule(operands,
                    std::vector<Shape>(static_cast<size_t>(shape[dim]), without_dim(shape, dim)));
}

std::string tuple_text(const std::vector<std::string>& results) {
  std::string text;
  for (const std::string& result : results) text += (text.empty() ? "(" : ", ") + result;
  return text + ")";
}

std::string unbind_expansion(const Attrs& attrs, OperandTypes operands) {
  const Shape& shape = operands[0]->shape;
  const size_t dim = slice_dim(attrs, shape);
  std::vector<std::string> results;
  for (int64_t row = 0; row < shape[dim]; ++row) results.push_back(row_text(shape, dim, row));
  return tuple_text(results);
}

// Sizes of the parts of split, split_with_sizes and chunk, whichever attribute is there.
std::vector<int64_t> part_sizes(const Attrs& attrs, int64_t size) {
  if (attrs.has("split_sizes")) {
    const std::vector<int64_t>& sizes = attrs.integers("split_sizes");
    int64_t total = 0;
    for (int64_t part : sizes) total += part;
    if (total != size)
      throw Error(ErrorCode::kUsage, "split_sizes " + ints_text(sizes) + " add up to " +
                                         std::to_string(total) + ", not to the dimension's " +
                                         std::to_string(size));
    return sizes;
  }
  const bool by_count = attrs.has("chunks");
  const int64_t given = attrs.integer(by_count ? "chunks" : "split_size");
  if (given < 1)
    throw Error(ErrorCode::kUsage, std::string(by_count ? "chunks" : "split_size") + " is " +
                                       std::to_string(given) + "; it must be at least 1");
  const int64_t part = by_count ? std::max<int64_t>(ceil_div(size, given), 1) : given;
  std::vector<int64_t> sizes;
  for (int64_t begin = 0; begin < size || sizes.empty(); begin += part)
    sizes.push_back(std::min(part, size - begin));
  return sizes;
}

std::string split_rule(const Attrs& attrs, OperandTypes operands) {
  Shape shape = operands[0]->shape;
  const size_t dim = slice_dim(attrs, shape);
  std::vector<Shape> results;
  for (int64_t size : part_sizes(attrs, operands[0]->shape[dim])) {
    shape[dim] = size;
    results.push_back(shape);
  }
  return whole_rule(operands, results);
}

std::string split_expansion(const Attrs& attrs, OperandTypes operands) {
  const size_t dim = slice_dim(attrs, operands[0]->shape);
  std::vector<std::string> results;
  int64_t begin = 0;
  for (int64_t size : part_sizes(attrs, operands[0]->shape[dim])) {
    results.push_back(slice_text(dim, begin, begin + size));
    begin += size;
  }
  return tuple_text(results);
}

}  // namespace

const OpDef slice{
    .name = "slice",
    .arguments = "x[self], dim: int = 0, start: int?, end: int?, step: int = 1",
    .rule_for = slice_rule,
    .linear = {"x"},
    .gradient_for = slice_gradient,
    .reference = slice_reference,
    .make_kernel = make_view_copy,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .view = slice_view,
    .samples = {"x: f32[5, 9, 3], dim=1, start=2, end=7, step=2", "x: bf16[7, 5], start=-3",
                "x: f32[3, 5], dim=-1, end=9223372036854775807", "x: i64[6], end=0"},
};

const OpDef select{
    .name = "select",
    .arguments = "x[self], dim: int, index: int",
    .rule_for = select_rule,
    .expansion_for = select_expansion,
    .samples = {"x: f32[3, 5, 7], dim=1, index=-1", "x: f32[3], dim=0, index=1"},
};

const OpDef unbind{
    .name = "unbind",
    .arguments = "x[self], dim: int = 0",
    .rule_for = unbind_rule,
    .expansion_for = unbind_expansion,
    .samples = {"x: f32[3, 5, 7], dim=0", "x: f32[3, 5], dim=-1"},
};

const OpDef split{
    .name = "split",
    .arguments = "x[self], split_size: int, dim: int = 0",
    .rule_for = split_rule,
    .expansion_for = split_expansion,
    .samples = {"x: f32[7, 5], split_size=3", "x: f32[2, 6], split_size=2, dim=1"},
};

const OpDef split_with_sizes{
    .name = "split_with_sizes",
    .arguments = "x[self], split_sizes: ints, dim: int = 0",
    .rule_for = split_rule,
    .expansion_for = split_expansion,
    .samples = {"x: f32[7, 5], split_sizes=[3, 4]", "x: f32[2, 6], split_sizes=[1, 2, 3], dim=-1"},
};

const OpDef chunk{
    .name = "chunk",
    .arguments = "x[self], chunks: int, dim: int = 0",
    .rule_for = split_rule,
    .expansion_for = split_expansion,
    .samples = {"x: f32[7, 5], chunks=3", "x: f32[2, 6], chunks=2, dim=1"},
};

}  // namespace shardwright::ops
