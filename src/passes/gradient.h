// gradient: the backward pass of a graph, by reverse accumulation over OpDef::gradient.
#pragma once

#include <vector>

#include "ir/graph.h"

namespace shardwright::passes {

// Appends what computes d loss / d w for each of `wanted` (values of the graph), in the type of w;
// `loss` has no dimensions. kNoValue where the loss does not depend on it. Nodes keep the source of
// the node that they differentiate. Throws Error(kUnsupported) that names every operator on the way
// that has no gradient yet.
std::vector<ir::ValueId> append_gradients(ir::Module& module, ir::Graph& graph, ir::ValueId loss,
                                          const std::vector<ir::ValueId>& wanted);

// For a canonical graph with an output of role kLoss: adds an output of role kGradient, named as
// the input, for each parameter (part) that is to be trained, and brings the graph back to
// canonical form. A parameter that the loss does not depend on gets none. Throws Error(kUsage) if
// the loss is not one number or nothing is to be trained.
void gradient(ir::Module& module, ir::Graph& graph);

}  // namespace shardwright::passes
