// What may exist at each stage. Called between all passes; a failure is a bug of the pass before.
#pragma once

#include "ir/graph.h"

namespace shardwright::ir {

enum class Stage : uint8_t { kImported, kCanonical, kSolved, kLocal };

// CHECKs: unique names, definitions before uses, every value produced once, operand counts and
// result types as infer_types says (imported, canonical), inputs' refs inside their tensors,
// outputs exist; from kCanonical: no operator with an expansion, no shape-like attributes; kLocal:
// begins name factors, pieces match types, exchanges well formed.
void verify(const Module& module, const Graph& graph, Stage stage);

}  // namespace shardwright::ir
