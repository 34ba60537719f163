// matmul: products of matrices of activations, batch dimensions broadcast; bmm, baddbmm.
#include <algorithm>

#include "base/check.h"
#include "base/error.h"
#include "kernels/cpu/gemm.h"
#include "ops/build.h"
#include "ops/table.h"

namespace shardwright::ops {
namespace {

// Words of the batch dims of an operand: aligned right among `n_batch` dims, "1" where it is
// broadcast.
std::vector<std::string> batch_words(const Shape& shape, int n_batch) {
  std::vector<std::string> words;
  const int own = static_cast<int>(shape.size()) - 2;
  for (int i = 0; i < own; ++i)
    words.push_back(shape[static_cast<size_t>(i)] == 1 ? "1"
                                                       : "b" + std::to_string(n_batch - own + i));
  return words;
}

std::string matmul_rule(const Attrs&, OperandTypes operands) {
  const Shape& x = operands[0]->shape;
  const Shape& y = operands[1]->shape;
  if (x.empty() || y.empty())
    throw Error(ErrorCode::kUsage, "operands are " + to_string(*operands[0]) + " and " +
                                       to_string(*operands[1]) +
                                       "; both need at least one dimension");
  if (x.size() == 1 && y.size() == 1) return "k, k -> ; k: sum";
  if (y.size() == 1) return "t... k, k -> t...; k: sum";
  const int n_batch = static_cast<int>(std::max(x.size(), y.size())) - 2;
  std::vector<std::string> b = batch_words(y, n_batch);
  b.insert(b.end(), {"k", "n"});
  if (x.size() == 1) {
    std::vector<std::string> result(b.begin(), b.end() - 2);
    result.emplace_back("n");
    return "k, " + join_words(b) + " -> " + join_words(result) + "; k: sum";
  }
  std::vector<std::string> a = batch_words(x, n_batch);
  std::vector<std::string> result;
  const auto word = [](const std::vector<std::string>& words, int own, int at) {
    return at < own ? std::string("1") : words[static_cast<size_t>(at - own)];
  };
  for (int i = 0; i < n_batch; ++i) {
    const std::string from_a = word(a, n_batch - static_cast<int>(a.size()), i);
    const std::string from_b = word(b, n_batch + 2 - static_cast<int>(b.size()), i);
    result.push_back(from_a == "1" ? from_b : from_a);
  }
  a.insert(a.end(), {"m", "k"});
  result.insert(result.end(), {"m", "n"});
  return join_words(a) + ", " + join_words(b) + " -> " + join_words(result) + "; k: sum";
}

// A matrix as second operand is what linear is for; vectors become matrices.
std::string matmul_expansion(const Attrs&, OperandTypes operands) {
  const Shape& x = operands[0]->shape;
  const Shape& y = operands[1]->shape;
  if (y.size() == 2) return "linear(x, permute(other, dims=[1, 0]), -)";
  if (y.size() == 1) {
    const Shape result(x.begin(), x.end() - 1);
    return "reshape(linear(x, reshape(other, shape=" + ints_text(Shape{1, y[0]}) +
           "), -), shape=" + ints_text(result) + ")";
  }
  if (x.size() == 1) {
    Shape result = y;
    result.erase(result.end() - 2);
    return "reshape(matmul(reshape(x, shape=" + ints_text(Shape{1, x[0]}) +
           "), other), shape=" + ints_text(result) + ")";
  }
  return "";
}

std::vector<DType> matmul_dtypes(const Attrs&, OperandTypes operands) {
  return {common_dtype(matmul, operands)};
}

// Strides over the batch dims of the result (0 where the operand is broadcast), then those of row
// and column.
Strides batch_strides(const Shape& shape, const Strides& strides, size_t result_ndim) {
  Strides all(result_ndim, 0);
  const size_t missing = result_ndim - shape.size();
  for (size_t i = 0; i < shape.size(); ++i)
    if (shape[i] != 1 || i + 2 >= shape.size()) all[missing + i] = strides[i];
  return all;
}

// The last two dims exchanged, in text.
std::string swapped_text(const std::string& name, int ndim) {
  return "permute(" + name + ", dims=" + swapped_dims_text(ndim, ndim - 2, ndim - 1) + ")";
}

std::string matmul_gradient(const Attrs&, OperandTypes operands) {
  return "dx = matmul(dy, " + swapped_text("other", operands[1]->ndim()) + "); dother = matmul(" +
         swapped_text("x", operands[0]->ndim()) + ", dy)";
}

void matmul_reference(const RefCall& call) {
  const RefTensor& x = call.in(0);
  const RefTensor& y = call.in(1);
  const Shape& shape = call.out().type.shape;
  const size_t ndim = shape.size();
  const Strides xs = batch_strides(x.type.shape, contiguous_strides(x.type.shape), ndim);
  const Strides ys = batch_strides(y.type.shape, contiguous_strides(y.type.shape), ndim);
  const int64_t k = x.type.shape.back();
  if (call.out().data.empty()) return;
  std::vector<int64_t> place(ndim, 0);
  size_t at = 0;
  do {
    int64_t x_at = place[ndim - 2] * xs[ndim - 2];
    int64_t y_at = place[ndim - 1] * ys[ndim - 1];
    for (size_t i = 0; i + 2 < ndim; ++i) {
      x_at += place[i] * xs[i];
      y_at += place[i] * ys[i];
    }
    double total = 0;
    for (int64_t i = 0; i < k; ++i)
      total += x.data[static_cast<size_t>(x_at + i)] *
               y.data[static_cast<size_t>(y_at + i * ys[ndim - 2])];
    call.out().data[at++] = total;
  } while (next_index(shape, place));
}

class MatmulKernel : public Kernel {
 public:
  explicit MatmulKernel(const KernelSpec& spec) {
    const OperandSpec& out = spec.results[0];
    const size_t ndim = out.type.shape.size();
    CHECK(ndim >= 2 && ndim <= kMaxDims);
    const OperandSpec& x = spec.operands[0];
    const OperandSpec& y = spec.operands[1];
    const Strides xs = batch_strides(x.type.shape, x.strides, ndim);
    const Strides ys = batch_strides(y.type.shape, y.strides, ndim);
    args_.m = out.type.shape[ndim - 2];
    args_.n = out.type.shape[ndim - 1];
    args_.k = x.type.shape.back();
    args_.a = {.dtype = x.type.dtype, .stride_row = xs[ndim - 2], .stride_column = xs[ndim - 1]};
    args_.b = {.dtype = y.type.dtype, .stride_row = ys[ndim - 2], .stride_column = ys[ndim - 1]};
    args_.y_dtype = out.type.dtype;
    args_.y_row_stride = out.strides[ndim - 2];
    // The last two batch dims are the kernel's own, those before them are a loop.
    for (size_t i = 0; i + 2 < ndim; ++i) {
      const size_t inner = ndim - 3 - i;  // 0: the innermost batch dim
      if (inner < 2) {
        args_.batch[1 - inner] = out.type.shape[i];
        args_.a.stride_batch[1 - inner] = xs[i];
        args_.b.stride_batch[1 - inner] = ys[i];
        args_.y_stride_batch[1 - inner] = out.strides[i];
      } else {
        add_outer_dim(out.type.shape[i], xs[i] * dtype_bytes(x.type.dtype),
                      ys[i] * dtype_bytes(y.type.dtype),
                      out.strides[i] * dtype_bytes(args_.y_dtype));
      }
    }
    empty_ = out.type.count() == 0;
    scratch_bytes_ = empty_ ? 0 : kernels::matmul_scratch_bytes(args_, spec.n_threads);
  }

  int64_t scratch_bytes() const override { return scratch_bytes_; }

  void run(Member& member, const void* const* operands, void* const* results,
           void* scratch) const noexcept override {
    if (empty_) return;
    kernels::MatmulArgs args = args_;
    args.scratch = scratch;
    for (size_t i = 0; i < outer_.size(); ++i) {
      if (i > 0 && scratch_bytes_ > 0) member.barrier();  // the scratch is used again
      args.a.data = static_cast<const std::byte*>(operands[0]) + outer_[i].a_bytes;
      args.b.data = static_cast<const std::byte*>(operands[1]) + outer_[i].b_bytes;
      args.y = static_cast<std::byte*>(results[0]) + outer_[i].y_bytes;
      kernels::matmul(member, args);
    }
  }

 private:
  struct Offsets {
    int64_t a_bytes = 0;
    int64_t b_bytes = 0;
    int64_t y_bytes = 0;
  };

  void add_outer_dim(int64_t size, int64_t a_bytes, int64_t b_bytes, int64_t y_bytes) {
    std::vector<Offsets> all;
    for (const Offsets& o : outer_)
      for (int64_t i = 0; i < size; ++i)
        all.push_back({o.a_bytes + i * a_bytes, o.b_bytes + i * b_bytes, o.y_bytes + i * y_bytes});
    outer_ = std::move(all);
  }

  kernels::MatmulArgs args_;
  std::vector<Offsets> outer_{Offsets{}};
  int64_t scratch_bytes_ = 0;
  bool empty_ = false;
};

std::unique_ptr<Kernel> make_matmul(const KernelSpec& spec) {
  if (!is_kernel_float(spec.results[0].type.dtype)) return make_reference_kernel(spec);
  return std::make_unique<MatmulKernel>(spec);
}

std::vector<DType> bmm_dtypes(const Attrs&, OperandTypes operands) {
  return {common_dtype(bmm, operands)};
}

std::string baddbmm_rule(const Attrs&, OperandTypes operands) {
  const Shape& shape = operands[0]->shape;
  const std::string_view names[] = {"b", "m", "n"};
  const size_t ndim = std::min<size_t>(shape.size(), 3);
  std::vector<std::string> words;
  for (size_t i = 0; i < ndim; ++i) words.emplace_back(shape[i] == 1 ? "1" : names[3 - ndim + i]);
  return join_words(words) + ", b m k, b k n -> b m n; k: sum";
}

std::string baddbmm_expansion(const Attrs& attrs, OperandTypes) {
  return scaled_sum_text(attrs, "matmul(batch1, batch2)", "bias");
}

std::vector<DType> baddbmm_dtypes(const Attrs&, OperandTypes operands) {
  return {common_dtype(baddbmm, operands)};
}

}  // namespace

const OpDef matmul{
    .name = "matmul",
    .arguments = "x[self], other",
    .rule_for = matmul_rule,
    .linear = {"x", "other"},
    .result_dtypes = matmul_dtypes,
    .gradient_for = matmul_gradient,
    .expansion_for = matmul_expansion,
    .reference = matmul_reference,
    .make_kernel = make_matmul,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kLast,
    .flops = einsum_flops,
    .samples = {"x: f32[2, 3, 5], other: f32[2, 5, 7]", "x: f32[2, 1, 5, 9], other: f32[3, 9, 4]",
                "x: bf16[3, 17, 33], other: bf16[3, 33, 18]",
                "x: f32[2, 3, 2, 4, 5], other: f32[2, 1, 2, 5, 6]",
                "x: f16[2, 4, 6], other: f16[2, 6, 3]", "x: f32[1, 32, 1], other: f32[1, 1, 7]"},
};

const OpDef bmm{
    .name = "bmm",
    .arguments = "x[self], mat2",
    .rule = "b m k, b k n -> b m n; k: sum",
    .result_dtypes = bmm_dtypes,
    .expansion = "matmul(x, mat2)",
    .samples = {"x: f32[2, 3, 5], mat2: f32[2, 5, 7]"},
};

const OpDef baddbmm{
    .name = "baddbmm",
    .arguments = "bias[self], batch1, batch2, beta: number = 1, alpha: number = 1",
    .rule_for = baddbmm_rule,
    .result_dtypes = baddbmm_dtypes,
    .expansion_for = baddbmm_expansion,
    .samples =
        {"bias: f32[2, 1, 7], batch1: f32[2, 3, 5], batch2: f32[2, 5, 7], beta=1, alpha=0.25"},
};

}  // namespace shardwright::ops
