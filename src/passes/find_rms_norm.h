// find_rms_norm: x * rsqrt(mean(x^2) + eps) * weight becomes rms_norm.
#pragma once

#include "ir/graph.h"

namespace shardwright::passes {

// With the casts of 16-bit models (the norm computes in f32 by itself) and 1 + weight of Gemma.
void find_rms_norm(ir::Module& module, ir::Graph& graph);

}  // namespace shardwright::passes
