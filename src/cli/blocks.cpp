// Cuts a graph into layers, puts each exchange where it stands, and folds what is alike.
#include "cli/blocks.h"

#include <algorithm>
#include <map>
#include <numeric>

#include <fmt/format.h>

namespace shardwright::cli {
namespace {

using Json = nlohmann::ordered_json;

std::optional<Layer> layer_of_node(const ir::Graph& graph, const ir::Node& node) {
  return node.source < 0 ? std::nullopt
                         : layer_of(graph.sources[static_cast<size_t>(node.source)].path);
}

struct Piece {
  std::optional<Layer> layer;
  std::vector<ir::NodeId> nodes;
  std::vector<size_t> exchanges;
};

// The pieces in order, and the piece of each node. A node outside of the layers that stands among
// them (a table of all layers that was computed late) belongs to what comes before them.
std::vector<Piece> cut(const ir::Graph& graph, std::vector<size_t>* piece_of) {
  const size_t count = graph.nodes.size();
  std::vector<std::optional<Layer>> layers;
  for (const ir::Node& node : graph.nodes) layers.push_back(layer_of_node(graph, node));
  // Whose layers come after each node.
  std::vector<std::optional<std::string>> next(count + 1);
  for (size_t n = count; n-- > 0;) next[n] = layers[n] ? layers[n]->of : next[n + 1];
  std::vector<Piece> pieces;
  std::map<std::pair<std::string, int>, size_t> of_layer;
  std::map<std::optional<std::string>, size_t> before;  // the layers of each stack
  for (size_t n = 0; n < count; ++n) {
    size_t at = pieces.size();
    if (layers[n]) {
      at = of_layer.try_emplace({layers[n]->of, layers[n]->number}, at).first->second;
    } else {
      at = before.try_emplace(next[n], at).first->second;
    }
    if (at == pieces.size()) pieces.push_back({layers[n], {}, {}});
    pieces[at].nodes.push_back(static_cast<ir::NodeId>(n));
    piece_of->push_back(at);
  }
  return pieces;
}

// Where an exchange stands: before the reader that forced it, else after the node that made what is
// exchanged.
struct Place {
  ir::NodeId node = 0;
  bool after = true;
  auto operator<=>(const Place&) const = default;
};
Place place_of(const Json& exchange) {
  const ir::NodeId forced = exchange.at("forced_by_node"), producer = exchange.at("producer");
  const auto readers = exchange.at("readers").get<std::vector<ir::NodeId>>();
  if (forced >= 0 &&
      (producer < 0 || std::find(readers.begin(), readers.end(), forced) != readers.end()))
    return {forced, false};
  return {std::max(producer, 0), true};
}

void put_exchanges(const Json& exchanges, const std::vector<size_t>& piece_of,
                   std::vector<Piece>* pieces) {
  std::vector<size_t> order(exchanges.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return place_of(exchanges[a]) < place_of(exchanges[b]);
  });
  for (const size_t e : order)
    (*pieces)[piece_of.at(static_cast<size_t>(place_of(exchanges[e]).node))].exchanges.push_back(e);
}

// Equal for pieces that are alike.
std::string signature_of(const ir::Graph& graph, const Json& report, const Piece& piece) {
  std::string text = piece.layer ? piece.layer->of : "";
  for (const ir::NodeId id : piece.nodes) {
    const ir::Node& node = graph.nodes[static_cast<size_t>(id)];
    const std::string path =
        node.source < 0 ? "" : graph.sources[static_cast<size_t>(node.source)].path;
    text += fmt::format("\n{} {} {}", node.op->name, folded(path),
                        report.at("decision_of_node").empty()
                            ? 0
                            : report["decision_of_node"].at(static_cast<size_t>(id)).get<int>());
    if (node.group < 0 || !report.contains("groups")) continue;
    const Json& group = report["groups"].at(static_cast<size_t>(node.group));
    text += fmt::format(" {} {} {}", group.at("name").get<std::string>(),
                        group.at("origin").get<std::string>(), group.at("steps").get<int>());
  }
  for (const size_t e : piece.exchanges) {
    const Json& exchange = report.at("exchanges").at(e);
    text += fmt::format("\n{} {} {}", exchange.at("kind").get<std::string>(),
                        exchange.at("bytes_moved").get<int64_t>(),
                        folded(exchange.at("forced_by").get<std::string>()));
  }
  return text;
}

// Block `i` of `count`, of the layers of `of`.
void name(Block& block, size_t i, size_t count, const std::string& of) {
  if (!block.layers.empty()) {
    block.title = (block.layers.size() == 1 ? "layer " : "layers ") + ranges_text(block.layers);
    const std::string number = block.layers.size() == 1 ? fmt::format("{}", block.layers[0]) : "*";
    block.path = of.empty() ? number : of + "." + number;
    return;
  }
  if (count == 1)
    block.title = "the whole graph";
  else
    block.title =
        i == 0 ? "before the layers" : (i + 1 == count ? "after the layers" : "between the layers");
}

}  // namespace

std::vector<Block> blocks_of(const ir::Graph& graph, const Json& report, bool fold) {
  std::vector<size_t> piece_of;
  std::vector<Piece> pieces = cut(graph, &piece_of);
  put_exchanges(report.at("exchanges"), piece_of, &pieces);
  std::vector<Block> blocks;
  std::vector<std::string> of;  // the stack of each block
  std::map<std::string, size_t> known;
  for (const Piece& piece : pieces) {
    size_t at = blocks.size();
    if (fold && piece.layer)
      at = known.try_emplace(signature_of(graph, report, piece), at).first->second;
    if (at == blocks.size()) {
      blocks.push_back({"", "", {}, piece.nodes, piece.exchanges, {}});
      of.push_back(piece.layer ? piece.layer->of : "");
    }
    if (piece.layer) blocks[at].layers.push_back(piece.layer->number);
    blocks[at].alike.push_back(piece.exchanges);
  }
  for (size_t i = 0; i < blocks.size(); ++i) name(blocks[i], i, blocks.size(), of[i]);
  return blocks;
}

}  // namespace shardwright::cli
