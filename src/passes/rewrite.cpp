// Rewriter and remove_unused.
#include "passes/rewrite.h"

#include <algorithm>

#include "base/check.h"

namespace shardwright::passes {

using ir::Graph;
using ir::kNoValue;
using ir::Node;
using ir::ValueId;

Rewriter::Rewriter(Graph& graph) : graph_(graph), n_values_(graph.values.size()) {
  replaced_.resize(n_values_);
  for (size_t i = 0; i < n_values_; ++i) replaced_[i] = static_cast<ValueId>(i);
}

ValueId Rewriter::current(ValueId id) const {
  // New values are never replaced.
  return id == kNoValue || static_cast<size_t>(id) >= n_values_
             ? id
             : replaced_[static_cast<size_t>(id)];
}

void Rewriter::replace(ValueId old, ValueId with) {
  CHECK(old != with && current(with) == with);
  ir::Value& before = graph_.values[static_cast<size_t>(old)];
  ir::Value& after = graph_.values[static_cast<size_t>(with)];
  CHECK(before.type == after.type, "%" + before.name + ": " + to_string(before.type) +
                                       " replaced by " + to_string(after.type));
  if (static_cast<size_t>(with) >= n_values_) std::swap(before.name, after.name);
  replaced_[static_cast<size_t>(old)] = with;
}

void Rewriter::run(const std::function<void(const Node&)>& visit) {
  std::vector<Node> nodes = std::move(graph_.nodes);
  graph_.nodes.clear();
  graph_.nodes.reserve(nodes.size());
  for (Node& node : nodes) {
    for (ValueId& id : node.inputs) id = current(id);
    visit(node);
    const bool is_replaced = std::all_of(node.outputs.begin(), node.outputs.end(),
                                         [&](ValueId id) { return current(id) != id; });
    if (!is_replaced) graph_.nodes.push_back(std::move(node));
  }
  for (ir::Output& output : graph_.outputs) output.value = current(output.value);
  remove_unused(graph_);
}

const Node* Rewriter::producer(ValueId id) {
  producers_.resize(graph_.values.size(), -1);
  for (; n_seen_ < graph_.nodes.size(); ++n_seen_)
    for (const ValueId output : graph_.nodes[n_seen_].outputs)
      producers_[static_cast<size_t>(output)] = static_cast<ir::NodeId>(n_seen_);
  const ir::NodeId node = id == kNoValue ? -1 : producers_[static_cast<size_t>(id)];
  return node < 0 ? nullptr : &graph_.nodes[static_cast<size_t>(node)];
}

void Rewriter::join_group(ValueId id, int group) {
  if (producer(id) == nullptr) return;
  Node& node = graph_.nodes[static_cast<size_t>(producers_[static_cast<size_t>(id)])];
  node.group = joint_group({node.group, group});
}

const Node* Rewriter::producer(ValueId id, std::string_view op) {
  const Node* node = producer(id);
  return node != nullptr && is_op(*node, op) ? node : nullptr;
}

void remove_unused(Graph& graph) {
  std::vector<bool> used(graph.values.size(), false);
  const auto use = [&](ValueId id) {
    if (id != kNoValue) used[static_cast<size_t>(id)] = true;
  };
  for (const ir::Output& output : graph.outputs) use(output.value);
  std::vector<Node> kept;
  for (size_t i = graph.nodes.size(); i-- > 0;) {
    Node& node = graph.nodes[i];
    if (std::none_of(node.outputs.begin(), node.outputs.end(),
                     [&](ValueId id) { return used[static_cast<size_t>(id)]; }))
      continue;
    for (const ValueId id : node.inputs) use(id);
    for (const ValueId id : node.outputs) use(id);  // all results of a node stay
    kept.push_back(std::move(node));
  }
  std::reverse(kept.begin(), kept.end());
  graph.nodes = std::move(kept);
  for (const ir::Input& input : graph.inputs)
    if (input.role == ir::InputRole::kUserInput) use(input.value);
  std::erase_if(graph.inputs,
                [&](const ir::Input& input) { return !used[static_cast<size_t>(input.value)]; });

  std::vector<ValueId> renumbered(graph.values.size(), kNoValue);
  std::vector<ir::Value> values;
  for (size_t i = 0; i < used.size(); ++i) {
    if (!used[i]) continue;
    renumbered[i] = static_cast<ValueId>(values.size());
    values.push_back(std::move(graph.values[i]));
  }
  graph.values = std::move(values);
  const auto renumber = [&](ValueId& id) {
    if (id != kNoValue) id = renumbered[static_cast<size_t>(id)];
  };
  for (ir::Input& input : graph.inputs) renumber(input.value);
  for (ir::Output& output : graph.outputs) renumber(output.value);
  for (Node& node : graph.nodes) {
    for (ValueId& id : node.inputs) renumber(id);
    for (ValueId& id : node.outputs) renumber(id);
  }
}

int joint_group(const std::vector<int>& groups) {
  int joint = -1;
  for (const int group : groups) {
    if (group < 0 || group == joint) continue;
    if (joint >= 0) return -1;
    joint = group;
  }
  return joint;
}

const ir::Input* find_input(const Graph& graph, ValueId id) {
  for (const ir::Input& input : graph.inputs)
    if (input.value == id) return &input;
  return nullptr;
}

bool is_op(const Node& node, std::string_view name) { return node.op->name == name; }

bool has_loss(const ir::Graph& graph) {
  return std::any_of(graph.outputs.begin(), graph.outputs.end(),
                     [](const ir::Output& output) { return output.role == ir::OutputRole::kLoss; });
}

}  // namespace shardwright::passes
