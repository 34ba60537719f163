// Weights as int8, symmetric, with an f32 scale for each output channel.
#pragma once

#include "ir/graph.h"

namespace shardwright::passes {

// On canonical graphs, all of a module at once. Every f32, bf16 or f16 parameter (or part of one)
// that graphs read only as the weight [N, K] of linears or the table [N, K] of embeddings becomes
// two logical tensors, NAME.int8: i8[N, K] and NAME.scale: f32[N], with
//   scale[n] = max_k |w[n, k]| / 127,  int8[n, k] = w[n, k] / scale[n] to the nearest (even),
// and its readers linear_int8 and embedding_int8, which compute in the dtype that they had. Tied
// tensors stay tied. Parameters without bytes (shapes only) give tensors without.
// Memory: the int8 tensors (a quarter of f32), and a block of rows at a time; what is no longer
// read is dropped. Throws Error(kUnsupported) for a weight that is not finite.
void quantize_weights(ir::Module& module);

}  // namespace shardwright::passes
