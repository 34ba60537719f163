// A kernel that runs an operator's reference on one thread.
#include "base/check.h"
#include "ops/op.h"

namespace shardwright::ops {

namespace {

// Visits the elements of `shape` in row-major order with their offsets (elements) by `strides`.
template <typename Visit>
void for_each_offset(const Shape& shape, const Strides& strides, Visit visit) {
  const int64_t count = element_count(shape);
  int64_t index[kMaxDims] = {};
  int64_t offset = 0;
  for (int64_t i = 0; i < count; ++i) {
    visit(i, offset);
    for (size_t d = shape.size(); d-- > 0;) {
      offset += strides[d];
      if (++index[d] < shape[d]) break;
      offset -= strides[d] * shape[d];
      index[d] = 0;
    }
  }
}

class ReferenceKernel final : public Kernel {
 public:
  explicit ReferenceKernel(const KernelSpec& spec)
      : op_(spec.op),
        attrs_(*spec.attrs),
        operand_specs_(spec.operands),
        result_specs_(spec.results),
        begins_(spec.begins) {
    CHECK(op_->reference != nullptr);
    for (const OperandSpec& operand : operand_specs_) {
      CHECK(!operand.present || operand.layout == Layout::kStrided);
      operands_.push_back(operand.present ? RefTensor(operand.type) : RefTensor());
    }
    for (const OperandSpec& result : result_specs_) results_.emplace_back(result.type);
    for (size_t i = 0; i < operands_.size(); ++i)
      pointers_.push_back(operand_specs_[i].present ? &operands_[i] : nullptr);
  }

  void run(Member& member, const void* const* operands, void* const* results,
           void* /*scratch*/) const noexcept override {
    if (member.thread() != 0) return;
    for (size_t i = 0; i < operands_.size(); ++i)
      if (operand_specs_[i].present) load(operand_specs_[i], operands[i], &operands_[i]);
    for (RefTensor& result : results_) result.data.assign(result.data.size(), 0.0);
    op_->reference({attrs_, pointers_, results_, begins_});
    for (size_t i = 0; i < results_.size(); ++i) store(results_[i], result_specs_[i], results[i]);
  }

 private:
  static void load(const OperandSpec& spec, const void* from, RefTensor* to) {
    const auto* bytes = static_cast<const std::byte*>(from);
    const int64_t width = dtype_bytes(spec.type.dtype);
    for_each_offset(spec.type.shape, spec.strides, [&](int64_t i, int64_t offset) {
      to->data[static_cast<size_t>(i)] = load_element(spec.type.dtype, bytes + offset * width);
    });
  }

  static void store(const RefTensor& from, const OperandSpec& spec, void* to) {
    auto* bytes = static_cast<std::byte*>(to);
    const int64_t width = dtype_bytes(spec.type.dtype);
    for_each_offset(spec.type.shape, spec.strides, [&](int64_t i, int64_t offset) {
      store_element(spec.type.dtype, bytes + offset * width, from.data[static_cast<size_t>(i)]);
    });
  }

  const OpDef* op_;
  Attrs attrs_;
  std::vector<OperandSpec> operand_specs_;
  std::vector<OperandSpec> result_specs_;
  std::vector<std::pair<std::string, int64_t>> begins_;
  // Scratch of run(), which thread 0 of one team alone uses.
  mutable std::vector<RefTensor> operands_;
  mutable std::vector<RefTensor> results_;
  std::vector<const RefTensor*> pointers_;
};

}  // namespace

std::unique_ptr<Kernel> make_reference_kernel(const KernelSpec& spec) {
  return std::make_unique<ReferenceKernel>(spec);
}

}  // namespace shardwright::ops
