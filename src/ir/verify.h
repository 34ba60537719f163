// What may exist at each stage. Called between all passes; a failure is a bug of the pass before.
#pragma once

#include "ir/graph.h"

namespace shardwright::ir {

enum class Stage : uint8_t { kImported, kCanonical, kSolved, kLocal };

// CHECKs: unique names, definitions before uses, every value made once, operand counts, inputs'
// refs inside their tensors, outputs exist. Global stages: result types as infer_types says, no
// exchange, no begins, no pieces; from kCanonical no operator with an expansion. kLocal: begins are
// sound, pieces have the shapes of their values, exchanges are well formed.
void verify(const Module& module, const Graph& graph, Stage stage);

}  // namespace shardwright::ir
