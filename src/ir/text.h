// The text form of a graph: print and parse. What --dump writes and tests/golden reads.
//
//   graph forward {
//     input %ids: i64[1, 16] = user_input "input_ids"
//     input %w: f32[64, 64] = parameter "layers.0.weight" of 0 offset 0 strides [64, 1]
//     %y: f32[1, 16, 64] = linear(%x, %w, -) {attr=1} begin {h=5} group 3 @ "layers.0" model.py:41
//     output %y = user_output "logits"
//   }
#pragma once

#include <string>
#include <string_view>

#include "ir/graph.h"

namespace shardwright::ir {

std::string print(const Graph& graph);
std::string print(const Module& module);  // tensors (name, type, role; no bytes), then graphs
// Throws Error(kBrokenFile) with line and column.
Module parse(std::string_view text);

}  // namespace shardwright::ir
