// merge_exchanges: finds a new order on the first chip's graph, and gives it to all.
#include "shard/merge_exchanges.h"

#include <algorithm>
#include <limits>

#include "ops/exchange.h"

namespace shardwright::shard {
namespace {

using ir::NodeId;

bool is_exchange(const ir::Node& node) { return node.op == &ops::exchange; }

// The chips' work falls into phases with a meeting after each. All exchanges take part in the first
// meeting that they can, so that there are as few meetings as the longest chain of exchanges.
class Phases {
 public:
  explicit Phases(const ir::Graph& graph)
      : graph_(graph),
        first_(graph.nodes.size(), 0),
        last_(graph.nodes.size(), std::numeric_limits<int>::max()),
        phase_(graph.nodes.size(), 0) {
    find_first();
    find_last();
    // Other nodes stay where they are in the order, as far as that goes: what is made early lives
    // long.
    int here = 0;
    for (size_t n = 0; n < graph.nodes.size(); ++n) {
      phase_[n] = is_exchange(graph.nodes[n]) ? first_[n] : std::clamp(here, first_[n], last_[n]);
      if (is_exchange(graph.nodes[n])) here = std::max(here, first_[n] + 1);
    }
  }

  int of(size_t node) const { return phase_[node]; }

  // Of a phase's nodes, the exchanges come last.
  std::vector<size_t> order() const {
    std::vector<size_t> nodes(graph_.nodes.size());
    for (size_t n = 0; n < nodes.size(); ++n) nodes[n] = n;
    std::stable_sort(nodes.begin(), nodes.end(), [&](size_t a, size_t b) {
      if (phase_[a] != phase_[b]) return phase_[a] < phase_[b];
      return !is_exchange(graph_.nodes[a]) && is_exchange(graph_.nodes[b]);
    });
    return nodes;
  }

 private:
  // The first phase in which a node can run: behind the meetings that bring its operands.
  void find_first() {
    const std::vector<NodeId> producers = graph_.producers();
    for (size_t n = 0; n < graph_.nodes.size(); ++n)
      for (const ir::ValueId id : graph_.nodes[n].inputs) {
        const NodeId from = id == ir::kNoValue ? -1 : producers[static_cast<size_t>(id)];
        if (from < 0) continue;
        const auto f = static_cast<size_t>(from);
        first_[n] = std::max(first_[n], first_[f] + (is_exchange(graph_.nodes[f]) ? 1 : 0));
      }
  }

  // The last phase in which it must run, for the meetings that need it to be the first possible.
  void find_last() {
    const std::vector<std::vector<NodeId>> consumers = graph_.consumers();
    for (size_t n = graph_.nodes.size(); n-- > 0;) {
      for (const ir::ValueId id : graph_.nodes[n].outputs)
        for (const NodeId to : consumers[static_cast<size_t>(id)])
          last_[n] = std::min(last_[n], last_[static_cast<size_t>(to)]);
      if (is_exchange(graph_.nodes[n])) last_[n] = first_[n];
    }
  }

  const ir::Graph& graph_;
  std::vector<int> first_, last_, phase_;
};

}  // namespace

void merge_exchanges(std::vector<ir::Graph>* chips) {
  const Phases phases(chips->front());
  const std::vector<size_t> order = phases.order();
  for (ir::Graph& graph : *chips) {
    std::vector<ir::Node> nodes;
    for (size_t i = 0; i < order.size(); ++i) {
      const bool together = is_exchange(graph.nodes[order[i]]) && i > 0 &&
                            is_exchange(nodes.back()) &&
                            phases.of(order[i]) == phases.of(order[i - 1]);
      nodes.push_back(std::move(graph.nodes[order[i]]));
      if (together) nodes.back().attrs.set("with_previous", true);
    }
    graph.nodes = std::move(nodes);
  }
}

}  // namespace shardwright::shard
