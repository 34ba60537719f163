// What passes share: walking a graph while replacing nodes, and removing what is no longer used.
#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "ir/graph.h"

namespace shardwright::passes {

// Goes through the nodes in order and writes the graph anew. For each node `visit` sees its inputs
// already replaced; it may append nodes (ir::append, build) and replace the node's results.
class Rewriter {
 public:
  explicit Rewriter(ir::Graph& graph);

  // A node whose results `visit` has all replaced is left out; any other stays where it is, after
  // what `visit` appended. Ends with remove_unused.
  void run(const std::function<void(const ir::Node&)>& visit);

  // Reads of `old` read `with` from now on, and `with` takes over the name of `old` if it is new.
  void replace(ir::ValueId old, ir::ValueId with);
  // The node written so far that makes `id` stands for one of this group too.
  void join_group(ir::ValueId id, int group);
  // What `id` is now.
  ir::ValueId current(ir::ValueId id) const;
  // The node written so far that makes `id`, or null for an input. Valid until a node is appended.
  const ir::Node* producer(ir::ValueId id);
  // The same if its operator has that name, else null.
  const ir::Node* producer(ir::ValueId id, std::string_view op);

 private:
  ir::Graph& graph_;
  size_t n_values_;  // before
  std::vector<ir::ValueId> replaced_;
  std::vector<ir::NodeId> producers_;  // of the nodes seen so far
  size_t n_seen_ = 0;
};

// Drops nodes without effect, parameters, buffers and constants that nobody reads, and values that
// nobody makes. User inputs stay: a run gives them.
void remove_unused(ir::Graph& graph);

// Of the groups of nodes that become one node: the one that there is. -1 if there is none, or if
// they differ: a node in two fused steps is in neither.
int joint_group(const std::vector<int>& groups);

// The graph input that is `id`, or null.
const ir::Input* find_input(const ir::Graph& graph, ir::ValueId id);
bool is_op(const ir::Node& node, std::string_view name);
// Whether it is to be differentiated: passes/gradient.h has not run yet.
bool has_loss(const ir::Graph& graph);

}  // namespace shardwright::passes
