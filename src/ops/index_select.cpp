// index_select: rows of x along a dimension by a list of indices; gather: one by one.
#include <algorithm>

#include "base/error.h"
#include "ops/build.h"
#include "ops/lookup.h"
#include "ops/table.h"

namespace shardwright::ops {
namespace {

size_t dim_of_x(const Attrs& attrs, const Shape& x) {
  return static_cast<size_t>(normal_dim(attrs.integer("dim"), static_cast<int>(x.size())));
}

// "a0 v a2, s -> a0 s a2; v: sum"
std::string index_select_rule(const Attrs& attrs, OperandTypes operands) {
  const Shape& x = operands[0]->shape;
  check_index_type("index", *operands[1]);
  if (x.empty()) return ", s -> ; s: whole";
  const size_t dim = dim_of_x(attrs, x);
  std::vector<std::string> words = dim_words("a", x);
  words[dim] = "v";
  const std::string from = join_words(words);
  words[dim] = operands[1]->ndim() == 0 ? "1" : "s";
  return from + (operands[1]->ndim() == 0 ? ", " : ", s") + " -> " + join_words(words) + "; v: sum";
}

void index_select_reference(const RefCall& call) {
  const RefTensor& x = call.in(0);
  const Shape& shape = call.out().type.shape;
  if (call.out().data.empty()) return;
  if (shape.empty()) {
    call.out().data = x.data;
    return;
  }
  const size_t dim = dim_of_x(call.attrs, x.type.shape);
  const Strides strides = contiguous_strides(x.type.shape);
  std::vector<int64_t> place(shape.size(), 0);
  size_t at = 0;
  do {
    std::vector<int64_t> from = place;
    from[dim] =
        static_cast<int64_t>(call.in(1).data[static_cast<size_t>(place[dim])]) - call.begin("v");
    const bool is_here = from[dim] >= 0 && from[dim] < x.type.shape[dim];
    call.out().data[at++] = is_here ? x.data[static_cast<size_t>(position_of(from, strides))] : 0;
  } while (next_index(shape, place));
}

// `dims` with `dim` moved to the front, and where each is then.
struct Moved {
  std::vector<int64_t> dims;
  std::vector<int64_t> back;
};
Moved dim_moved(int64_t dim, bool to_front, int ndim) {
  Moved moved;
  if (to_front) moved.dims.push_back(dim);
  for (int64_t d = 0; d < ndim; ++d)
    if (d != dim) moved.dims.push_back(d);
  if (!to_front) moved.dims.push_back(dim);
  moved.back.resize(moved.dims.size());
  for (size_t i = 0; i < moved.dims.size(); ++i)
    moved.back[static_cast<size_t>(moved.dims[i])] = static_cast<int64_t>(i);
  return moved;
}

std::string index_select_gradient(const Attrs& attrs, OperandTypes operands) {
  const Shape& x = operands[0]->shape;
  if (x.empty()) return "dx = dy";
  const auto dim = static_cast<int64_t>(dim_of_x(attrs, x));
  const Moved moved = dim_moved(dim, true, static_cast<int>(x.size()));
  Shape front;
  for (const int64_t d : moved.dims) front.push_back(x[static_cast<size_t>(d)]);
  const int64_t rows = front[0];
  const int64_t width = element_count(x) / std::max<int64_t>(rows, 1);
  const int64_t picked = operands[1]->count();
  return "r = reshape(permute(dy, dims=" + ints_text(moved.dims) +
         "), shape=" + ints_text(Shape{picked, width}) +
         "); i = reshape(index, shape=" + ints_text(Shape{picked}) +
         "); w = embedding_gradient(r, i, num_embeddings=" + std::to_string(rows) +
         "); dx = permute(reshape(w, shape=" + ints_text(front) +
         "), dims=" + ints_text(moved.back) + ")";
}

// Of every picked element, to where it stood: all elementwise, so that the classes of a loss may be
// split over chips.
std::string gather_gradient(const Attrs& attrs, OperandTypes operands) {
  const Shape& x = operands[0]->shape;
  const Shape& index = operands[1]->shape;
  if (x.empty()) return "dx = dy";
  const size_t dim = dim_of_x(attrs, x);
  for (size_t d = 0; d < x.size(); ++d)
    if (d != dim && x[d] != index[d])
      throw Error(ErrorCode::kUnsupported,
                  "x has shape " + to_string(x) + " and index " + to_string(index) +
                      "; gather has a gradient only where they differ in dimension " +
                      std::to_string(dim) + " alone");
  const Moved moved = dim_moved(static_cast<int64_t>(dim), false, static_cast<int>(x.size()));
  const std::string dims = ints_text(moved.dims);
  const std::string classes = "arange(end=" + std::to_string(x[dim]) + ")";
  if (index[dim] == 1)
    return "dx = permute(where(eq(permute(index, dims=" + dims + "), " + classes +
           "), permute(dy, dims=" + dims + "), 0.0), dims=" + ints_text(moved.back) + ")";
  Shape each;
  for (const int64_t d : moved.dims) each.push_back(index[static_cast<size_t>(d)]);
  each.push_back(1);
  const std::string shape = ints_text(each);
  return "i = reshape(permute(index, dims=" + dims + "), shape=" + shape +
         "); g = reshape(permute(dy, dims=" + dims + "), shape=" + shape +
         "); dx = permute(sum(where(eq(i, " + classes +
         "), g, 0.0), dim=[-2]), dims=" + ints_text(moved.back) + ")";
}

// x is read with its own strides but along `dim`, where the index decides.
Lookup lookup_along(const KernelSpec& spec, size_t dim) {
  const OperandSpec& x = spec.operands[0];
  Lookup lookup{.shape = spec.results[0].type.shape,
                .element_bytes = dtype_bytes(x.type.dtype),
                .y_strides = spec.results[0].strides,
                .x_strides = x.strides,
                .indices = {{.operand = 1,
                             .dtype = spec.operands[1].type.dtype,
                             .x_stride = x.strides[dim],
                             .begin = spec.begin("v"),
                             .rows = x.type.shape[dim]}}};
  lookup.x_strides[dim] = 0;
  return lookup;
}

std::unique_ptr<Kernel> make_index_select(const KernelSpec& spec) {
  const Shape& x = spec.operands[0].type.shape;
  if (x.empty()) return make_reference_kernel(spec);
  const size_t dim = dim_of_x(*spec.attrs, x);
  Lookup lookup = lookup_along(spec, dim);
  lookup.indices[0].strides.assign(x.size(), 0);
  if (!spec.operands[1].strides.empty())
    lookup.indices[0].strides[dim] = spec.operands[1].strides[0];
  return make_lookup_kernel(lookup);
}

// "a0 v a2, a0 i1 a2 -> a0 i1 a2; v: sum". Where index has fewer rows than x in another dimension,
// that one may not be split: the rows of x would not be those of index.
std::string gather_rule(const Attrs& attrs, OperandTypes operands) {
  const Shape& x = operands[0]->shape;
  const Shape& ids = operands[1]->shape;
  check_index_type("index", *operands[1]);
  if (x.size() != ids.size())
    throw Error(ErrorCode::kUsage, "x is " + to_string(*operands[0]) + " and index " +
                                       to_string(*operands[1]) +
                                       "; they must have equally many dimensions");
  if (x.empty()) return ",  -> ";
  const size_t dim = dim_of_x(attrs, x);
  std::vector<std::string> from = dim_words("a", x);
  std::vector<std::string> to = dim_words("a", ids);
  std::string whole;
  for (size_t i = 0; i < x.size(); ++i) {
    if (i == dim || x[i] == ids[i]) continue;
    if (x[i] < ids[i])
      throw Error(ErrorCode::kUsage, "dimension " + std::to_string(i) + " of index " +
                                         to_string(*operands[1]) + " is larger than that of x " +
                                         to_string(*operands[0]));
    to[i] = "i" + std::to_string(i);
    for (const std::string& word : {from[i], to[i]}) whole += word + " ";
  }
  from[dim] = "v";
  to[dim] = "i" + std::to_string(dim);
  const std::string result = join_words(to);
  return join_words(from) + ", " + result + " -> " + result + "; v: sum" +
         (whole.empty() ? "" : "; " + whole + ": whole");
}

void gather_reference(const RefCall& call) {
  const RefTensor& x = call.in(0);
  const Shape& shape = call.out().type.shape;
  if (call.out().data.empty()) return;
  if (shape.empty()) {
    call.out().data = x.data;
    return;
  }
  const size_t dim = dim_of_x(call.attrs, x.type.shape);
  const Strides strides = contiguous_strides(x.type.shape);
  std::vector<int64_t> place(shape.size(), 0);
  size_t at = 0;
  do {
    std::vector<int64_t> from = place;
    from[dim] = static_cast<int64_t>(call.in(1).data[at]) - call.begin("v");
    const bool is_here = from[dim] >= 0 && from[dim] < x.type.shape[dim];
    call.out().data[at++] = is_here ? x.data[static_cast<size_t>(position_of(from, strides))] : 0;
  } while (next_index(shape, place));
}

std::unique_ptr<Kernel> make_gather(const KernelSpec& spec) {
  const Shape& x = spec.operands[0].type.shape;
  if (x.empty()) return make_reference_kernel(spec);
  Lookup lookup = lookup_along(spec, dim_of_x(*spec.attrs, x));
  lookup.indices[0].strides = spec.operands[1].strides;
  return make_lookup_kernel(lookup);
}

}  // namespace

// As in embedding, an index that is not here gives zeros.
const OpDef index_select{
    .name = "index_select",
    .arguments = "x[self], index, dim: int",
    .rule_for = index_select_rule,
    .linear = {"x"},
    .result_dtypes = first_dtype,
    .gradient_for = index_select_gradient,
    .reference = index_select_reference,
    .make_kernel = make_index_select,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .samples = {"x: f32[2, 7, 5], index: i64[3] < 7, dim=1",
                "x: bf16[9, 4], index: i32[6] < 9, dim=0",
                "x: i64[3, 8], index: i64[5] < 8, dim=-1"},
};

const OpDef gather{
    .name = "gather",
    .arguments = "x[self], index, dim: int, sparse_grad: bool = false",
    .rule_for = gather_rule,
    .linear = {"x"},
    .result_dtypes = first_dtype,
    .gradient_for = gather_gradient,
    .reference = gather_reference,
    .make_kernel = make_gather,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .samples = {"x: f32[3, 7], index: i64[3, 2] < 7, dim=1",
                "x: f32[5, 6, 4], index: i64[3, 6, 2] < 5, dim=0",
                "x: i64[2, 9], index: i64[2, 4] < 9, dim=-1"},
};

}  // namespace shardwright::ops
