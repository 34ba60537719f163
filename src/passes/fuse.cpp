// fuse.
#include "passes/fuse.h"

#include <algorithm>
#include <map>
#include <string_view>

#include "ir/clusters.h"
#include "ops/fused.h"
#include "ops/fused_stage.h"
#include "ops/table.h"
#include "passes/rewrite.h"

namespace shardwright::passes {
namespace {

using ir::Graph;
using ir::kNoValue;
using ir::Node;
using ir::NodeId;
using ir::ValueId;

// Tensors without dimensions are one row of one element.
int64_t row_size(const TensorType& type) { return type.shape.empty() ? 1 : type.shape.back(); }
int64_t row_count(const TensorType& type) {
  int64_t rows = 1;
  for (int d = 0; d + 1 < type.ndim(); ++d) rows *= type.shape[static_cast<size_t>(d)];
  return rows;
}

// The factors of all dimensions but the last, major first.
std::vector<int> row_factors(const ops::Words& words, const ops::Rule& rule) {
  std::vector<int> found;
  for (size_t d = 0; d + 1 < words.size(); ++d)
    for (const int factor : words[d].factors)
      if (rule.factors[static_cast<size_t>(factor)].size > 1) found.push_back(factor);
  return found;
}

// A view each of whose rows is made of one row of its operand, in the same order.
bool keeps_rows(const Graph& graph, const Node& node) {
  if (node.op->view == nullptr || node.inputs.empty() || node.inputs[0] == kNoValue) return false;
  const ops::Rule rule = ops::rule_of(*node.op, node.attrs, graph.operand_types(node));
  return row_factors(rule.operands[0], rule) == row_factors(rule.results[0], rule);
}

class Fuser {
 public:
  explicit Fuser(Graph& graph)
      : graph_(graph),
        producers_(graph.producers()),
        clusters_(graph),
        group_of_(graph.nodes.size(), -1) {}

  void run() {
    for (size_t n = 0; n < graph_.nodes.size(); ++n) {
      const auto node = static_cast<NodeId>(n);
      if (is_gemm(graph_.nodes[n]))
        add_gemm(node);
      else if (works_by_rows(graph_.nodes[n]))
        add_row_op(node);
      else if (graph_.nodes[n].op == &ops::attention)
        unite_before_attention(graph_.nodes[n]);
    }
    mark();
  }

 private:
  struct Group {
    bool gemm = false;
    int64_t rows = 0;  // of its row operators; those behind a gemm have the gemm's
    std::vector<NodeId> members;
  };

  // Reads a stored weight that its kernel wants in panels.
  bool is_gemm(const Node& node) const {
    const int weight = node.op->panel_operand;
    return weight >= 0 && find_input(graph_, node.inputs[static_cast<size_t>(weight)]) != nullptr;
  }
  bool works_by_rows(const Node& node) const {
    if (is_cache_write(node)) return true;
    return ops::works_by_rows(*node.op, node.attrs, graph_.type(node.outputs[0]));
  }

  static bool is_cache_write(const Node& node) { return node.op == &ops::cache_write; }
  // The type whose rows it walks.
  const TensorType& walked_by(const Node& node) const {
    return graph_.type(is_cache_write(node) ? node.inputs[ops::kWritten] : node.outputs[0]);
  }

  const Node& at(NodeId node) const { return graph_.nodes[static_cast<size_t>(node)]; }
  Group& group(int index) { return groups_[static_cast<size_t>(index)]; }

  bool join(int index, NodeId node) {
    Group& to = group(index);
    if (!clusters_.join(to.members.front(), node)) return false;
    to.members.push_back(node);
    group_of_[static_cast<size_t>(node)] = index;
    return true;
  }

  void start(NodeId node, bool gemm) {
    group_of_[static_cast<size_t>(node)] = static_cast<int>(groups_.size());
    groups_.push_back({gemm, row_count(walked_by(at(node))), {node}});
  }

  void add_gemm(NodeId node) {
    const ValueId x = at(node).inputs[0];
    const auto [entry, is_new] = gemms_.emplace(x, static_cast<int>(groups_.size()));
    if (is_new || !join(entry->second, node)) {
      entry->second = static_cast<int>(groups_.size());
      start(node, true);
    }
  }

  // A group that makes operands of a node, and the views through which the node sees them.
  struct Before {
    NodeId maker = -1;  // the last
    int group = -1;
    std::vector<NodeId> views;
  };

  // Of a row operator, the group that makes an operand last first. Views are looked through where
  // they leave rows as they are.
  std::vector<Before> groups_before(const Node& node) const {
    const TensorType& type = walked_by(node);
    std::vector<ValueId> inputs = node.inputs;
    if (is_cache_write(node)) inputs = {node.inputs[ops::kWritten]};
    std::vector<Before> found;
    for (const ValueId id : inputs) {
      if (id == kNoValue || row_count(graph_.type(id)) != row_count(type)) continue;
      Before before{.maker = producers_[static_cast<size_t>(id)], .group = -1, .views = {}};
      while (before.maker >= 0 && keeps_rows(graph_, at(before.maker))) {
        before.views.push_back(before.maker);
        before.maker = producers_[static_cast<size_t>(at(before.maker).inputs[0])];
      }
      if (before.maker < 0 || is_cache_write(at(before.maker))) continue;
      before.group = group_of_[static_cast<size_t>(before.maker)];
      if (before.group < 0) continue;
      const Group& g = groups_[static_cast<size_t>(before.group)];
      // Behind a gemm come whole rows of its result.
      if (g.rows != row_count(type) ||
          (g.gemm &&
           row_size(graph_.type(id)) != row_size(graph_.type(at(before.maker).outputs[0]))))
        continue;
      const auto known = std::find_if(found.begin(), found.end(), [&](const Before& other) {
        return other.group == before.group;
      });
      if (known == found.end()) {
        found.push_back(std::move(before));
        continue;
      }
      known->maker = std::max(known->maker, before.maker);
      known->views.insert(known->views.end(), before.views.begin(), before.views.end());
    }
    std::sort(found.begin(), found.end(),
              [](const Before& a, const Before& b) { return a.maker > b.maker; });
    return found;
  }

  void add_row_op(NodeId node) {
    int joined = -1;
    for (Before& before : groups_before(at(node))) {
      // From the group to the node: a view stands after what it sees.
      std::sort(before.views.begin(), before.views.end());
      for (const NodeId view : before.views)
        clusters_.join(group(before.group).members.front(), view);
      if (joined < 0) {
        if (join(before.group, node)) joined = before.group;
      } else if (!group(joined).gemm && !group(before.group).gemm) {
        unite(joined, before.group);
      }
    }
    if (joined < 0) start(node, false);
  }

  // What makes the query (its rope) and writes new rows into the caches goes side by side: one step
  // and one barrier before attention.
  void unite_before_attention(const Node& node) {
    std::vector<int> found;
    bool writes = false;
    for (size_t i = 0; i < 3; ++i) {  // query, key, value
      const NodeId maker = producers_[static_cast<size_t>(node.inputs[i])];
      const int index = maker < 0 ? -1 : group_of_[static_cast<size_t>(maker)];
      if (index < 0 || group(index).gemm) continue;
      writes = writes || is_cache_write(at(maker));
      if (std::find(found.begin(), found.end(), index) == found.end()) found.push_back(index);
    }
    for (size_t i = 1; writes && i < found.size(); ++i) unite(found[0], found[i]);
  }

  // All of `from` goes into `to`, if that leaves both closed.
  void unite(int to, int from) {
    if (!clusters_.join(group(to).members.front(), group(from).members.front())) return;
    for (const NodeId member : group(from).members) {
      group_of_[static_cast<size_t>(member)] = to;
      group(to).members.push_back(member);
    }
    group(from).members.clear();
  }

  // "linear*2 silu mul": the operators of a group, in order.
  std::string name_of(const Group& g) const {
    std::vector<std::pair<std::string, int>> names;
    for (const NodeId member : g.members) {
      const std::string name = at(member).op->name;
      const auto known = std::find_if(names.begin(), names.end(),
                                      [&](const auto& entry) { return entry.first == name; });
      if (known == names.end())
        names.emplace_back(name, 1);
      else
        ++known->second;
    }
    std::string text;
    for (const auto& [name, count] : names)
      text += (text.empty() ? "" : " ") + name + (count > 1 ? "*" + std::to_string(count) : "");
    return text;
  }

  void mark() {
    for (Group& g : groups_) {
      if (g.members.size() < 2) continue;
      std::sort(g.members.begin(), g.members.end());
      for (const NodeId member : g.members)
        graph_.nodes[static_cast<size_t>(member)].group = static_cast<int>(graph_.groups.size());
      graph_.groups.push_back({.name = name_of(g), .origin = "-o3", .split = ""});
    }
  }

  Graph& graph_;
  const std::vector<NodeId> producers_;
  ir::Clusters clusters_;
  std::vector<int> group_of_;  // of each node
  std::vector<Group> groups_;
  std::map<ValueId, int> gemms_;  // x -> the group of the linears that read it
};

}  // namespace

void fuse(ir::Module&, ir::Graph& graph) { Fuser(graph).run(); }

}  // namespace shardwright::passes
