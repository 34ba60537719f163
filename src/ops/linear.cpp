// linear: y[..., m] = sum_k x[..., k] weight[m, k] + bias[m]; mm and addmm are written with it.
// linear_int8: y[..., m] = scale[m] * sum_k x[..., k] weight[m, k].
#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/checked.h"
#include "kernels/cpu/gemm.h"
#include "ops/build.h"
#include "ops/table.h"

namespace shardwright::ops {
namespace {

std::string linear_expansion(const Attrs&, OperandTypes operands) {
  const bool has_bias = operands.size() > 2 && operands[2];
  // Separate, because a whole bias may not be added by each of the chips that split k.
  return has_bias ? "add(linear(x, weight, -), bias)" : "";
}

std::string linear_gradient(const Attrs&, OperandTypes operands) {
  const Shape& weight = operands[1]->shape;
  const int64_t rows = operands[0]->count() / std::max<int64_t>(weight[1], 1);
  const auto matrix = [&](const char* name, int64_t columns) {
    return std::string("reshape(") + name + ", shape=" + ints_text(Shape{rows, columns}) + ")";
  };
  return "dx = linear(dy, permute(weight, dims=[1, 0]), -); dweight = matmul(permute(" +
         matrix("dy", weight[0]) + ", dims=[1, 0]), " + matrix("x", weight[1]) + ")";
}

std::vector<DType> linear_dtypes(const Attrs&, OperandTypes operands) {
  return {common_dtype(linear, operands)};
}

void linear_reference(const RefCall& call) {
  const RefTensor& x = call.in(0);
  const RefTensor& weight = call.in(1);
  const int64_t n = weight.size(0);
  const int64_t k = weight.size(1);
  const int64_t rows = call.out().type.count() / std::max<int64_t>(n, 1);
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t m = 0; m < n; ++m) {
      double total = call.has(2) ? call.in(2).data[static_cast<size_t>(m)] : 0;
      for (int64_t i = 0; i < k; ++i)
        total +=
            x.data[static_cast<size_t>(t * k + i)] * weight.data[static_cast<size_t>(m * k + i)];
      call.out().data[static_cast<size_t>(t * n + m)] = total;
    }
  }
}

void linear_int8_reference(const RefCall& call) {
  const RefTensor* const operands[] = {call.operands[0], call.operands[1]};
  linear_reference({call.attrs, operands, call.results, call.begins});
  const std::vector<double>& scale = call.in(2).data;
  std::vector<double>& y = call.out().data;
  for (size_t i = 0; i < y.size(); ++i) y[i] *= scale[i % scale.size()];
}

std::vector<DType> linear_int8_dtypes(const Attrs&, OperandTypes operands) {
  check_int8_weight(*operands[1], *operands[2]);
  return {operands[0]->dtype};
}

// gemm over panels, of linear and linear_int8. A weight that does not lie in panels is packed at
// every step.
class LinearKernel : public Kernel {
 public:
  explicit LinearKernel(const KernelSpec& spec) {
    const OperandSpec& weight = spec.operands[1];
    const RowsOf x = rows_of(spec.operands[0]);
    const RowsOf y = rows_of(spec.results[0]);
    args_.m = x.count;
    args_.n = weight.type.shape[0];
    args_.k = weight.type.shape[1];
    args_.x_dtype = spec.operands[0].type.dtype;
    args_.x_row_stride = x.stride;
    args_.panels_dtype = kernels::panel_dtype(weight.type.dtype);
    args_.y_dtype = spec.results[0].type.dtype;
    args_.y_row_stride = y.stride;
    has_scale_ = spec.op == &linear_int8;
    has_bias_ = !has_scale_ && spec.operands.size() > 2 && spec.operands[2].present;
    if (has_bias_) args_.bias_dtype = spec.operands[2].type.dtype;
    CHECK(x.size == args_.k && y.size == args_.n && y.count == args_.m);
    packed_ = weight.layout == Layout::kPanels;
    if (!packed_) {
      pack_ = {.n = args_.n,
               .k = args_.k,
               .w_dtype = weight.type.dtype,
               .stride_n = weight.strides[0],
               .stride_k = weight.strides[1],
               .panels_dtype = args_.panels_dtype};
      packed_bytes_ =
          round_up(kernels::panel_bytes(args_.panels_dtype, args_.n, args_.k), int64_t{64});
    }
    gemm_bytes_ = kernels::gemm_scratch_bytes(args_, spec.n_threads);
  }

  int64_t scratch_bytes() const override { return packed_bytes_ + gemm_bytes_; }

  void run(Member& member, const void* const* operands, void* const* results,
           void* scratch) const noexcept override {
    if (args_.m == 0 || args_.n == 0) return;
    kernels::GemmArgs args = args_;
    args.x = operands[0];
    args.y = results[0];
    args.bias = has_bias_ ? operands[2] : nullptr;
    args.scale = has_scale_ ? static_cast<const float*>(operands[2]) : nullptr;
    args.panels = operands[1];
    args.scratch = static_cast<std::byte*>(scratch) + packed_bytes_;
    if (!packed_) {
      kernels::PackArgs pack = pack_;
      pack.w = operands[1];
      pack.panels = scratch;
      kernels::pack_panels(member, pack);
      member.barrier();
      args.panels = scratch;
    }
    kernels::gemm(member, args);
  }

 private:
  kernels::GemmArgs args_;
  kernels::PackArgs pack_;
  bool packed_ = false;
  bool has_bias_ = false;
  bool has_scale_ = false;
  int64_t packed_bytes_ = 0;
  int64_t gemm_bytes_ = 0;
};

std::unique_ptr<Kernel> make_linear(const KernelSpec& spec) {
  if (!is_kernel_float(spec.operands[1].type.dtype)) return make_reference_kernel(spec);
  return std::make_unique<LinearKernel>(spec);
}

std::unique_ptr<Kernel> make_linear_int8(const KernelSpec& spec) {
  if (!is_kernel_float(spec.operands[0].type.dtype)) return make_reference_kernel(spec);
  return std::make_unique<LinearKernel>(spec);
}

std::vector<DType> mm_dtypes(const Attrs&, OperandTypes operands) {
  return {common_dtype(mm, operands)};
}

std::vector<DType> addmm_dtypes(const Attrs&, OperandTypes operands) {
  return {common_dtype(addmm, operands)};
}

std::string addmm_rule(const Attrs&, OperandTypes operands) {
  const Shape& shape = operands[0]->shape;
  std::vector<std::string> words;
  const std::string_view names[] = {"m", "n"};
  for (size_t i = 0; i < shape.size() && i < 2; ++i)
    words.emplace_back(shape[i] == 1 ? "1" : names[2 - std::min<size_t>(shape.size(), 2) + i]);
  return join_words(words) + ", m k, k n -> m n; k: sum";
}

std::string addmm_expansion(const Attrs& attrs, OperandTypes) {
  const std::string product = "linear(mat1, permute(mat2, dims=[1, 0]), -)";
  return scaled_sum_text(attrs, product, "bias");
}

}  // namespace

// Kept in one form, x times the transposed weight: a permuted parameter costs nothing, because it
// is packed into panels anyway.
const OpDef linear{
    .name = "linear",
    .arguments = "x[input], weight, bias?",
    .rule = "t... k, m k, m -> t... m; k: sum",
    .linear = {"x", "weight"},
    .result_dtypes = linear_dtypes,
    .gradient_for = linear_gradient,
    .expansion_for = linear_expansion,
    .reference = linear_reference,
    .make_kernel = make_linear,
    .operand_strides = Strided::kRows,
    .result_strides = Strided::kRows,
    .panel_operand = 1,
    .flops = einsum_flops,
    .samples = {"x: f32[3, 5, 17], weight: f32[37, 17]", "x: f32[7], weight: f32[5, 7]",
                "x: bf16[2, 3, 40], weight: bf16[33, 40]", "x: f16[4, 9], weight: f16[6, 9]",
                "x: f32[1, 64], weight: f32[70, 64]",
                "x: f32[3, 8], weight: f32[6, 8], bias: f32[6]"},
};

// A bias is an add of its own from the start: nothing but passes/quantize_weights makes this node.
const OpDef linear_int8{
    .name = "linear_int8",
    .arguments = "x, weight, scale",
    .rule = "t... k, m k, m -> t... m; k: sum",
    .linear = {"x"},
    .result_dtypes = linear_int8_dtypes,
    .reference = linear_int8_reference,
    .make_kernel = make_linear_int8,
    .operand_strides = Strided::kRows,
    .result_strides = Strided::kRows,
    .panel_operand = 1,
    .flops = einsum_flops,
    .samples = {"x: f32[3, 5, 17], weight: i8[37, 17], scale: f32[37]",
                "x: f32[7], weight: i8[5, 7], scale: f32[5]",
                "x: bf16[2, 3, 40], weight: i8[33, 40], scale: f32[33]",
                "x: f16[4, 9], weight: i8[6, 9], scale: f32[6]",
                "x: f32[1, 64], weight: i8[70, 64], scale: f32[70]"},
};

const OpDef mm{
    .name = "mm",
    .arguments = "x[self], mat2",
    .rule = "m k, k n -> m n; k: sum",
    .linear = {"x", "mat2"},
    .result_dtypes = mm_dtypes,
    .expansion = "linear(x, permute(mat2, dims=[1, 0]), -)",
    .samples = {"x: f32[3, 5], mat2: f32[5, 7]"},
};

const OpDef addmm{
    .name = "addmm",
    .arguments = "bias[self], mat1, mat2, beta: number = 1, alpha: number = 1",
    .rule_for = addmm_rule,
    .result_dtypes = addmm_dtypes,
    .expansion_for = addmm_expansion,
    .samples = {"bias: f32[7], mat1: f32[3, 5], mat2: f32[5, 7]",
                "bias: f32[3, 1], mat1: f32[3, 5], mat2: f32[5, 7], beta=0.5, alpha=2"},
};

}  // namespace shardwright::ops
