// index: x[i, :, j]: elements of x by integer tensors, which are broadcast, along some dimensions.
#include <algorithm>

#include "base/check.h"
#include "base/error.h"
#include "ops/build.h"
#include "ops/lookup.h"
#include "ops/table.h"

namespace shardwright::ops {
namespace {

// Where the dimensions of the result come from.
struct IndexLayout {
  std::vector<bool> indexed;  // of each dim of x
  size_t n_broadcast = 0;     // dims of the broadcast indices
  size_t at = 0;              // where these stand in the result: at the first index if all indices
                              // are neighbours, else in front (as in PyTorch)
};

IndexLayout layout_of(size_t x_ndim, const std::vector<const Shape*>& indices) {
  IndexLayout layout;
  layout.indexed.assign(x_ndim, false);
  size_t first = x_ndim;
  size_t last = 0;
  size_t count = 0;
  for (size_t i = 0; i < indices.size(); ++i) {
    if (indices[i] == nullptr) continue;
    layout.indexed[i] = true;
    layout.n_broadcast = std::max(layout.n_broadcast, indices[i]->size());
    first = std::min(first, i);
    last = i;
    ++count;
  }
  if (count > 0 && last - first + 1 == count) layout.at = first;
  return layout;
}

std::string index_rule(const Attrs&, OperandTypes operands) {
  const Shape& x = operands[0]->shape;
  const OperandTypes indices = operands.subspan(1);
  if (indices.size() > x.size())
    throw Error(ErrorCode::kUsage, std::to_string(indices.size()) + " indices for x, which is " +
                                       to_string(*operands[0]));
  std::vector<const Shape*> shapes;
  std::vector<std::optional<TensorType>> present;
  for (const auto& type : indices) {
    if (type) check_index_type("an index", *type);
    if (type) present.push_back(type);
    shapes.push_back(type ? &type->shape : nullptr);
  }
  const IndexLayout layout = layout_of(x.size(), shapes);
  // "a0 1, a1 -> a0 a1": the words of the indices and of their broadcast shape.
  const std::string broadcast = present.empty() ? " -> " : broadcast_rule(present);
  const size_t arrow = broadcast.find("->");
  std::string operand_words = broadcast.substr(0, arrow);
  std::vector<std::string> words = dim_words("x", x);
  std::string text = join_words(words);
  size_t begin = 0;
  for (const auto& type : indices) {
    const size_t end = std::min(operand_words.find(',', begin), operand_words.size());
    text += type ? ", " + operand_words.substr(begin, end - begin) : ", -";
    if (type) begin = end + 1;
  }
  std::vector<std::string> result;
  std::string whole;
  for (size_t i = 0; i < x.size(); ++i) {
    if (!layout.indexed[i]) result.push_back(words[i]);
    if (layout.indexed[i] && words[i] != "1") whole += words[i] + " ";
  }
  result.insert(result.begin() + static_cast<std::ptrdiff_t>(layout.at),
                broadcast.substr(arrow + 2));
  return text + " -> " + join_words(result) + (whole.empty() ? "" : "; " + whole + ": whole");
}

std::vector<const Shape*> index_shapes(std::span<const RefTensor* const> operands) {
  std::vector<const Shape*> shapes;
  for (const RefTensor* operand : operands.subspan(1))
    shapes.push_back(operand != nullptr ? &operand->type.shape : nullptr);
  return shapes;
}

// Strides of an index over the dims of the result: 0 where it is broadcast or does not reach.
Strides index_strides(const IndexLayout& layout, size_t result_ndim, const Shape& shape,
                      const Strides& strides) {
  Strides all(result_ndim, 0);
  const size_t first = layout.at + layout.n_broadcast - shape.size();
  for (size_t i = 0; i < shape.size(); ++i)
    if (shape[i] != 1) all[first + i] = strides[i];
  return all;
}

// Strides of x over the dims of the result: 0 along those of the indices.
Strides kept_strides(const IndexLayout& layout, const Strides& x_strides) {
  Strides kept;
  for (size_t i = 0; i < x_strides.size(); ++i)
    if (!layout.indexed[i]) kept.push_back(x_strides[i]);
  kept.insert(kept.begin() + static_cast<std::ptrdiff_t>(layout.at), layout.n_broadcast, 0);
  return kept;
}

void index_reference(const RefCall& call) {
  const RefTensor& x = call.in(0);
  const Shape& shape = call.out().type.shape;
  const IndexLayout layout = layout_of(x.type.shape.size(), index_shapes(call.operands));
  const Strides x_strides = contiguous_strides(x.type.shape);
  const Strides kept = kept_strides(layout, x_strides);
  CHECK(kept.size() == shape.size());
  if (call.out().data.empty()) return;
  std::vector<int64_t> place(shape.size(), 0);
  size_t at = 0;
  do {
    int64_t from = position_of(place, kept);
    bool is_inside = true;
    for (size_t i = 0; i < layout.indexed.size(); ++i) {
      if (!layout.indexed[i]) continue;
      const RefTensor& ids = call.in(i + 1);
      const Strides strides =
          index_strides(layout, shape.size(), ids.type.shape, contiguous_strides(ids.type.shape));
      auto row = static_cast<int64_t>(ids.data[static_cast<size_t>(position_of(place, strides))]);
      if (row < 0) row += x.type.shape[i];
      is_inside = is_inside && row >= 0 && row < x.type.shape[i];
      from += row * x_strides[i];
    }
    call.out().data[at++] = is_inside ? x.data[static_cast<size_t>(from)] : 0;
  } while (next_index(shape, place));
}

std::unique_ptr<Kernel> make_index(const KernelSpec& spec) {
  const OperandSpec& x = spec.operands[0];
  std::vector<const Shape*> shapes;
  for (size_t i = 1; i < spec.operands.size(); ++i)
    shapes.push_back(spec.operands[i].present ? &spec.operands[i].type.shape : nullptr);
  const IndexLayout layout = layout_of(x.type.shape.size(), shapes);
  Lookup lookup{.shape = spec.results[0].type.shape,
                .element_bytes = dtype_bytes(x.type.dtype),
                .y_strides = spec.results[0].strides,
                .x_strides = kept_strides(layout, x.strides)};
  for (size_t i = 0; i < shapes.size(); ++i) {
    if (shapes[i] == nullptr) continue;
    const OperandSpec& ids = spec.operands[i + 1];
    lookup.indices.push_back(
        {.operand = i + 1,
         .dtype = ids.type.dtype,
         .strides = index_strides(layout, lookup.shape.size(), ids.type.shape, ids.strides),
         .x_stride = x.strides[i],
         .rows = x.type.shape[i],
         .wraps = true});
  }
  return make_lookup_kernel(lookup);
}

std::string index_gradient(const Attrs&, OperandTypes operands) {
  if (operands.size() != 2 || !operands[1])
    throw Error(ErrorCode::kUnsupported, "indexing by several index tensors has no gradient yet");
  const Shape& x = operands[0]->shape;
  const int64_t width = element_count(x) / std::max<int64_t>(x[0], 1);
  const int64_t picked = operands[1]->count();
  return "r = reshape(dy, shape=" + ints_text(Shape{picked, width}) +
         "); i = reshape(indices0, shape=" + ints_text(Shape{picked}) +
         "); dx = reshape(embedding_gradient(r, i, num_embeddings=" + std::to_string(x[0]) +
         "), shape=" + ints_text(x) + ")";
}

}  // namespace

// -1 is the last row, which needs the size of the whole: so indexed dimensions are whole. An index
// outside gives zero, where PyTorch raises. Masks (bool) are not supported.
const OpDef index{
    .name = "index",
    .arguments = "x[self], indices: tensors",
    .rule_for = index_rule,
    .linear = {"x"},
    .result_dtypes = first_dtype,
    .gradient_for = index_gradient,
    .reference = index_reference,
    .make_kernel = make_index,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .samples = {"x: f32[7, 3, 5], indices: i64[4] < 7",
                "x: f32[5, 6], indices: i64[2, 1] < 5, indices: i64[1, 7] < 6",
                "x: bf16[5, 6, 3], indices: i64[2, 1, 1] < 5, indices: i64[3] < 6",
                "x: i64[2, 9], indices: i64[2, 1, 1, 1] < 2, indices: i64[4, 1] < 9"},
};

}  // namespace shardwright::ops
