// The gemm stage of fused steps: which operators its epilogues do, and its kernel.
//
// An epilogue computes in f32 from the gemm's sums and rounds once, when the result is stored: the
// operators that it stands for would round after each of them where the dtype is 16 bits wide. In
// f32 the operations are the same (but a product and a sum may become one fused multiply-add).
#include <algorithm>
#include <array>

#include "base/check.h"
#include "ops/elementwise.h"
#include "ops/fused_stage.h"
#include "ops/table.h"

namespace shardwright::ops {
namespace {

using kernels::Activation;
using Where = FusedValue::Where;

constexpr size_t kMaxGemms = 16;  // results of a step

bool is_same_memory(const FusedValue& a, const FusedValue& b) {
  return a.where == b.where && a.index == b.index && a.offset_bytes == b.offset_bytes;
}

// The activation that this operator is, or kNone.
Activation activation_of(const FusedPart& part) {
  if (part.op == &relu) return Activation::kRelu;
  if (part.op == &silu) return Activation::kSilu;
  if (part.op != &gelu) return Activation::kNone;
  return part.attrs.text("approximate") == "tanh" ? Activation::kGeluTanh : Activation::kGelu;
}

class GemmPlanner {
 public:
  GemmPlanner(const FusedSpec& spec, GemmPlan* plan) : spec_(spec), plan_(plan) {}

  std::string add_linear(int index) {
    const FusedPart& part = part_at(index);
    const FusedValue& x = part.operands[0];
    if (part.operands[1].spec.layout != Layout::kPanels)
      return name_of(spec_, index) + " has a weight that does not lie in panels";
    const auto x_rows = maybe_rows_of(x.spec.type, x.spec.strides);
    const auto rows = maybe_rows_of(part.results[0].spec.type, part.results[0].spec.strides);
    if (!x_rows || !rows)
      return name_of(spec_, index) + " reads or gives what is no matrix of rows";
    if (plan_->gemms.empty()) {
      plan_->x = x;
      plan_->x_rows = *x_rows;
    }
    const FusedPart& first = part_at(plan_->gemms.empty() ? index : plan_->gemms[0].linear[0]);
    const DType weight = first.operands[1].spec.type.dtype;
    if (!is_same_memory(x, plan_->x) || *x_rows != plan_->x_rows ||
        x.spec.type.dtype != plan_->x.spec.type.dtype)
      return name_of(spec_, index) + " reads another x than " +
             name_of(spec_, plan_->gemms[0].linear[0]);
    if (kernels::panel_dtype(weight) != kernels::panel_dtype(part.operands[1].spec.type.dtype))
      return name_of(spec_, index) + " has a weight of another type than " +
             name_of(spec_, plan_->gemms[0].linear[0]);
    FusedGemm gemm;
    gemm.linear[0] = index;
    gemm.result = part.results[0];
    gemm.rows = *rows;
    const bool is_int8 = part.op == &linear_int8;
    if (is_int8) gemm.scale[0] = part.operands[2];
    const bool has_bias =
        !is_int8 && part.operands.size() > 2 && part.operands[2].where != Where::kAbsent;
    if (has_bias) gemm.bias[0] = part.operands[2];
    if (is_int8 && rows->size > 1 && gemm.scale[0].spec.strides.back() != 1)
      return name_of(spec_, index) + " has a scale that lies apart";
    if (has_bias && rows->size > 1 && gemm.bias[0].spec.strides.back() != 1)
      return name_of(spec_, index) + " has a bias that lies apart";
    if (plan_->gemms.size() == kMaxGemms) return "too many linears";
    plan_->gemms.push_back(gemm);
    plan_->parts.push_back(index);
    return "";
  }

  // Makes `part` the end of an epilogue if it can be.
  void try_absorb(int index) {
    const FusedPart& part = part_at(index);
    if (!part.op->elementwise || part.results.size() != 1) return;
    const FusedValue& result = part.results[0];
    const auto rows = maybe_rows_of(result.spec.type, result.spec.strides);
    if (!rows || !is_kernel_float(result.spec.type.dtype)) return;
    std::array<FusedGemm*, 2> open = {nullptr, nullptr};
    for (size_t i = 0; i < part.operands.size() && i < 2; ++i) open[i] = ended_at(part.operands[i]);
    FusedGemm* gemm = open[0] != nullptr ? open[0] : open[1];
    if (gemm == nullptr || rows->count != gemm->rows.count || rows->size != gemm->rows.size) return;
    const bool both = open[0] != nullptr && open[1] != nullptr;
    const FusedValue* other =
        part.operands.size() == 2 && !both ? &part.operands[open[0] != nullptr ? 1 : 0] : nullptr;
    bool done = false;
    if (part.operands.size() == 1)
      done = part.op == &cast || add_activation(part, gemm);
    else if (both && part.op == &mul && open[0] != open[1])
      done = add_gate(open[0], open[1], &gemm);
    else if (other != nullptr && part.op == &add && is_there_before(*other))
      done = add_other(*other, result, gemm);
    if (!done) return;
    gemm->result = result;
    gemm->rows = *rows;
    plan_->parts.push_back(index);
  }

 private:
  const FusedPart& part_at(int index) const { return spec_.parts[static_cast<size_t>(index)]; }

  // The gemm whose whole result this is, if nothing else reads it.
  FusedGemm* ended_at(const FusedValue& value) {
    for (FusedGemm& gemm : plan_->gemms) {
      if (value.where != Where::kScratch || !is_same_memory(value, gemm.result)) continue;
      const auto rows = maybe_rows_of(value.spec.type, value.spec.strides);
      const bool whole = rows && *rows == gemm.rows;
      return whole && count_readers(spec_, value) == 1 ? &gemm : nullptr;
    }
    return nullptr;
  }

  // Not made by this stage or after it.
  bool is_there_before(const FusedValue& value) const {
    if (!is_kernel_float(value.spec.type.dtype) || value.spec.layout != Layout::kStrided)
      return false;
    const int writer = writer_of(spec_, value);
    return writer < 0 ? value.where == Where::kOperand : !depends_on_linear(writer);
  }
  bool depends_on_linear(int index) const {
    const FusedPart& part = part_at(index);
    if (is_linear(*part.op)) return true;
    return std::any_of(part.operands.begin(), part.operands.end(), [&](const FusedValue& value) {
      const int writer = writer_of(spec_, value);
      return writer >= 0 && depends_on_linear(writer);
    });
  }

  static bool add_activation(const FusedPart& part, FusedGemm* gemm) {
    const Activation activation = activation_of(part);
    const bool is_late = gemm->activation != Activation::kNone || gemm->linear[1] >= 0 ||
                         gemm->residual.where != Where::kAbsent;
    if (activation == Activation::kNone || is_late) return false;
    gemm->activation = activation;
    return true;
  }

  // activation(a) * b: one of the two has no activation yet.
  bool add_gate(FusedGemm* a, FusedGemm* b, FusedGemm** gemm) {
    for (const FusedGemm* one : {a, b})
      if (one->linear[1] >= 0 || one->residual.where != Where::kAbsent) return false;
    if (b->activation != Activation::kNone) std::swap(a, b);
    if (b->activation != Activation::kNone) return false;
    a->linear[1] = b->linear[0];
    a->bias[1] = b->bias[0];
    a->scale[1] = b->scale[0];
    const auto position = static_cast<size_t>(a - plan_->gemms.data());
    const auto removed = static_cast<size_t>(b - plan_->gemms.data());
    plan_->gemms.erase(plan_->gemms.begin() + static_cast<std::ptrdiff_t>(removed));
    *gemm = &plan_->gemms[removed < position ? position - 1 : position];
    return true;
  }

  // A bias of the columns, or a matrix like the result.
  static bool add_other(const FusedValue& other, const FusedValue& result, FusedGemm* gemm) {
    OperandSpec seen{.type = {other.spec.type.dtype, result.spec.type.shape}, .strides = {}};
    if (other.spec.type.ndim() > result.spec.type.ndim()) return false;
    seen.strides = broadcast_strides(other.spec.type.shape, other.spec.strides, seen.type.shape);
    const auto rows = maybe_rows_of(seen.type, seen.strides);
    if (!rows || gemm->residual.where != Where::kAbsent) return false;
    const bool can_be_bias = gemm->activation == Activation::kNone && gemm->linear[1] < 0 &&
                             gemm->bias[0].where == Where::kAbsent;
    if (can_be_bias && rows->stride == 0) {
      gemm->bias[0] = other;
    } else {
      gemm->residual = other;
      gemm->residual_rows = *rows;
    }
    return true;
  }

  const FusedSpec& spec_;
  GemmPlan* plan_;
};

class GemmStage final : public FusedStage {
 public:
  GemmStage(const FusedSpec& spec, const GemmPlan& plan) : plan_(plan), n_threads_(spec.n_threads) {
    input_ = {.m = plan.x_rows.count,
              .k = plan.x_rows.size,
              .x_dtype = plan.x.spec.type.dtype,
              .x_row_stride = plan.x_rows.stride};
    for (const FusedGemm& gemm : plan.gemms) {
      const FusedPart& part = spec.parts[static_cast<size_t>(gemm.linear[0])];
      const OperandSpec& weight = part.operands[1].spec;
      input_.panels_dtype = kernels::panel_dtype(weight.type.dtype);
      weights_.push_back({part.operands[1], {}});
      if (gemm.linear[1] >= 0)
        weights_.back()[1] = spec.parts[static_cast<size_t>(gemm.linear[1])].operands[1];
      CHECK(gemm.rows.count == input_.m && gemm.rows.size == weight.type.shape[0]);
      outputs_.push_back({.n = gemm.rows.size,
                          .bias_dtype = gemm.bias[0].spec.type.dtype,
                          .up_bias_dtype = gemm.bias[1].spec.type.dtype,
                          .activation = gemm.activation,
                          .residual_dtype = gemm.residual.spec.type.dtype,
                          .residual_row_stride = gemm.residual_rows.stride,
                          .y_dtype = gemm.result.spec.type.dtype,
                          .y_row_stride = gemm.rows.stride});
      // Scratch depends on whether there are pairs; not read.
      if (gemm.linear[1] >= 0) outputs_.back().up_panels = this;
    }
    scratch_bytes_ = kernels::gemm_scratch_bytes(input_, outputs_, n_threads_);
  }

  int64_t scratch_bytes() const override { return scratch_bytes_; }

  void run(Member& member, const FusedMemory& memory, std::byte* scratch) const noexcept override {
    kernels::GemmInput input = input_;
    input.x = memory.of(plan_.x);
    std::array<kernels::GemmOutput, kMaxGemms> outputs;
    for (size_t i = 0; i < outputs_.size(); ++i) {
      const FusedGemm& gemm = plan_.gemms[i];
      outputs[i] = outputs_[i];
      outputs[i].panels = memory.of(weights_[i][0]);
      outputs[i].up_panels = memory.of(weights_[i][1]);
      outputs[i].scale = reinterpret_cast<const float*>(memory.of(gemm.scale[0]));
      outputs[i].up_scale = reinterpret_cast<const float*>(memory.of(gemm.scale[1]));
      outputs[i].bias = memory.of(gemm.bias[0]);
      outputs[i].up_bias = memory.of(gemm.bias[1]);
      outputs[i].residual = memory.of(gemm.residual);
      outputs[i].y = memory.of(gemm.result);
    }
    kernels::gemm(member, input, {outputs.data(), outputs_.size()}, scratch);
  }

 private:
  GemmPlan plan_;
  int n_threads_;
  kernels::GemmInput input_;
  std::vector<kernels::GemmOutput> outputs_;  // without pointers
  std::vector<std::array<FusedValue, 2>> weights_;
  int64_t scratch_bytes_ = 0;
};

}  // namespace

bool is_linear(const OpDef& op) { return &op == &linear || &op == &linear_int8; }

std::string plan_gemm(const FusedSpec& spec, std::span<const int> linears,
                      std::span<const int> others, GemmPlan* plan) {
  GemmPlanner planner(spec, plan);
  for (const int part : linears)
    if (std::string reason = planner.add_linear(part); !reason.empty()) return reason;
  for (const int part : others) planner.try_absorb(part);
  return "";
}

std::unique_ptr<FusedStage> make_gemm_stage(const FusedSpec& spec, const GemmPlan& plan) {
  return std::make_unique<GemmStage>(spec, plan);
}

}  // namespace shardwright::ops
