// The shared parts of operators that move elements.
#include "ops/copy.h"

#include <cstring>

#include "base/check.h"
#include "ops/build.h"

namespace shardwright::ops {

namespace {

class CopyKernel final : public Kernel {
 public:
  CopyKernel(const KernelSpec& spec, std::span<const PartCopy> copies, std::optional<double> fill)
      : element_bytes_(dtype_bytes(spec.results[0].type.dtype)) {
    for (const PartCopy& part : copies)
      copies_.push_back({part.operand, part.result, part.from_offset * element_bytes_,
                         part.to_offset * element_bytes_,
                         kernels::StridedCopy(element_bytes_, part.shape, part.from, part.to)});
    if (!fill) return;
    const OperandSpec& result = spec.results[0];
    CHECK(is_contiguous(result.type.shape, result.strides));
    fill_count_ = result.type.count();
    store_element(result.type.dtype, fill_value_, *fill);
  }

  void run(Member& member, const void* const* operands, void* const* results,
           void* /*scratch*/) const noexcept override {
    if (fill_count_ > 0) {
      fill(member, results[0]);
      member.barrier();
    }
    for (const Part& part : copies_)
      part.copy.run(member, static_cast<const std::byte*>(operands[part.operand]) + part.from_bytes,
                    static_cast<std::byte*>(results[part.result]) + part.to_bytes);
  }

 private:
  struct Part {
    size_t operand;
    size_t result;
    int64_t from_bytes;
    int64_t to_bytes;
    kernels::StridedCopy copy;
  };

  void fill(Member& member, void* result) const {
    const Range share = member.share(fill_count_, 64);
    auto* bytes = static_cast<std::byte*>(result) + share.begin * element_bytes_;
    for (int64_t i = 0; i < share.size(); ++i)
      std::memcpy(bytes + i * element_bytes_, fill_value_, static_cast<size_t>(element_bytes_));
  }

  int64_t element_bytes_;
  std::vector<Part> copies_;
  int64_t fill_count_ = 0;
  std::byte fill_value_[8] = {};
};

}  // namespace

std::string whole_rule(OperandTypes operands, const std::vector<Shape>& results) {
  std::string text;
  std::string names;
  for (size_t i = 0; i < operands.size(); ++i) {
    if (i > 0) text += ", ";
    if (!operands[i]) {
      text += "-";
      continue;
    }
    for (size_t d = 0; d < operands[i]->shape.size(); ++d) {
      const std::string name = "x" + std::to_string(i) + "_" + std::to_string(d);
      text += name + " ";
      names += name + " ";
    }
  }
  text += " -> ";
  for (size_t i = 0; i < results.size(); ++i) {
    if (i > 0) text += ", ";
    for (size_t d = 0; d < results[i].size(); ++d) {
      const std::string name = "y" + std::to_string(i) + "_" + std::to_string(d);
      text += name + "=" + std::to_string(results[i][d]) + " ";
      names += name + " ";
    }
  }
  return names.empty() ? text : text + "; " + names + ": whole";
}

std::vector<int64_t> dims_of(const Attrs& attrs, std::string_view name) {
  const Attr* attr = attrs.find(name);
  if (attr != nullptr && std::holds_alternative<int64_t>(*attr)) return {std::get<int64_t>(*attr)};
  return attrs.integers(name);
}

std::unique_ptr<Kernel> make_part_copies(const KernelSpec& spec, std::span<const PartCopy> copies,
                                         std::optional<double> fill) {
  for (const PartCopy& part : copies)
    CHECK(spec.operands[part.operand].type.dtype == spec.results[part.result].type.dtype);
  return std::make_unique<CopyKernel>(spec, copies, fill);
}

std::unique_ptr<Kernel> make_view_copy(const KernelSpec& spec) {
  const OperandSpec& x = spec.operands[0];
  const OperandSpec& y = spec.results[0];
  PartCopy part{.shape = y.type.shape, .to = y.strides};
  if (!spec.op->view(spec, x.strides, &part.from, &part.from_offset)) {
    CHECK(is_contiguous(y.type.shape, y.strides));
    part.shape = x.type.shape;
    part.from = x.strides;
    part.from_offset = 0;
    part.to = contiguous_strides(x.type.shape);
  }
  return make_part_copies(spec, {&part, 1});
}

void gather_elements(const RefTensor& x, RefTensor& y,
                     const std::function<int64_t(std::span<const int64_t> index)>& source) {
  std::vector<int64_t> index(y.type.shape.size(), 0);
  for (double& element : y.data) {
    element = x.data[static_cast<size_t>(source(index))];
    next_index(y.type.shape, index);
  }
}

}  // namespace shardwright::ops
