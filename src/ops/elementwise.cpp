// The shared parts of elementwise operators.
#include "ops/elementwise.h"

#include "base/check.h"
#include "ops/build.h"

namespace shardwright::ops {

namespace {

class ChainKernel final : public Kernel {
 public:
  explicit ChainKernel(const kernels::TileProgram& program) : kernel_(program) {}

  void run(Member& member, const void* const* operands, void* const* results,
           void* /*scratch*/) const noexcept override {
    kernels::run_tile(member, kernel_, operands, results);
  }

 private:
  kernels::TileKernel kernel_;
};

kernels::TileOp tile_op(const ChainOp& op, int first_op_register, int dst) {
  CHECK(op.op->tile_code != nullptr, std::string(op.op->name) + " is not elementwise");
  CHECK(!op.operands.empty() && op.operands.size() <= 3);
  const auto register_of = [&](size_t i) {
    if (i >= op.operands.size()) return -1;
    const int operand = op.operands[i];
    return operand >= 0 ? operand : first_op_register + (-1 - operand);
  };
  return {.code = op.op->tile_code(*op.attrs),
          .dtype = op.dtype,
          .dst = dst,
          .a = register_of(0),
          .b = register_of(1),
          .c = register_of(2)};
}

}  // namespace

std::string elementwise_rule(const Attrs&, OperandTypes operands) {
  return broadcast_rule(operands);
}

std::vector<DType> bool_result(const Attrs&, OperandTypes) { return {DType::kBool}; }

std::vector<DType> float_result(const Attrs&, OperandTypes operands) {
  const DType dtype = promoted_dtype(operands);
  return {is_floating(dtype) ? dtype : DType::kF32};
}

Strides broadcast_strides(const Shape& from, const Strides& strides, const Shape& shape) {
  CHECK(from.size() <= shape.size());
  Strides result(shape.size(), 0);
  const size_t leading = shape.size() - from.size();
  for (size_t d = 0; d < from.size(); ++d) {
    CHECK(from[d] == 1 || from[d] == shape[leading + d],
          to_string(from) + " does not broadcast to " + to_string(shape));
    if (from[d] != 1) result[leading + d] = strides[d];
  }
  return result;
}

void map_elements(const RefCall& call, double (*function)(const double* operands)) {
  constexpr size_t kMaxOperands = 3;
  const size_t n = call.operands.size();
  CHECK(n <= kMaxOperands);
  RefTensor& y = call.out();
  const Shape& shape = y.type.shape;
  Strides strides[kMaxOperands];
  for (size_t i = 0; i < n; ++i) {
    const Shape& from = call.in(i).type.shape;
    strides[i] = broadcast_strides(from, contiguous_strides(from), shape);
  }
  std::vector<int64_t> index(shape.size(), 0);
  for (double& result : y.data) {
    double x[kMaxOperands] = {};
    for (size_t i = 0; i < n; ++i)
      x[i] = call.in(i).data[static_cast<size_t>(position_of(index, strides[i]))];
    result = function(x);
    next_index(shape, index);
  }
}

std::unique_ptr<Kernel> make_chain_kernel(std::span<const ChainOp> chain,
                                          std::span<const OperandSpec> inputs,
                                          std::span<const int> outputs,
                                          std::span<const OperandSpec> output_specs) {
  CHECK(!outputs.empty() && outputs.size() == output_specs.size());
  kernels::TileProgram program;
  program.shape = output_specs[0].type.shape;
  const int n_inputs = static_cast<int>(inputs.size());
  for (int i = 0; i < n_inputs; ++i) {
    const OperandSpec& input = inputs[static_cast<size_t>(i)];
    CHECK(input.present && input.layout == Layout::kStrided);
    program.inputs.push_back(
        {input.type.dtype, broadcast_strides(input.type.shape, input.strides, program.shape)});
    program.ops.push_back(
        {.code = kernels::TileCode::kLoad, .dtype = input.type.dtype, .dst = i, .a = i});
  }
  for (size_t i = 0; i < chain.size(); ++i)
    program.ops.push_back(tile_op(chain[i], n_inputs, n_inputs + static_cast<int>(i)));
  for (size_t i = 0; i < outputs.size(); ++i) {
    const OperandSpec& output = output_specs[i];
    CHECK(output.type.shape == program.shape);
    program.outputs.push_back({output.type.dtype, output.strides});
    program.ops.push_back({.code = kernels::TileCode::kStore,
                           .dtype = output.type.dtype,
                           .dst = static_cast<int>(i),
                           .a = n_inputs + outputs[i]});
  }
  return std::make_unique<ChainKernel>(program);
}

std::unique_ptr<Kernel> make_elementwise_kernel(const KernelSpec& spec) {
  ChainOp op{
      .op = spec.op, .attrs = spec.attrs, .dtype = spec.results[0].type.dtype, .operands = {}};
  for (size_t i = 0; i < spec.operands.size(); ++i) op.operands.push_back(static_cast<int>(i));
  const int output = 0;
  return make_chain_kernel({&op, 1}, spec.operands, {&output, 1}, spec.results);
}

}  // namespace shardwright::ops
