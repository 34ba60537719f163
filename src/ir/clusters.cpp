// Clusters: an order of them is kept, and only the part between two that join is put anew.
#include "ir/clusters.h"

#include <algorithm>

namespace shardwright::ir {

Clusters::Clusters(const Graph& graph) : operands_(graph.nodes.size()) {
  const std::vector<NodeId> producers = graph.producers();
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    for (const ValueId id : graph.nodes[n].inputs) {
      const NodeId from = id == kNoValue ? -1 : producers[static_cast<size_t>(id)];
      if (from >= 0) operands_[n].push_back(from);
    }
    const auto node = static_cast<int>(n);
    cluster_.push_back(node);
    members_.push_back({node});
    order_.push_back(node);
    position_.push_back(n);
  }
}

bool Clusters::reads_from(int cluster, const std::vector<bool>& clusters) const {
  const std::vector<NodeId>& members = members_[static_cast<size_t>(cluster)];
  return std::any_of(members.begin(), members.end(), [&](NodeId node) {
    const std::vector<NodeId>& from = operands_[static_cast<size_t>(node)];
    return std::any_of(from.begin(), from.end(), [&](NodeId operand) {
      return clusters[static_cast<size_t>(this->cluster(operand))];
    });
  });
}

bool Clusters::join(NodeId a, NodeId b) {
  int first = cluster(a);
  int last = cluster(b);
  if (first == last) return true;
  if (position_[static_cast<size_t>(first)] > position_[static_cast<size_t>(last)])
    std::swap(first, last);
  const size_t begin = position_[static_cast<size_t>(first)];
  const size_t end = position_[static_cast<size_t>(last)];
  // What stands between them and needs the first must come after both.
  std::vector<bool> needs(members_.size(), false);
  std::vector<int> before;
  std::vector<int> after;
  needs[static_cast<size_t>(first)] = true;
  for (size_t i = begin + 1; i < end; ++i) {
    const int between = order_[i];
    if (between == kGone) continue;
    needs[static_cast<size_t>(between)] = reads_from(between, needs);
    (needs[static_cast<size_t>(between)] ? after : before).push_back(between);
  }
  needs[static_cast<size_t>(first)] = false;
  if (reads_from(last, needs)) return false;

  std::vector<NodeId>& members = members_[static_cast<size_t>(first)];
  for (const NodeId node : members_[static_cast<size_t>(last)]) {
    cluster_[static_cast<size_t>(node)] = first;
    members.push_back(node);
  }
  std::sort(members.begin(), members.end());
  members_[static_cast<size_t>(last)].clear();
  std::vector<int> between = std::move(before);
  between.push_back(first);
  between.insert(between.end(), after.begin(), after.end());
  between.resize(end - begin + 1, kGone);
  for (size_t i = 0; i < between.size(); ++i) {
    order_[begin + i] = between[i];
    if (between[i] != kGone) position_[static_cast<size_t>(between[i])] = begin + i;
  }
  return true;
}

std::vector<NodeId> Clusters::order() const {
  std::vector<NodeId> nodes;
  for (const int cluster : order_)
    if (cluster != kGone)
      nodes.insert(nodes.end(), members_[static_cast<size_t>(cluster)].begin(),
                   members_[static_cast<size_t>(cluster)].end());
  return nodes;
}

}  // namespace shardwright::ir
