// What `explain` says of one plan, as one JSON object: --json prints it, the page draws it.
#pragma once

#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "pef/read.h"

namespace shardwright::cli {

// From the PEF's report and what measure-performance left beside it; never needs the model.
//
// {"schema_version", "pef", "n_chips", "mode", "machine", "chips": bytes, "notes",
//  "graphs": [{"name", "modelled_seconds", "received_bytes", "meetings", "measured",
//              "blocks": [block]}]}
//
// A block is a layer, or what stands around the layers; layers that are alike are one block, shown
// as its first layer (measured times: the mean over all of them). It has "title", "path", "layers",
// "nodes" (in order: operator, split, who decided, alternatives, inputs), "exchanges" (in order,
// with the nodes between which they stand) and "groups" (fused). Nodes are named by their index in
// the graph.
//
// `n_chips` 0: the first plan for several chips, else the first. `layer`: blocks of that layer
// alone, not folded. Throws Error(kUsage): no such plan or layer; Error(kBrokenFile): the report
// can't be read; or it was written before there were explanations (says: compile again).
nlohmann::ordered_json explain(const std::string& path, int n_chips, std::optional<int> layer);

// For people: per block a table of gemms, embeddings and attention, of transfers, of fused groups.
std::string explanation_text(const nlohmann::ordered_json& explanation);

// One page that needs nothing else: explain.html with the explanation in it.
std::string explanation_page(const nlohmann::ordered_json& explanation);

}  // namespace shardwright::cli
