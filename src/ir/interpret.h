// The oracle: runs a graph slowly and plainly in double, whole or on n virtual chips.
#pragma once

#include <map>
#include <string>

#include "ir/graph.h"

namespace shardwright::ir {

struct InterpretOptions {
  // Round every value to its dtype after each node, as a run in that precision would. Constant
  // folding does; the oracle does not.
  bool round_to_dtype = false;
};

using RefMap = std::map<std::string, ops::RefTensor>;  // by input or output name

ops::RefTensor to_ref(const TensorView& view);
// The elements of `tensor` that `ref` names, as a tensor of `type`.
ops::RefTensor read_ref(const LogicalTensor& tensor, const TensorRef& ref, const TensorType& type);

// All outputs by name. User inputs come from `inputs`; parameters, buffers, constants from the
// module's bytes unless `inputs` has the whole logical tensor under its name. Throws Error(kUsage)
// for a missing input or a wrong type.
RefMap interpret(const Module& module, const Graph& graph, const RefMap& inputs,
                 const InterpretOptions& options = {});

// Runs one graph a chip in lockstep: whole user inputs are cut by Input::piece, exchanges combine
// all chips' pieces, outputs are put together by Output::piece. CHECKs that copies agree wherever
// two chips hold the same element (exchange sources declared `same`, whole outputs), so a fault is
// located at the first conversion that shows it.
RefMap interpret_chips(const Module& module, const std::vector<Graph>& chips, const RefMap& inputs,
                       const InterpretOptions& options = {});

// One node alone (constant folding, the table test). Results by the node's result types.
std::vector<ops::RefTensor> interpret_node(const Graph& graph, const Node& node,
                                           std::span<const ops::RefTensor* const> operands);

}  // namespace shardwright::ir
