// Builds the problem: domains, costs and conversion tables.
#include "shard/formulate.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "base/check.h"

namespace shardwright::shard {
namespace {

// A state in which a tensor can be stored.
bool is_stored_split(const State& state) {
  return state.is_split() && (state.variant == Variant::kSame || state.variant == Variant::kEven);
}

// Index of the input, a buffer or a trained parameter, that a mutation writes.
size_t written_input(const ir::Graph& graph, const ir::Output& output) {
  for (size_t i = 0; i < graph.inputs.size(); ++i)
    if (graph.inputs[i].role != ir::InputRole::kUserInput && graph.inputs[i].name == output.name)
      return i;
  CHECK(false, "output " + output.name + " writes no input of graph " + graph.name);
  return 0;
}

bool is_written(const ir::Graph& graph, const ir::Input& input) {
  return std::any_of(graph.outputs.begin(), graph.outputs.end(), [&](const ir::Output& output) {
    return output.role == ir::OutputRole::kBufferMutation && output.name == input.name;
  });
}

}  // namespace

Formulation::Formulation(const ir::Module& module, const SolveOptions& options)
    : module_(module), options_(options), kinds_(options) {
  std::vector<std::vector<const ops::Rule*>> rules;
  for (const ir::Graph& graph : module.graphs) {
    facts.push_back(facts_of(graph, &rules_));
    std::vector<const ops::Rule*>& of_graph = rules.emplace_back();
    for (const auto& rule : facts.back().rules) of_graph.push_back(rule.get());
  }
  colours = colour(module, rules, options.n_chips);
  graphs.resize(module.graphs.size());
  for (size_t g = 0; g < graphs.size(); ++g) {
    facts[g].colours = &colours[g];
    kinds_.number_values(&facts[g]);
    add_nodes(g);
    find_stored_split(g);
  }
  add_inputs();
  for (size_t g = 0; g < graphs.size(); ++g) add_edges(g);
}

int Formulation::add_variable(size_t graph, std::string name, std::vector<Cost> costs,
                              std::vector<State> of_states) {
  CHECK(!costs.empty(), name + " has no strategy");
  problem.variables.push_back({std::move(name), std::move(costs)});
  states.push_back(std::move(of_states));
  graph_of_variable.push_back(static_cast<int>(graph));
  return static_cast<int>(problem.variables.size()) - 1;
}

void Formulation::add_nodes(size_t g) {
  const ir::Graph& graph = module_.graphs[g];
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const int kind = kinds_.kind_of(facts[g], static_cast<int>(g), static_cast<ir::NodeId>(i));
    graphs[g].kinds.push_back(kind);
    const std::string& name = graph.values[static_cast<size_t>(graph.nodes[i].outputs[0])].name;
    graphs[g].nodes.push_back(add_variable(g, name, kinds_[kind].costs));
  }
}

// One variable a stored tensor, whichever graphs use it.
void Formulation::add_inputs() {
  using Key = std::tuple<int, int64_t, Strides, Shape>;
  std::map<Key, size_t> seen;
  std::vector<std::vector<std::pair<size_t, size_t>>> uses;  // (graph, input)
  for (size_t g = 0; g < graphs.size(); ++g) {
    const ir::Graph& graph = module_.graphs[g];
    for (size_t i = 0; i < graph.inputs.size(); ++i) {
      const ir::Input& input = graph.inputs[i];
      size_t use = uses.size();
      if (input.role != ir::InputRole::kUserInput && input.ref.tensor >= 0)
        use = seen.try_emplace(Key(input.ref.tensor, input.ref.offset, input.ref.strides,
                                   graph.type(input.value).shape),
                               use)
                  .first->second;
      if (use == uses.size()) uses.emplace_back();
      uses[use].push_back({g, i});
    }
    graphs[g].inputs.assign(graph.inputs.size(), -1);
  }
  for (const auto& use : uses) {
    States domain = input_states(use);
    std::vector<Cost> costs(domain.size(), 0);
    if (domain.size() > 1)
      for (size_t i = 0; i < domain.size(); ++i) costs[i] = domain[i] == kWhole ? kWholeTie : 0;
    const auto [g, i] = use[0];
    const int variable =
        add_variable(g, module_.graphs[g].inputs[i].name, std::move(costs), std::move(domain));
    for (const auto& [graph, input] : use) graphs[graph].inputs[input] = variable;
  }
}

States Formulation::input_states(const std::vector<std::pair<size_t, size_t>>& uses) {
  std::set<State> domain{kWhole};
  for (const auto& [g, i] : uses) {
    const ir::Graph& graph = module_.graphs[g];
    const ir::Input& input = graph.inputs[i];
    if (input.role == ir::InputRole::kUserInput) {
      if (options_.mode != Mode::kBatch) return {kWhole};
      for (int d = 0; d < graph.type(input.value).ndim(); ++d) {
        const Colours::Colour* c = colours[g].find(input.value, d);
        if (c != nullptr && c->batch) return {split(d)};
      }
      return {kWhole};
    }
    const bool may_be_split = input.role == ir::InputRole::kParameter
                                  ? options_.mode != Mode::kBatch
                                  : is_written(graph, input);
    if (!may_be_split) continue;
    for (const Reader& reader : readers_of(g, input.value))
      for (const int id : reader.operands)
        for (const State& state : kinds_.states()[id])
          if (is_stored_split(state)) domain.insert(state);
  }
  bool split_only = false;
  for (const auto& [g, i] : uses) split_only = split_only || stored_split_[g][i];
  if (split_only && domain.size() > 1) domain.erase(kWhole);
  return {domain.begin(), domain.end()};
}

// Weight mode: the weight of a gemm is stored split. Whole to split is free, so cost alone would
// keep a weight whole on every chip.
void Formulation::find_stored_split(size_t g) {
  const ir::Graph& graph = module_.graphs[g];
  std::vector<bool>& found = stored_split_.emplace_back(graph.inputs.size(), false);
  if (options_.mode != Mode::kWeight) return;
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    const ir::Node& node = graph.nodes[n];
    if (!is_gemm(node, *facts[g].rules[n])) continue;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const int origin = node.inputs[i] == ir::kNoValue
                             ? -1
                             : facts[g].origin[static_cast<size_t>(node.inputs[i])];
      if (origin < 0) continue;
      const States& wanted = kinds_.states()[kind(g, n).operand_states[i]];
      if (std::all_of(wanted.begin(), wanted.end(), [](const State& s) { return s.is_split(); }))
        found[static_cast<size_t>(origin)] = true;
    }
  }
}

std::vector<Formulation::Reader> Formulation::readers_of(size_t g, ir::ValueId value) const {
  std::vector<Reader> readers;
  for (const ir::NodeId node : facts[g].consumers[static_cast<size_t>(value)]) {
    Reader& reader = readers.emplace_back();
    reader.variable = graphs[g].nodes[static_cast<size_t>(node)];
    const ir::Node& n = module_.graphs[g].nodes[static_cast<size_t>(node)];
    for (size_t i = 0; i < n.inputs.size(); ++i) {
      if (n.inputs[i] != value) continue;
      reader.operands.push_back(kind(g, static_cast<size_t>(node)).operand_states[i]);
      reader.in_panels |= n.op->panel_operand == static_cast<int>(i) &&
                          facts[g].producers[static_cast<size_t>(value)] < 0;
    }
  }
  return readers;
}

void Formulation::add_edges(size_t g) {
  const ir::Graph& graph = module_.graphs[g];
  std::vector<Source> sources(graph.values.size());
  for (size_t i = 0; i < graph.inputs.size(); ++i) {
    const int variable = graphs[g].inputs[i];
    sources[static_cast<size_t>(graph.inputs[i].value)] = {
        variable, kinds_.states()(states[static_cast<size_t>(variable)])};
  }
  for (size_t n = 0; n < graph.nodes.size(); ++n)
    for (size_t i = 0; i < graph.nodes[n].outputs.size(); ++i)
      sources[static_cast<size_t>(graph.nodes[n].outputs[i])] = {graphs[g].nodes[n],
                                                                 kind(g, n).result_states[i]};

  for (size_t v = 0; v < graph.values.size(); ++v) {
    const auto value = static_cast<ir::ValueId>(v);
    Source source = sources[v];
    if (source.variable < 0) continue;
    const std::vector<Reader> readers = readers_of(g, value);
    if (facts[g].producers[v] >= 0 && facts[g].readers[v] > 1) {
      const States& made = kinds_.states()[source.states];
      std::set<State> domain(made.begin(), made.end());
      for (const Reader& reader : readers)
        for (const int id : reader.operands)
          domain.insert(kinds_.states()[id].begin(), kinds_.states()[id].end());
      States list(domain.begin(), domain.end());
      const int id = kinds_.states()(list);
      const size_t count = list.size();
      const int hub = add_variable(g, graph.values[v].name + " hub", std::vector<Cost>(count, 0),
                                   std::move(list));
      graphs[g].hubs[value] = hub;
      add_table(g, value, source, {hub, {id}});
      source = {hub, id};
    }
    for (const Reader& reader : readers) add_table(g, value, source, reader);
    charge_outputs(g, value, source);
  }
}

Cost Formulation::conversion_cost(size_t g, ir::ValueId value, const State& from,
                                  const State& to) const {
  if (converts_locally(from, to)) return 0;
  return kCollectiveTie + cost_of_seconds(conversion_seconds(module_.graphs[g], value, from, to,
                                                             colours[g], options_.machine));
}

void Formulation::add_table(size_t g, ir::ValueId value, Source from, const Reader& to) {
  std::vector<int> key{facts[g].value_kinds[static_cast<size_t>(value)], from.states};
  key.insert(key.end(), to.operands.begin(), to.operands.end());
  key.push_back(to.in_panels ? 1 : 0);
  const auto [it, added] = tables_.try_emplace(std::move(key));
  if (added) {
    // Times the weight's bytes. Kernels would pack as they go, in every graph that reads it.
    constexpr double kUnpackedReads = 64;
    const Cost unpacked = cost_of_seconds(
        kUnpackedReads * static_cast<double>(module_.graphs[g].type(value).bytes()) /
        options_.n_chips / options_.machine.bytes_per_s);
    const States& made = kinds_.states()[from.states];
    const size_t columns = kinds_.states()[to.operands[0]].size();
    std::vector<Cost> costs;
    costs.reserve(made.size() * columns);
    for (const State& state : made) {
      for (size_t j = 0; j < columns; ++j) {
        // An operator that reads a value twice in one state has it converted once.
        std::set<State> wanted;
        for (const int id : to.operands) wanted.insert(kinds_.states()[id][j]);
        Cost sum = 0;
        for (const State& w : wanted) {
          sum += conversion_cost(g, value, state, w);
          // A weight that is not read as it is stored, by any graph, is not packed for any.
          if (to.in_panels && state != w) sum += unpacked;
        }
        costs.push_back(sum);
      }
    }
    if (std::any_of(costs.begin(), costs.end(), [](Cost c) { return c != 0; }))
      it->second = std::make_shared<const std::vector<Cost>>(std::move(costs));
  }
  if (it->second == nullptr) return;
  problem.tables.push_back({from.variable, to.variable, it->second});
  graph_of_table.push_back(static_cast<int>(g));
}

State Formulation::output_state(size_t g, const ir::Output& output, const State& from) const {
  if (from == kWhole || (from.is_split() && from.variant != Variant::kSum)) return from;
  State best = kWhole;
  Cost least = conversion_cost(g, output.value, from, kWhole);
  for (int d = 0; d < module_.graphs[g].type(output.value).ndim(); ++d) {
    const Colours::Colour* c = colours[g].find(output.value, d);
    if (c == nullptr || options_.mode == Mode::kNone ||
        (options_.mode == Mode::kWeight && c->batch))
      continue;
    const Cost cost = conversion_cost(g, output.value, from, split(d));
    if (cost < least) {
      least = cost;
      best = split(d);
    }
  }
  return best;
}

// An output leaves in whichever state is cheapest; a written buffer goes back to the state that it
// is stored in.
void Formulation::charge_outputs(size_t g, ir::ValueId value, Source source) {
  const ir::Graph& graph = module_.graphs[g];
  for (const ir::Output& output : graph.outputs) {
    if (output.value != value) continue;
    if (output.role == ir::OutputRole::kBufferMutation) {
      const int input = graphs[g].inputs[written_input(graph, output)];
      const int id = kinds_.states()(states[static_cast<size_t>(input)]);
      if (input != source.variable) add_table(g, value, source, {input, {id}});
      continue;
    }
    const States& made = kinds_.states()[source.states];
    std::vector<Cost>& costs = problem.variables[static_cast<size_t>(source.variable)].costs;
    for (size_t i = 0; i < made.size(); ++i)
      costs[i] += conversion_cost(g, value, made[i], output_state(g, output, made[i]));
  }
}

}  // namespace shardwright::shard
