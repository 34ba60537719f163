// Constants of a graph: which inputs are constant, their values, and adding new ones.
#pragma once

#include <optional>

#include "ir/graph.h"

namespace shardwright::passes {

// Which logical tensors some graph of the module writes: buffers that are not constant.
std::vector<bool> mutated_tensors(const ir::Module& module);

// The input that is `id` if its elements are known: a constant, or a buffer that no graph writes.
// Null otherwise. `mutated` from mutated_tensors.
const ir::Input* find_constant(const ir::Module& module, const ir::Graph& graph,
                               const std::vector<bool>& mutated, ir::ValueId id);

// The value of a constant with one element.
std::optional<double> scalar_value(const ir::Module& module, const ir::Graph& graph,
                                   ir::ValueId id);

// An input for these elements: one that the graph or the module has already, or a new constant.
ir::ValueId intern_constant(ir::Module& module, ir::Graph& graph, const ops::RefTensor& tensor,
                            const std::string& name);

}  // namespace shardwright::passes
