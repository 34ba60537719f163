// bring_groups_together.
#include "plan/schedule.h"

#include <algorithm>
#include <set>

#include "base/check.h"
#include "ir/clusters.h"

namespace shardwright::plan {
namespace {

// For each node its group; views between two members of one group are members.
std::vector<int> groups_of(const ir::Graph& graph) {
  std::vector<int> groups;
  for (const ir::Node& node : graph.nodes) groups.push_back(node.group);
  const auto producers = graph.producers();
  const auto consumers = graph.consumers();
  std::vector<std::set<int>> readers(graph.nodes.size());  // groups that read a view, through views
  for (size_t n = graph.nodes.size(); n-- > 0;) {
    const ir::Node& node = graph.nodes[n];
    if (node.op->view == nullptr || groups[n] >= 0) continue;
    for (const ir::NodeId reader : consumers[static_cast<size_t>(node.outputs[0])]) {
      const auto r = static_cast<size_t>(reader);
      if (groups[r] >= 0) readers[n].insert(groups[r]);
      readers[n].merge(std::set<int>(readers[r]));
    }
  }
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    if (groups[n] >= 0 || readers[n].empty()) continue;
    const ir::NodeId from = producers[static_cast<size_t>(graph.nodes[n].inputs[0])];
    const int group = from < 0 ? -1 : groups[static_cast<size_t>(from)];
    if (readers[n].contains(group)) groups[n] = group;
  }
  return groups;
}

}  // namespace

void bring_groups_together(std::vector<ir::Graph>& chips) {
  if (chips[0].groups.empty()) return;
  const std::vector<int> groups = groups_of(chips[0]);
  ir::Clusters clusters(chips[0]);
  // Exchanges that meet together stay side by side.
  for (size_t n = 1; n < chips[0].nodes.size(); ++n)
    if (chips[0].nodes[n].attrs.boolean("with_previous", false))
      CHECK(clusters.join(static_cast<ir::NodeId>(n) - 1, static_cast<ir::NodeId>(n)));
  // Of each group, a node of each part that it is divided into, in their order: a node goes into
  // the first part that takes it, so that what a transfer does not separate runs together.
  std::vector<std::vector<ir::NodeId>> parts(chips[0].groups.size());
  for (size_t n = 0; n < groups.size(); ++n) {
    if (groups[n] < 0) continue;
    const auto node = static_cast<ir::NodeId>(n);
    std::vector<ir::NodeId>& mine = parts[static_cast<size_t>(groups[n])];
    if (std::none_of(mine.begin(), mine.end(),
                     [&](ir::NodeId part) { return clusters.join(part, node); }))
      mine.push_back(node);
  }
  const std::vector<ir::NodeId> order = clusters.order();
  for (ir::Graph& graph : chips) {
    std::vector<ir::Node> nodes;
    nodes.reserve(order.size());
    for (const ir::NodeId node : order) {
      nodes.push_back(std::move(graph.nodes[static_cast<size_t>(node)]));
      nodes.back().group = groups[static_cast<size_t>(node)];
    }
    graph.nodes = std::move(nodes);
  }
}

}  // namespace shardwright::plan
