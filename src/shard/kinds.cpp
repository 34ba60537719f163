// Kinds of nodes: what does not change from layer to layer is worked out once.
#include "shard/kinds.h"

#include <algorithm>

namespace shardwright::shard {
namespace {

void mix(size_t* hash, uint64_t value) {
  *hash = (*hash ^ value) * 0x9e3779b97f4a7c15ULL;
  *hash ^= *hash >> 29;
}

size_t hash_of(const ir::Graph& graph, const ir::Node& node) {
  auto hash = reinterpret_cast<size_t>(node.op);
  for (const ir::ValueId id : node.inputs) {
    mix(&hash, id == ir::kNoValue ? 1 : 2);
    if (id == ir::kNoValue) continue;
    mix(&hash, static_cast<uint64_t>(graph.type(id).dtype));
    for (const int64_t size : graph.type(id).shape) mix(&hash, static_cast<uint64_t>(size));
  }
  return hash;
}

bool same_call(const ir::Graph& graph_a, const ir::Node& a, const ir::Graph& graph_b,
               const ir::Node& b) {
  if (a.op != b.op || a.inputs.size() != b.inputs.size() || a.attrs != b.attrs) return false;
  for (size_t i = 0; i < a.inputs.size(); ++i) {
    if ((a.inputs[i] == ir::kNoValue) != (b.inputs[i] == ir::kNoValue)) return false;
    if (a.inputs[i] != ir::kNoValue && graph_a.type(a.inputs[i]) != graph_b.type(b.inputs[i]))
      return false;
  }
  return true;
}

}  // namespace

std::shared_ptr<const ops::Rule> RuleCache::rule_of(const ir::Graph& graph, const ir::Node& node) {
  std::vector<Entry>& entries = entries_[hash_of(graph, node)];
  for (const Entry& entry : entries)
    if (same_call(*entry.graph, *entry.node, graph, node)) return entry.rule;
  auto rule = std::make_shared<const ops::Rule>(
      ops::rule_of(*node.op, node.attrs, graph.operand_types(node)));
  entries.push_back({&graph, &node, rule});
  return rule;
}

GraphFacts facts_of(const ir::Graph& graph, RuleCache* rules) {
  GraphFacts facts{.graph = &graph};
  facts.rules.reserve(graph.nodes.size());
  for (const ir::Node& node : graph.nodes) facts.rules.push_back(rules->rule_of(graph, node));
  facts.producers = graph.producers();
  facts.consumers = graph.consumers();
  for (const std::vector<ir::NodeId>& nodes : facts.consumers)
    facts.readers.push_back(static_cast<int>(nodes.size()));
  for (const ir::Output& output : graph.outputs) ++facts.readers[static_cast<size_t>(output.value)];
  facts.origin.assign(graph.values.size(), -1);
  for (size_t i = 0; i < graph.inputs.size(); ++i)
    if (graph.inputs[i].role == ir::InputRole::kParameter)
      facts.origin[static_cast<size_t>(graph.inputs[i].value)] = static_cast<int>(i);
  for (const ir::Node& node : graph.nodes) {
    if (node.inputs.empty() || node.inputs[0] == ir::kNoValue ||
        std::count(node.inputs.begin(), node.inputs.end(), ir::kNoValue) + 1 !=
            static_cast<std::ptrdiff_t>(node.inputs.size()))
      continue;
    for (const ir::ValueId result : node.outputs)
      facts.origin[static_cast<size_t>(result)] = facts.origin[static_cast<size_t>(node.inputs[0])];
  }
  return facts;
}

int Kinds::colour_class(const Colours& colours, int colour) {
  if (colour < 0) return -1;
  if (class_of_colour_.empty()) class_of_colour_.assign(colours.colours.size(), -1);
  const auto at = static_cast<size_t>(colour);
  if (class_of_colour_[at] < 0) {
    const Colours::Colour& c = colours.colours[at];
    const int follows = colour_class(colours, c.follows);
    class_of_colour_[at] = classes_({c.grains, follows, c.follows_size, c.share, c.dirty, c.batch});
  }
  return class_of_colour_[at];
}

void Kinds::number_values(GraphFacts* facts) {
  std::vector<int64_t> key;
  for (size_t v = 0; v < facts->graph->values.size(); ++v) {
    const TensorType& type = facts->graph->values[v].type;
    key.assign(1, static_cast<int64_t>(type.dtype));
    for (int d = 0; d < type.ndim(); ++d) {
      key.push_back(type.shape[static_cast<size_t>(d)]);
      key.push_back(
          colour_class(*facts->colours, facts->colours->at(static_cast<ir::ValueId>(v), d)));
    }
    facts->value_kinds.push_back(value_kinds_(key));
  }
}

NodeContext Kinds::context_of(const GraphFacts& facts, ir::NodeId id) const {
  const ir::Node& node = facts.graph->nodes[static_cast<size_t>(id)];
  // An operator jointly linear in several operands adds them.
  const bool adds =
      node.op->elementwise && std::any_of(node.op->linear.begin(), node.op->linear.end(),
                                          [](std::string_view g) { return g.find(' ') != g.npos; });
  if (!adds) return {};
  for (const ir::ValueId operand : node.inputs) {
    if (operand == ir::kNoValue || facts.readers[static_cast<size_t>(operand)] != 1) continue;
    const ir::NodeId producer = facts.producers[static_cast<size_t>(operand)];
    if (producer >= 0 && is_gemm(facts.graph->nodes[static_cast<size_t>(producer)],
                                 *facts.rules[static_cast<size_t>(producer)]))
      return {.adds_gemm_result = true};
  }
  return {};
}

int Kinds::kind_of(const GraphFacts& facts, int graph, ir::NodeId id) {
  const ir::Node& node = facts.graph->nodes[static_cast<size_t>(id)];
  const auto fixed = options_.fixed.find({graph, id});
  const SolveOptions::WhatIf* what_if =
      options_.what_if && options_.what_if->graph == graph && options_.what_if->node == id
          ? &*options_.what_if
          : nullptr;
  const NodeContext context = context_of(facts, id);
  std::vector<int64_t> key{
      reinterpret_cast<int64_t>(facts.rules[static_cast<size_t>(id)].get()),
      fixed == options_.fixed.end() ? -1 : fixed_({fixed->second.factor, fixed->second.reason}),
      what_if != nullptr, context.adds_gemm_result};
  for (const ir::ValueId value : node.inputs) {
    if (value == ir::kNoValue) {
      key.push_back(-1);
      continue;
    }
    const auto v = static_cast<size_t>(value);
    const int is_weight = facts.origin[v] >= 0 ? 1 : 0;
    const int is_input = facts.producers[v] < 0 ? 2 : 0;
    key.push_back(facts.value_kinds[v] * 4 + is_weight + is_input);
  }
  for (const ir::ValueId value : node.outputs)
    key.push_back(facts.value_kinds[static_cast<size_t>(value)]);
  const auto [it, added] = ids_.try_emplace(std::move(key), static_cast<int>(kinds_.size()));
  if (added)
    kinds_.push_back(std::make_unique<NodeKind>(make(
        facts, id, fixed == options_.fixed.end() ? nullptr : &fixed->second, what_if, context)));
  return it->second;
}

namespace {

// Useless to a solver: a split that leaves one chip all the work, and partial operands that are
// whole inputs of the graph (any result can become partial for nothing).
bool is_useful(const GraphFacts& facts, const ir::Node& node, const ops::Rule& rule,
               const Strategy& strategy) {
  if (strategy.factor >= 0) {
    const std::optional<Cuts> cuts =
        factor_cuts(*facts.graph, node, rule, strategy.factor, *facts.colours);
    return cuts && count_pieces(*cuts) > 1;
  }
  bool has_partial = false;
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    if (!strategy.operands[i].is_partial()) continue;
    has_partial = true;
    if (facts.producers[static_cast<size_t>(node.inputs[i])] >= 0) return true;
  }
  return !has_partial;
}

}  // namespace

NodeKind Kinds::make(const GraphFacts& facts, ir::NodeId id, const SolveOptions::Fixed* fixed,
                     const SolveOptions::WhatIf* what_if, const NodeContext& context) {
  const ir::Graph& graph = *facts.graph;
  const ir::Node& node = graph.nodes[static_cast<size_t>(id)];
  const ops::Rule& rule = *facts.rules[static_cast<size_t>(id)];
  std::vector<Strategy> all = strategies_of(graph, node, rule, *facts.colours);
  std::erase_if(all, [&](const Strategy& s) { return !is_useful(facts, node, rule, s); });
  std::vector<bool> is_weight;
  for (const ir::ValueId value : node.inputs)
    is_weight.push_back(value != ir::kNoValue && facts.origin[static_cast<size_t>(value)] >= 0);

  Allowed allowed = allowed_strategies(
      {graph, node, rule, *facts.colours, all, is_weight, fixed, what_if}, options_);
  NodeKind kind{.reason = std::move(allowed.reason), .note = std::move(allowed.note)};
  for (const int i : allowed.strategies) {
    Strategy& strategy = all[static_cast<size_t>(i)];
    const Cost cost = cost_of_seconds(
        node_seconds(graph, node, rule, strategy, *facts.colours, options_.machine, context));
    // The same states for more: never chosen.
    const auto same = [&](const Strategy& other) {
      return other.operands == strategy.operands && other.results == strategy.results;
    };
    const auto it = std::find_if(kind.strategies.begin(), kind.strategies.end(), same);
    if (it == kind.strategies.end()) {
      kind.strategies.push_back(std::move(strategy));
      kind.costs.push_back(cost);
    } else if (cost < kind.costs[static_cast<size_t>(it - kind.strategies.begin())]) {
      kind.costs[static_cast<size_t>(it - kind.strategies.begin())] = cost;
      *it = std::move(strategy);
    }
  }
  const auto intern = [&](size_t count, std::vector<State> Strategy::*states) {
    std::vector<int> ids;
    for (size_t i = 0; i < count; ++i) {
      States list;
      for (const Strategy& s : kind.strategies) list.push_back((s.*states)[i]);
      ids.push_back(states_(list));
    }
    return ids;
  };
  kind.operand_states = intern(node.inputs.size(), &Strategy::operands);
  kind.result_states = intern(node.outputs.size(), &Strategy::results);
  return kind;
}

}  // namespace shardwright::shard
