// index_copy: x with some rows along a dimension replaced: the write into a KV cache.
#include "base/check.h"
#include "kernels/cpu/rows.h"
#include "ops/build.h"
#include "ops/lookup.h"
#include "ops/table.h"

namespace shardwright::ops {
namespace {

size_t dim_of_x(const Attrs& attrs, const Shape& x) {
  return static_cast<size_t>(normal_dim(attrs.integer("dim"), static_cast<int>(x.size())));
}

// "a0 t a2, s, a0 s a2 -> a0 t a2; t s: whole"
std::string index_copy_rule(const Attrs& attrs, OperandTypes operands) {
  const Shape& x = operands[0]->shape;
  check_index_type("index", *operands[1]);
  if (x.empty()) return ", s,  -> ; s: whole";
  const size_t dim = dim_of_x(attrs, x);
  std::vector<std::string> words = dim_words("a", x);
  words[dim] = "t";
  const std::string cache = join_words(words);
  const bool one = operands[1]->ndim() == 0;
  words[dim] = one ? "1" : "s";
  return cache + (one ? ", , " : ", s, ") + join_words(words) + " -> " + cache +
         (one ? "; t: whole" : "; t s: whole");
}

std::vector<DType> index_copy_dtypes(const Attrs&, OperandTypes operands) {
  const std::optional<TensorType> values[] = {operands[0], {}, operands[2]};
  return {common_dtype(index_copy, values)};
}

void index_copy_reference(const RefCall& call) {
  const RefTensor& x = call.in(0);
  const RefTensor& source = call.in(2);
  call.out().data = x.data;
  if (x.type.ndim() == 0) {
    call.out().data = source.data;
    return;
  }
  if (source.data.empty()) return;
  const size_t dim = dim_of_x(call.attrs, x.type.shape);
  const Strides strides = contiguous_strides(x.type.shape);
  std::vector<int64_t> place(source.type.shape.size(), 0);
  size_t from = 0;
  do {
    std::vector<int64_t> to = place;
    to[dim] = static_cast<int64_t>(call.in(1).data[static_cast<size_t>(place[dim])]);
    if (to[dim] >= 0 && to[dim] < x.type.shape[dim])
      call.out().data[static_cast<size_t>(position_of(to, strides))] = source.data[from];
    ++from;
  } while (next_index(source.type.shape, place));
}

// Copies x unless the result is x itself, then one source row after the other; each is a copy of
// all other dimensions, shared by the threads.
class IndexCopyKernel : public Kernel {
 public:
  IndexCopyKernel(const KernelSpec& spec, size_t dim)
      : element_bytes_(dtype_bytes(spec.operands[0].type.dtype)),
        rows_(spec.operands[0].type.shape[dim]),
        n_sources_(spec.operands[2].type.shape[dim]),
        y_stride_(spec.results[0].strides[dim]),
        source_stride_(spec.operands[2].strides[dim]),
        index_dtype_(spec.operands[1].type.dtype),
        index_stride_(spec.operands[1].strides.empty() ? 0 : spec.operands[1].strides[0]),
        all_(element_bytes_, spec.operands[0].type.shape, spec.operands[0].strides,
             spec.results[0].strides),
        row_(element_bytes_, without(spec.operands[2].type.shape, dim),
             without(spec.operands[2].strides, dim), without(spec.results[0].strides, dim)) {}

  void run(Member& member, const void* const* operands, void* const* results,
           void* /*scratch*/) const noexcept override {
    if (results[0] != operands[0]) {
      all_.run(member, operands[0], results[0]);
      member.barrier();
    }
    auto* y = static_cast<std::byte*>(results[0]);
    const auto* source = static_cast<const std::byte*>(operands[2]);
    for (int64_t s = 0; s < n_sources_; ++s) {
      const int64_t at = s * index_stride_;
      const int64_t row = index_dtype_ == DType::kI32
                              ? static_cast<const int32_t*>(operands[1])[at]
                              : static_cast<const int64_t*>(operands[1])[at];
      if (row < 0 || row >= rows_) continue;
      row_.run(member, source + s * source_stride_ * element_bytes_,
               y + row * y_stride_ * element_bytes_);
    }
  }

 private:
  static std::vector<int64_t> without(std::vector<int64_t> values, size_t dim) {
    values.erase(values.begin() + static_cast<std::ptrdiff_t>(dim));
    return values;
  }

  int64_t element_bytes_;
  int64_t rows_;       // of x along the dimension
  int64_t n_sources_;  // rows to write
  int64_t y_stride_;   // in elements
  int64_t source_stride_;
  DType index_dtype_;
  int64_t index_stride_;
  kernels::StridedCopy all_;
  kernels::StridedCopy row_;
};

std::unique_ptr<Kernel> make_index_copy(const KernelSpec& spec) {
  const Shape& x = spec.operands[0].type.shape;
  if (x.empty()) return make_reference_kernel(spec);
  return std::make_unique<IndexCopyKernel>(spec, dim_of_x(*spec.attrs, x));
}

}  // namespace

// In place when the result takes the memory (and so the strides) of x. An index outside x writes
// nothing, where PyTorch raises.
const OpDef index_copy{
    .name = "index_copy",
    .arguments = "x[self], index, source, dim: int",
    .rule_for = index_copy_rule,
    .linear = {"x source"},
    .result_dtypes = index_copy_dtypes,
    .reference = index_copy_reference,
    .make_kernel = make_index_copy,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .in_place = true,
    .samples = {"x: f32[2, 3, 7, 5], index: i64[1] < 7, source: f32[2, 3, 1, 5], dim=2",
                "x: bf16[2, 9, 4], index: i64[1] < 9, source: bf16[2, 1, 4], dim=1",
                "x: f32[11], index: i32[1] < 11, source: f32[1], dim=0"},
};

}  // namespace shardwright::ops
