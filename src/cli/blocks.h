// A graph cut into its layers, for explain.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "cli/fold.h"
#include "ir/graph.h"

namespace shardwright::cli {

struct Block {
  std::string title;              // "layers 0-29", "before the layers"
  std::string path;               // "model.layers.*", "" around the layers
  std::vector<int> layers;        // that are alike; empty around the layers
  std::vector<ir::NodeId> nodes;  // of the first of them, in order
  std::vector<size_t> exchanges;  // indices into the report's, in the order of their places
  std::vector<std::vector<size_t>> alike;  // exchanges of each of the layers, in the same order
};

// `report`: of the graph. Layers are folded where operators, decisions, exchanges and fused groups
// are the same, unless `fold` is false.
std::vector<Block> blocks_of(const ir::Graph& graph, const nlohmann::ordered_json& report,
                             bool fold);

}  // namespace shardwright::cli
