// find_gelu: 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) becomes gelu(approximate="tanh").
#pragma once

#include "ir/graph.h"

namespace shardwright::passes {

// However its polynomial and its products are written (Hendrycks and Gimpel, "Gaussian Error Linear
// Units", section 2). In 16 bits gelu computes in f32 and rounds once, where the chain of operators
// rounds after each: as PyTorch's own gelu does.
void find_gelu(ir::Module& module, ir::Graph& graph);

}  // namespace shardwright::passes
