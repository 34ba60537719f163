// Inputs that are parts of logical tensors.
#pragma once

#include <string>

#include "ir/graph.h"

namespace shardwright::passes {

// The input of the graph that is this part, made if there is none.
ir::ValueId input_for_ref(ir::Module& module, ir::Graph& graph, ir::InputRole role,
                          const ir::TensorRef& ref, const TensorType& type);

// What a part is called: the tensor's name; ".T" behind it if its dimensions stand in another
// order;
// "[dim:begin:end]" for each dimension (of the tensor) that is cut. Parts that are no such thing
// are named by offset and shape.
std::string ref_name(const ir::LogicalTensor& tensor, const ir::TensorRef& ref,
                     const TensorType& type);

}  // namespace shardwright::passes
