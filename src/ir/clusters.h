// Sets of nodes that can run together, one set after another.
#pragma once

#include <vector>

#include "ir/graph.h"

namespace shardwright::ir {

// At first every node is a cluster of its own. Clusters join as long as no path leaves one and
// comes back to it; so there is always an order of whole clusters in which the graph can run.
class Clusters {
 public:
  explicit Clusters(const Graph& graph);

  // The clusters of the two nodes become one. False, and nothing changes, where a third cluster
  // needs one of them and is needed by the other.
  bool join(NodeId a, NodeId b);
  bool together(NodeId a, NodeId b) const { return cluster(a) == cluster(b); }
  // All nodes, cluster after cluster; where nothing asks for another order, the graph's.
  std::vector<NodeId> order() const;

 private:
  static constexpr int kGone = -1;

  int cluster(NodeId node) const { return cluster_[static_cast<size_t>(node)]; }
  bool reads_from(int cluster, const std::vector<bool>& clusters) const;

  std::vector<std::vector<NodeId>> operands_;  // of each node: the nodes that make its operands
  std::vector<int> cluster_;                   // of each node
  std::vector<std::vector<NodeId>> members_;   // of each cluster, ascending
  std::vector<int> order_;                     // clusters in an order in which they can run; kGone
  std::vector<size_t> position_;               // of each cluster in order_
};

}  // namespace shardwright::ir
