// Tests of operators: runs a kernel on buffers of any layout and compares with the reference.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "base/team.h"
#include "kernels/cpu/gemm.h"
#include "ops/op.h"
#include "ops/test_strides.h"

namespace shardwright::ops {

using Begins = std::vector<std::pair<std::string, int64_t>>;
using RefTensors = std::vector<std::optional<RefTensor>>;

inline std::vector<std::optional<TensorType>> types_of(const RefTensors& tensors) {
  std::vector<std::optional<TensorType>> types;
  for (const auto& tensor : tensors)
    types.push_back(tensor ? std::optional(tensor->type) : std::nullopt);
  return types;
}

// The tensor in its dtype with these strides; bytes between the elements are 0xff.
class TestBuffer {
 public:
  TestBuffer(TensorType type, Strides strides)
      : type_(std::move(type)), strides_(std::move(strides)) {
    int64_t last = 0;
    for (size_t i = 0; i < strides_.size(); ++i)
      last += std::max<int64_t>(type_.shape[i] - 1, 0) * strides_[i];
    bytes_.assign(static_cast<size_t>((last + 1) * dtype_bytes(type_.dtype)) + 64, std::byte{0xff});
    touched_.assign(bytes_.size(), false);
  }
  void write(const RefTensor& tensor) {
    visit([&](size_t i, std::byte* at) { store_element(type_.dtype, at, tensor.data[i]); });
  }
  RefTensor read() {
    RefTensor tensor(type_);
    visit([&](size_t i, std::byte* at) { tensor.data[i] = load_element(type_.dtype, at); });
    return tensor;
  }
  // True if no byte outside the elements was written.
  bool rest_is_untouched() {
    visit([&](size_t, std::byte* at) {
      for (int64_t b = 0; b < dtype_bytes(type_.dtype); ++b)
        touched_[static_cast<size_t>(at - bytes_.data() + b)] = true;
    });
    for (size_t i = 0; i < bytes_.size(); ++i)
      if (!touched_[i] && bytes_[i] != std::byte{0xff}) return false;
    return true;
  }
  void* data() { return bytes_.data(); }

 private:
  template <typename F>
  void visit(F f) {
    std::vector<int64_t> place(type_.shape.size(), 0);
    const int64_t count = type_.count();
    for (int64_t i = 0; i < count; ++i) {
      int64_t offset = 0;
      for (size_t d = 0; d < place.size(); ++d) offset += place[d] * strides_[d];
      f(static_cast<size_t>(i), bytes_.data() + offset * dtype_bytes(type_.dtype));
      for (size_t d = place.size(); d-- > 0;) {
        if (++place[d] < type_.shape[d]) break;
        place[d] = 0;
      }
    }
  }

  TensorType type_;
  Strides strides_;
  std::vector<std::byte> bytes_;
  std::vector<bool> touched_;
};

struct RunOptions {
  TestLayout layout = TestLayout::kContiguous;
  int n_threads = 1;
  int panel_operand = -1;  // this operand lies in panels
  bool in_place = false;   // result 0 is operand 0's memory
};

inline std::vector<RefTensor> run_reference(const OpDef& op, const Attrs& attrs,
                                            const RefTensors& operands,
                                            const std::vector<TensorType>& results,
                                            const Begins& begins = {}) {
  std::vector<const RefTensor*> pointers;
  for (const auto& operand : operands) pointers.push_back(operand ? &*operand : nullptr);
  std::vector<RefTensor> out;
  for (const TensorType& type : results) out.emplace_back(type);
  op.reference({attrs, pointers, out, begins});
  return out;
}

inline std::vector<RefTensor> run_kernel(const OpDef& op, const Attrs& attrs,
                                         const RefTensors& operands,
                                         const std::vector<TensorType>& results,
                                         const Begins& begins = {},
                                         const RunOptions& options = {}) {
  Team team(options.n_threads);
  KernelSpec spec{.op = &op,
                  .attrs = &attrs,
                  .operands = {},
                  .results = {},
                  .begins = begins,
                  .n_threads = options.n_threads};
  std::vector<TestBuffer> buffers;
  std::vector<const void*> inputs;
  std::vector<void*> outputs;
  buffers.reserve(operands.size() + results.size());
  std::vector<std::byte> panels;
  for (size_t i = 0; i < operands.size(); ++i) {
    if (!operands[i]) {
      spec.operands.push_back({.present = false, .type = {}, .strides = {}});
      inputs.push_back(nullptr);
      continue;
    }
    const TensorType& type = operands[i]->type;
    const bool packed = options.panel_operand == static_cast<int>(i);
    const Strides strides = packed ? contiguous_strides(type.shape)
                                   : test_strides(type.shape, op.operand_strides, options.layout);
    spec.operands.push_back(
        {.type = type, .strides = strides, .layout = packed ? Layout::kPanels : Layout::kStrided});
    buffers.emplace_back(type, strides).write(*operands[i]);
    inputs.push_back(buffers.back().data());
    if (!packed) continue;
    const DType dtype = kernels::panel_dtype(type.dtype);
    panels.resize(static_cast<size_t>(kernels::panel_bytes(dtype, type.shape[0], type.shape[1])) +
                  64);
    auto aligned = (reinterpret_cast<uintptr_t>(panels.data()) + 63) / 64 * 64;
    const kernels::PackArgs pack{.n = type.shape[0],
                                 .k = type.shape[1],
                                 .w = inputs.back(),
                                 .w_dtype = type.dtype,
                                 .stride_n = type.shape[1],
                                 .panels = reinterpret_cast<void*>(aligned),
                                 .panels_dtype = dtype};
    team.run([&](Member& member) { kernels::pack_panels(member, pack); });
    inputs.back() = pack.panels;
  }
  for (size_t i = 0; i < results.size(); ++i) {
    const bool shared = options.in_place && i == 0;
    const Strides strides = shared
                                ? spec.operands[0].strides
                                : test_strides(results[i].shape, op.result_strides, options.layout);
    spec.results.push_back({.type = results[i], .strides = strides});
    buffers.emplace_back(results[i], strides);
    outputs.push_back(shared ? const_cast<void*>(inputs[0]) : buffers.back().data());
  }
  const std::unique_ptr<Kernel> kernel = op.make_kernel(spec);
  std::vector<std::byte> scratch(static_cast<size_t>(kernel->scratch_bytes()) + 64,
                                 std::byte{0xff});
  auto* aligned =
      reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(scratch.data()) + 63) / 64 * 64);
  for (int repeat = 0; repeat < (options.in_place ? 1 : 2); ++repeat)
    team.run([&](Member& member) { kernel->run(member, inputs.data(), outputs.data(), aligned); });
  std::vector<RefTensor> out;
  const size_t first_result = buffers.size() - results.size();
  for (size_t i = 0; i < results.size(); ++i) {
    TestBuffer& buffer = options.in_place && i == 0 ? buffers[0] : buffers[first_result + i];
    EXPECT_TRUE(buffer.rest_is_untouched()) << "result " << i << ": wrote between the elements";
    out.push_back(buffer.read());
  }
  return out;
}

// Values that the dtype holds: floats in [-2, 2], integers in [0, below) or [-9, 9].
inline RefTensor random_tensor(const TensorType& type, int64_t below, std::mt19937& random) {
  RefTensor tensor(type);
  std::uniform_real_distribution<double> real(-2, 2);
  std::uniform_int_distribution<int64_t> integer(below > 0 ? 0 : -9, below > 0 ? below - 1 : 9);
  for (double& value : tensor.data) {
    value = type.dtype == DType::kBool ? static_cast<double>(random() % 2)
            : is_floating(type.dtype)  ? round_to(type.dtype, real(random))
                                       : static_cast<double>(integer(random));
  }
  return tensor;
}

inline RefTensors random_operands(const Sample& sample, unsigned seed) {
  std::mt19937 random(seed);
  RefTensors operands;
  for (size_t i = 0; i < sample.operands.size(); ++i)
    operands.push_back(sample.operands[i] ? std::optional(random_tensor(*sample.operands[i],
                                                                        sample.below[i], random))
                                          : std::nullopt);
  return operands;
}

// Sums of a few hundred products of values up to 2; 16-bit results are rounded at their ends, and
// attention also rounds its weights.
inline double tolerance_of(DType dtype) {
  return dtype == DType::kBF16  ? 1.6e-2
         : dtype == DType::kF16 ? 2e-3
         : is_floating(dtype)   ? 1e-5
                                : 0;
}

inline void expect_close(const std::vector<RefTensor>& got, const std::vector<RefTensor>& want,
                         double tolerance = -1) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t r = 0; r < got.size(); ++r) {
    const double allowed = tolerance >= 0 ? tolerance : tolerance_of(want[r].type.dtype);
    double largest = 0;
    for (const double value : want[r].data)
      largest = std::isfinite(value) ? std::max(largest, std::abs(value)) : largest;
    int shown = 0;
    for (size_t i = 0; i < want[r].data.size() && shown < 3; ++i) {
      const double a = got[r].data[i];
      const double b = want[r].data[i];
      if (a == b || (std::isnan(a) && std::isnan(b)) ||
          std::abs(a - b) <= allowed * std::max(std::abs(b), 0.1 * largest))
        continue;
      ADD_FAILURE() << "result " << r << " element " << i << " is " << a << ", expected " << b;
      ++shown;
    }
  }
}

// Every sample of an operator that has a kernel, contiguous and strided, with 1 to 3 threads, and
// with packed weights where the operator reads them.
inline void check_samples(const OpDef& op) {
  SCOPED_TRACE(op.name);
  unsigned seed = 1;
  for (const std::string_view text : op.samples) {
    SCOPED_TRACE(std::string(text) + ", seed " + std::to_string(seed));
    const Sample sample = parse_sample(op, text);
    const RefTensors operands = random_operands(sample, seed++);
    const std::vector<TensorType> types = infer_types(op, sample.attrs, sample.operands);
    const std::vector<RefTensor> want = run_reference(op, sample.attrs, operands, types);
    for (const TestLayout layout : {TestLayout::kContiguous, TestLayout::kStrided})
      for (int n = 1; n <= 3; ++n) {
        SCOPED_TRACE(std::string(layout == TestLayout::kStrided ? "strided, " : "") +
                     std::to_string(n) + " threads");
        expect_close(
            run_kernel(op, sample.attrs, operands, types, {}, {.layout = layout, .n_threads = n}),
            want);
      }
    const int packed = op.panels_readable ? 0 : op.panel_operand;
    if (packed >= 0)
      expect_close(
          run_kernel(op, sample.attrs, operands, types, {},
                     {.layout = TestLayout::kStrided, .n_threads = 2, .panel_operand = packed}),
          want);
    if (op.in_place && operands[0]->type == types[0])
      expect_close(
          run_kernel(op, sample.attrs, operands, types, {}, {.n_threads = 2, .in_place = true}),
          want);
  }
}

}  // namespace shardwright::ops
