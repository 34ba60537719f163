// Matches and misses in words.
#pragma once

#include <string>
#include <vector>

#include "ir/graph.h"
#include "rules/match.h"

namespace shardwright::rules {

// Matches at places that differ in the number of a layer alone.
struct Places {
  std::string paths;   // "model.layers.*.self_attn.o_proj, model.layers.*.post_attention_layernorm"
  std::string layers;  // "layers 0-29"; "" if there are none
  int count = 0;
};
std::vector<Places> fold_places(const ir::Graph& graph, const std::vector<const Match*>& matches);

// "the best attempt matched 1 of 6 nodes (...), then no reader of linear_57 was silu_58 ..."
std::string describe_miss(const ir::Graph& graph, const RuleFile& file, int rule, const Miss& miss);

// "0-3, 7": ascending numbers as ranges.
std::string ranges_text(std::vector<int> numbers);

}  // namespace shardwright::rules
