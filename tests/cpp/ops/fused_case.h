// Fused steps in tests: run fused, and part by part with the kernels that the operators have alone.
#pragma once

#include <map>

#include "ops/fused_text.h"
#include "ops/run_op.h"

namespace shardwright::ops {

// 64-byte aligned bytes, filled with 0xff.
class Bytes {
 public:
  explicit Bytes(int64_t size) : bytes_(static_cast<size_t>(size) + 64, std::byte{0xff}) {}
  std::byte* data() {
    return reinterpret_cast<std::byte*>((reinterpret_cast<uintptr_t>(bytes_.data()) + 63) / 64 *
                                        64);
  }

 private:
  std::vector<std::byte> bytes_;
};

// The same bits, NaN being equal to NaN.
inline void expect_same(const std::vector<RefTensor>& got, const std::vector<RefTensor>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t r = 0; r < got.size(); ++r)
    for (size_t i = 0; i < want[r].data.size(); ++i) {
      const double a = got[r].data[i];
      const double b = want[r].data[i];
      ASSERT_TRUE(a == b || (std::isnan(a) && std::isnan(b)))
          << "result " << r << " element " << i << " is " << a << ", expected " << b;
    }
}

// Operands and results of a case in memory.
class FusedRun {
 public:
  FusedRun(const FusedCase& fused, const std::vector<RefTensor>& inputs)
      : case_(fused), team_(fused.spec.n_threads) {
    buffers_.reserve(inputs.size() + fused.result_specs.size());
    for (size_t i = 0; i < inputs.size(); ++i) {
      const OperandSpec& spec = fused.operand_specs[i];
      buffers_.emplace_back(spec.type, spec.strides).write(inputs[i]);
      operands_.push_back(buffers_.back().data());
      if (spec.layout == Layout::kPanels) pack(spec);
    }
    for (const OperandSpec& spec : fused.result_specs) {
      buffers_.emplace_back(spec.type, spec.strides);
      results_.push_back(buffers_.back().data());
    }
  }
  // Result `result` in the memory of that operand.
  void share(int result, int operand) {
    results_[static_cast<size_t>(result)] =
        const_cast<void*>(operands_[static_cast<size_t>(operand)]);
    shared_[result] = operand;
  }

  std::vector<RefTensor> fused() {
    const std::unique_ptr<Kernel> kernel = make_fused_kernel(case_.spec);
    run(*kernel, operands_.data(), results_.data());
    std::vector<RefTensor> results = read();
    if (shared_.empty()) {  // once more gives the same
      run(*kernel, operands_.data(), results_.data());
      expect_same(read(), results);
    }
    return results;
  }

  std::vector<RefTensor> by_parts() {
    std::vector<Bytes> scratch;
    for (const int64_t bytes : case_.spec.scratch_bytes) scratch.emplace_back(bytes);
    for (const FusedPart& part : case_.spec.parts) {
      KernelSpec spec{.op = part.op,
                      .attrs = &part.attrs,
                      .operands = {},
                      .results = {},
                      .begins = part.begins,
                      .n_threads = case_.spec.n_threads};
      std::vector<const void*> operands;
      std::vector<void*> results;
      const auto place = [&](const FusedValue& value) -> std::byte* {
        const auto i = static_cast<size_t>(value.index);
        switch (value.where) {
          case FusedValue::Where::kOperand:
            return static_cast<std::byte*>(const_cast<void*>(operands_[i])) + value.offset_bytes;
          case FusedValue::Where::kResult:
            return static_cast<std::byte*>(results_[i]) + value.offset_bytes;
          case FusedValue::Where::kScratch:
            return scratch[i].data() + value.offset_bytes;
          default:
            return nullptr;
        }
      };
      for (const FusedValue& value : part.operands) {
        spec.operands.push_back(value.spec);
        spec.operands.back().present = value.where != FusedValue::Where::kAbsent;
        operands.push_back(place(value));
      }
      for (const FusedValue& value : part.results) {
        spec.results.push_back(value.spec);
        results.push_back(place(value));
      }
      run(*part.op->make_kernel(spec), operands.data(), results.data());
    }
    return read();
  }

 private:
  void pack(const OperandSpec& spec) {
    const DType dtype = kernels::panel_dtype(spec.type.dtype);
    panels_.emplace_back(kernels::panel_bytes(dtype, spec.type.shape[0], spec.type.shape[1]));
    const kernels::PackArgs pack{.n = spec.type.shape[0],
                                 .k = spec.type.shape[1],
                                 .w = operands_.back(),
                                 .w_dtype = spec.type.dtype,
                                 .stride_n = spec.type.shape[1],
                                 .panels = panels_.back().data(),
                                 .panels_dtype = dtype};
    team_.run([&](Member& member) { kernels::pack_panels(member, pack); });
    operands_.back() = pack.panels;
  }

  void run(const Kernel& kernel, const void* const* operands, void* const* results) {
    Bytes scratch(kernel.scratch_bytes());
    team_.run([&](Member& member) { kernel.run(member, operands, results, scratch.data()); });
  }

  std::vector<RefTensor> read() {
    std::vector<RefTensor> out;
    const size_t first = operands_.size();
    for (size_t i = 0; i < results_.size(); ++i) {
      const auto shared = shared_.find(static_cast<int>(i));
      TestBuffer& buffer =
          buffers_[shared == shared_.end() ? first + i : static_cast<size_t>(shared->second)];
      EXPECT_TRUE(buffer.rest_is_untouched()) << "result " << i << ": wrote between the elements";
      out.push_back(buffer.read());
    }
    return out;
  }

  const FusedCase& case_;
  Team team_;
  std::vector<TestBuffer> buffers_;
  std::vector<Bytes> panels_;
  std::vector<const void*> operands_;
  std::vector<void*> results_;
  std::map<int, int> shared_;
};

inline std::vector<RefTensor> random_inputs(const FusedCase& fused, unsigned seed,
                                            int integers = 0) {
  std::mt19937 random(seed);
  std::vector<RefTensor> inputs;
  for (const OperandSpec& spec : fused.operand_specs) {
    inputs.push_back(random_tensor(spec.type, 0, random));
    std::uniform_int_distribution<int> integer(-integers, integers);
    for (double& value : inputs.back().data)
      if (integers > 0) value = integer(random);
  }
  return inputs;
}

}  // namespace shardwright::ops
