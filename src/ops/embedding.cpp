// embedding: y[t..., d] = weight[indices[t...], d]; embedding_int8: that times
// scale[indices[t...]].
#include <algorithm>

#include "base/check.h"
#include "base/error.h"
#include "kernels/cpu/gemm.h"
#include "ops/build.h"
#include "ops/lookup.h"
#include "ops/table.h"

namespace shardwright::ops {
namespace {

std::vector<DType> embedding_dtypes(const Attrs&, OperandTypes operands) {
  check_index_type("indices", *operands[1]);
  return {operands[0]->dtype};
}

void embedding_reference(const RefCall& call) {
  const RefTensor& weight = call.in(0);
  const RefTensor& ids = call.in(1);
  const int64_t width = weight.size(1);
  for (size_t t = 0; t < ids.data.size(); ++t) {
    const int64_t row = static_cast<int64_t>(ids.data[t]) - call.begin("v");
    if (row < 0 || row >= weight.size(0)) continue;
    for (int64_t d = 0; d < width; ++d)
      call.out().data[t * static_cast<size_t>(width) + static_cast<size_t>(d)] =
          weight.data[static_cast<size_t>(row * width + d)];
  }
}

std::string embedding_gradient_text(const Attrs& attrs, OperandTypes operands) {
  if (attrs.boolean("scale_grad_by_freq", false))
    throw Error(ErrorCode::kUnsupported, "scale_grad_by_freq=True has no gradient yet");
  return "dweight = embedding_gradient(dy, indices, num_embeddings=" +
         std::to_string(operands[0]->shape[0]) +
         ", padding_idx=" + std::to_string(attrs.integer("padding_idx", -1)) + ")";
}

std::string embedding_gradient_rule(const Attrs& attrs, OperandTypes operands) {
  check_index_type("indices", *operands[1]);
  return "t... d, t... -> v=" + std::to_string(attrs.integer("num_embeddings")) + " d; t...: sum";
}

void embedding_gradient_reference(const RefCall& call) {
  const RefTensor& dy = call.in(0);
  const RefTensor& ids = call.in(1);
  RefTensor& dweight = call.out();
  const auto width = static_cast<size_t>(dweight.size(1));
  for (size_t t = 0; t < ids.data.size(); ++t) {
    const auto id = static_cast<int64_t>(ids.data[t]);
    const int64_t row = id - call.begin("v");
    if (row < 0 || row >= dweight.size(0) || id == call.attrs.integer("padding_idx")) continue;
    for (size_t d = 0; d < width; ++d)
      dweight.data[static_cast<size_t>(row) * width + d] += dy.data[t * width + d];
  }
}

// A thread has its own columns of every row: no two write the same element, and ids are added in
// their order.
class EmbeddingGradientKernel : public Kernel {
 public:
  explicit EmbeddingGradientKernel(const KernelSpec& spec)
      : dy_(rows_of(spec.operands[0])),
        dweight_(rows_of(spec.results[0])),
        ids_dtype_(spec.operands[1].type.dtype),
        begin_(spec.begin("v")),
        padding_(spec.attrs->integer("padding_idx")) {}

  void run(Member& member, const void* const* operands, void* const* results,
           void* /*scratch*/) const noexcept override {
    const Range columns = member.share(dweight_.size, 16);
    auto* dweight = static_cast<float*>(results[0]);
    for (int64_t row = 0; row < dweight_.count; ++row)
      std::fill(dweight + row * dweight_.stride + columns.begin,
                dweight + row * dweight_.stride + columns.end, 0.0F);
    const auto* dy = static_cast<const float*>(operands[0]);
    for (int64_t t = 0; t < dy_.count; ++t) {
      const int64_t id = ids_dtype_ == DType::kI32 ? static_cast<const int32_t*>(operands[1])[t]
                                                   : static_cast<const int64_t*>(operands[1])[t];
      const int64_t row = id - begin_;
      if (row < 0 || row >= dweight_.count || id == padding_) continue;
      for (int64_t d = columns.begin; d < columns.end; ++d)
        dweight[row * dweight_.stride + d] += dy[t * dy_.stride + d];
    }
  }

 private:
  RowsOf dy_;
  RowsOf dweight_;
  DType ids_dtype_;
  int64_t begin_;
  int64_t padding_;
};

std::unique_ptr<Kernel> make_embedding_gradient(const KernelSpec& spec) {
  const OperandSpec& ids = spec.operands[1];
  const bool plain = ids.strides == contiguous_strides(ids.type.shape);
  if (spec.results[0].type.dtype != DType::kF32 || !plain) return make_reference_kernel(spec);
  return std::make_unique<EmbeddingGradientKernel>(spec);
}

std::vector<DType> embedding_int8_dtypes(const Attrs& attrs, OperandTypes operands) {
  check_int8_weight(*operands[0], *operands[1]);
  check_index_type("indices", *operands[2]);
  return {attrs.dtype("dtype")};
}

void embedding_int8_reference(const RefCall& call) {
  const RefTensor* const operands[] = {call.operands[0], call.operands[2]};
  embedding_reference({call.attrs, operands, call.results, call.begins});
  const RefTensor& scale = call.in(1);
  const RefTensor& ids = call.in(2);
  const auto width = static_cast<size_t>(call.in(0).size(1));
  for (size_t t = 0; t < ids.data.size(); ++t) {
    const int64_t row = static_cast<int64_t>(ids.data[t]) - call.begin("v");
    if (row < 0 || row >= scale.size(0)) continue;
    for (size_t d = 0; d < width; ++d)
      call.out().data[t * width + d] *= scale.data[static_cast<size_t>(row)];
  }
}

// Reads rows of a weight that lies in panels, because it is also the weight of a linear, or of an
// int8 table, whose rows have scales.
class RowsKernel : public Kernel {
 public:
  explicit RowsKernel(const KernelSpec& spec)
      : has_scale_(spec.op == &embedding_int8),
        in_panels_(spec.operands[0].layout == Layout::kPanels),
        ids_operand_(has_scale_ ? 2 : 1),
        ids_dtype_(spec.operands[ids_operand_].type.dtype),
        panels_dtype_(kernels::panel_dtype(spec.operands[0].type.dtype)),
        y_dtype_(spec.results[0].type.dtype),
        ids_shape_(spec.operands[ids_operand_].type.shape),
        ids_strides_(spec.operands[ids_operand_].strides),
        y_strides_(spec.results[0].strides),
        weight_strides_(spec.operands[0].strides),
        scale_stride_(has_scale_ ? spec.operands[1].strides[0] : 0),
        rows_(spec.operands[0].type.shape[0]),
        width_(spec.operands[0].type.shape[1]),
        begin_(spec.begin("v")) {
    CHECK(in_panels_ || has_scale_);
  }

  void run(Member& member, const void* const* operands, void* const* results,
           void* /*scratch*/) const noexcept override {
    const Range share = member.share(element_count(ids_shape_));
    for (int64_t t = share.begin; t < share.end; ++t) {
      int64_t from = 0;
      int64_t to = 0;
      int64_t rest = t;
      for (size_t i = ids_shape_.size(); i-- > 0;) {
        from += rest % ids_shape_[i] * ids_strides_[i];
        to += rest % ids_shape_[i] * y_strides_[i];
        rest /= ids_shape_[i];
      }
      const void* ids = operands[ids_operand_];
      const int64_t id = ids_dtype_ == DType::kI32 ? static_cast<const int32_t*>(ids)[from]
                                                   : static_cast<const int64_t*>(ids)[from];
      auto* y = static_cast<std::byte*>(results[0]) + to * dtype_bytes(y_dtype_);
      if (id < begin_ || id - begin_ >= rows_) {
        std::fill(y, y + width_ * dtype_bytes(y_dtype_), std::byte{0});
        continue;
      }
      const int64_t row = id - begin_;
      const float scale =
          has_scale_ ? static_cast<const float*>(operands[1])[row * scale_stride_] : 1.0F;
      if (in_panels_)
        kernels::read_panel_row(panels_dtype_, operands[0], width_, row, y, y_dtype_, scale);
      else
        read_row(static_cast<const int8_t*>(operands[0]) + row * weight_strides_[0], scale, y);
    }
  }

 private:
  void read_row(const int8_t* row, float scale, std::byte* y) const {
    for (int64_t i = 0; i < width_; ++i) {
      const float value = static_cast<float>(row[i * weight_strides_[1]]) * scale;
      if (y_dtype_ == DType::kF32)
        reinterpret_cast<float*>(y)[i] = value;
      else
        reinterpret_cast<uint16_t*>(y)[i] =
            y_dtype_ == DType::kBF16 ? f32_to_bf16(value) : f32_to_f16(value);
    }
  }

  bool has_scale_;
  bool in_panels_;
  size_t ids_operand_;
  DType ids_dtype_;
  DType panels_dtype_;
  DType y_dtype_;
  Shape ids_shape_;
  Strides ids_strides_;
  Strides y_strides_;
  Strides weight_strides_;
  int64_t scale_stride_;
  int64_t rows_;
  int64_t width_;
  int64_t begin_;
};

std::unique_ptr<Kernel> make_embedding(const KernelSpec& spec) {
  const OperandSpec& weight = spec.operands[0];
  const OperandSpec& ids = spec.operands[1];
  if (weight.layout == Layout::kPanels) return std::make_unique<RowsKernel>(spec);
  Lookup lookup{.shape = spec.results[0].type.shape,
                .element_bytes = dtype_bytes(weight.type.dtype),
                .y_strides = spec.results[0].strides,
                .x_strides = Strides(ids.type.shape.size(), 0)};
  lookup.x_strides.push_back(weight.strides[1]);
  LookupIndex row{.operand = 1,
                  .dtype = ids.type.dtype,
                  .strides = ids.strides,
                  .x_stride = weight.strides[0],
                  .begin = spec.begin("v"),
                  .rows = weight.type.shape[0]};
  row.strides.push_back(0);
  lookup.indices = {row};
  return make_lookup_kernel(lookup);
}

std::unique_ptr<Kernel> make_embedding_int8(const KernelSpec& spec) {
  if (!is_kernel_float(spec.results[0].type.dtype)) return make_reference_kernel(spec);
  return std::make_unique<RowsKernel>(spec);
}

}  // namespace

// An id that is not a row of the (local) table gives zeros: so the parts of a split table add up.
// For the same reason an id outside the whole table gives zeros, where PyTorch raises.
const OpDef embedding{
    .name = "embedding",
    .arguments =
        "weight, indices, padding_idx: int = -1, scale_grad_by_freq: bool = false, "
        "sparse: bool = false",
    .rule = "v d, t... -> t... d; v: sum",
    .linear = {"weight"},
    .result_dtypes = embedding_dtypes,
    .gradient_for = embedding_gradient_text,
    .reference = embedding_reference,
    .make_kernel = make_embedding,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kLast,
    .panels_readable = true,
    .samples = {"weight: f32[37, 9], indices: i64[2, 5] < 37",
                "weight: bf16[70, 33], indices: i32[7] < 70",
                "weight: f16[5, 4], indices: i64[] < 5"},
};

// Of embedding: dweight[v, d] = sum of dy[t..., d] over the t whose id is v; padding_idx gets none.
const OpDef embedding_gradient{
    .name = "embedding_gradient",
    .arguments = "dy, indices, num_embeddings: int, padding_idx: int = -1",
    .rule_for = embedding_gradient_rule,
    .linear = {"dy"},
    .result_dtypes = first_dtype,
    .reference = embedding_gradient_reference,
    .make_kernel = make_embedding_gradient,
    .operand_strides = Strided::kRows,
    .result_strides = Strided::kRows,
    .samples = {"dy: f32[2, 5, 9], indices: i64[2, 5] < 37, num_embeddings=37",
                "dy: f32[40, 33], indices: i32[40] < 7, num_embeddings=7, padding_idx=3",
                "dy: bf16[7, 4], indices: i64[7] < 5, num_embeddings=5"},
};

const OpDef embedding_int8{
    .name = "embedding_int8",
    .arguments = "weight, scale, indices, dtype: dtype",
    .rule = "v d, v, t... -> t... d; v: sum",
    .result_dtypes = embedding_int8_dtypes,
    .reference = embedding_int8_reference,
    .make_kernel = make_embedding_int8,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kLast,
    .panels_readable = true,
    .samples = {"weight: i8[37, 9], scale: f32[37], indices: i64[2, 5] < 37, dtype=f32",
                "weight: i8[70, 33], scale: f32[70], indices: i32[7] < 70, dtype=bf16",
                "weight: i8[5, 4], scale: f32[5], indices: i64[] < 5, dtype=f16"},
};

}  // namespace shardwright::ops
