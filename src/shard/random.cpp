// Random valid plans: whatever the strategies, the answer must be that of the whole run.
#include <random>

#include "shard/solve.h"

namespace shardwright::shard {
namespace {

template <typename T>
const T& pick(const std::vector<T>& from, std::mt19937_64& random) {
  return from[random() % from.size()];
}

// Whole, or split along any dimension that has a colour.
std::vector<State> stored_states(const ir::Graph& graph, ir::ValueId value,
                                 const Colours& colours) {
  std::vector<State> states{kWhole};
  for (int d = 0; d < graph.type(value).ndim(); ++d)
    if (colours.at(value, d) >= 0) states.push_back(split(d));
  return states;
}

// A split whose pieces don't overlap is neither sum nor own.
bool is_normal(const ir::Graph& graph, ir::ValueId value, const State& state,
               const Colours& colours) {
  return !state.is_split() || state.variant == Variant::kSame || state.variant == Variant::kEven ||
         overlaps(state_cuts(graph, value, split(state.dim), colours));
}

}  // namespace

Solution random_solution(const ir::Graph& graph, int n_chips, uint64_t seed) {
  std::mt19937_64 random(seed);
  Solution s;
  s.options = {.mode = Mode::kAuto, .n_chips = n_chips};
  std::vector<ops::Rule> rules;
  for (const ir::Node& node : graph.nodes)
    rules.push_back(ops::rule_of(*node.op, node.attrs, graph.operand_types(node)));
  s.colours = colour(graph, rules, n_chips);
  const std::string who = "random, seed " + std::to_string(seed);
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    s.rules.push_back(std::make_shared<const ops::Rule>(std::move(rules[n])));
    s.strategies.push_back(
        pick(strategies_of(graph, graph.nodes[n], *s.rules[n], s.colours), random));
    s.reasons.push_back({who, s.strategies.back().name});
  }
  for (const ir::Input& input : graph.inputs)
    s.inputs.push_back(pick(stored_states(graph, input.value, s.colours), random));

  const std::vector<std::vector<ir::NodeId>> consumers = graph.consumers();
  for (const ir::Node& node : graph.nodes) {
    for (const ir::ValueId value : node.outputs) {
      if (consumers[static_cast<size_t>(value)].size() < 2) continue;
      std::vector<State> states = stored_states(graph, value, s.colours);
      for (const ir::NodeId reader : consumers[static_cast<size_t>(value)]) {
        const ir::Node& r = graph.nodes[static_cast<size_t>(reader)];
        for (size_t i = 0; i < r.inputs.size(); ++i)
          if (r.inputs[i] == value)
            states.push_back(s.strategies[static_cast<size_t>(reader)].operands[i]);
      }
      State state = pick(states, random);
      if (!is_normal(graph, value, state, s.colours)) state.variant = Variant::kSame;
      s.hubs[value] = state;
    }
  }
  for (const ir::Output& output : graph.outputs) {
    State state = pick(stored_states(graph, output.value, s.colours), random);
    if (output.role == ir::OutputRole::kBufferMutation)
      for (size_t i = 0; i < graph.inputs.size(); ++i)
        if (graph.inputs[i].name == output.name) state = s.inputs[i];
    s.outputs.push_back(state);
  }
  return s;
}

}  // namespace shardwright::shard
