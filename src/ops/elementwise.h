// What the elementwise operators share: rule, reference loop, and the kernel over the tile engine,
// for one operator or for a fused chain of them.
#pragma once

#include <cmath>

#include "kernels/cpu/tile.h"
#include "ops/op.h"

namespace shardwright::ops {

// rule_for: NumPy broadcasting of all operands.
std::string elementwise_rule(const Attrs&, OperandTypes operands);

// result_dtypes: bool; and the promoted type where it is floating-point, else f32.
std::vector<DType> bool_result(const Attrs&, OperandTypes operands);
std::vector<DType> float_result(const Attrs&, OperandTypes operands);

// Strides over the index space `shape` of a tensor that broadcasts to it: 0 where it has size 1.
Strides broadcast_strides(const Shape& from, const Strides& strides, const Shape& shape);

// reference: kFunction of the elements of all operands, as doubles.
void map_elements(const RefCall& call, double (*function)(const double* operands));
template <auto kFunction>
void elementwise_reference(const RefCall& call) {
  map_elements(call, [](const double* x) {
    if constexpr (requires { kFunction(0.0); }) {
      return static_cast<double>(kFunction(x[0]));
    } else if constexpr (requires { kFunction(0.0, 0.0); }) {
      return static_cast<double>(kFunction(x[0], x[1]));
    } else {
      return static_cast<double>(kFunction(x[0], x[1], x[2]));
    }
  });
}

template <kernels::TileCode kCode>
kernels::TileCode tile(const Attrs&) {
  return kCode;
}

// make_kernel of every operator that has a tile_code.
std::unique_ptr<Kernel> make_elementwise_kernel(const KernelSpec& spec);

// Elementwise operators that feed each other, run as one step over the index space of the outputs.
struct ChainOp {
  const OpDef* op = nullptr;
  const Attrs* attrs = nullptr;
  DType dtype = DType::kF32;  // of its result
  std::vector<int> operands;  // i >= 0: input i of the chain; -1 - i: the result of chain op i
};
// `outputs[i]` is the chain op whose result is written as specs.outputs[i]; all outputs have the
// same shape, to which all inputs broadcast. Throws Error(kUnsupported) for a chain that needs too
// many registers (kernels/cpu/tile.h).
std::unique_ptr<Kernel> make_chain_kernel(std::span<const ChainOp> chain,
                                          std::span<const OperandSpec> inputs,
                                          std::span<const int> outputs,
                                          std::span<const OperandSpec> output_specs);

}  // namespace shardwright::ops
