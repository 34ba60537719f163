// The text form of a graph: print and parse. What --dump writes and tests/golden reads.
//
//   tensor 0 "layers.0.weight": f32[64, 64] parameter trainable also "lm_head.weight"
//   tensor 1 "scalar_1": f32[] constant = [0.5]
//   graph forward {
//     group 0 "llama2_qkv" from "rules.yaml:12" split "m"
//     input %ids: i64[1, 16] = user_input "input_ids"
//     input %w: f32[64, 64] = parameter "layers.0.weight" of 0 offset 0 strides [64, 1]
//     %y: f32[1, 16, 64] = linear(%x, %w, -) {attr=1} begin {h=5} group 0 @ "layers.0"
//     "model.py":41
//     output %y = user_output "logits"
//   }
//
// Local graphs add `piece [0:1, 8:16]` at the end of inputs and outputs. '#' starts a comment.
// Constants of up to kMaxPrintedElements elements are printed with their elements; no other bytes.
#pragma once

#include <string>
#include <string_view>

#include "ir/graph.h"

namespace shardwright::ir {

inline constexpr int64_t kMaxPrintedElements = 64;

std::string print(const Graph& graph);
std::string print(const Module& module);  // tensors, then graphs
// Throws Error(kBrokenFile) with line and column.
Module parse(std::string_view text);

// "user_input", "parameter", ...; "user_output", "loss", ...
std::string_view role_name(InputRole role);
std::string_view role_name(OutputRole role);

}  // namespace shardwright::ir
