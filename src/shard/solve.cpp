// solve(): formulate, minimise, read off.
#include "shard/solve.h"

#include <algorithm>

#include "base/check.h"
#include "base/error.h"
#include "shard/explain.h"
#include "shard/formulate.h"

namespace shardwright::shard {
namespace {

// Without chips to choose for, everything runs whole.
bool is_trivial(const SolveOptions& options) {
  return options.n_chips == 1 || options.mode == Mode::kNone;
}

SolveOptions checked(const ir::Module& module, const SolveOptions& options) {
  if (options.n_chips < 1)
    throw Error(ErrorCode::kUsage,
                "--n-chips " + std::to_string(options.n_chips) + ": a plan needs at least 1 chip");
  SolveOptions result = options;
  if (is_trivial(options)) {
    result.mode = Mode::kNone;
    result.fixed.clear();
  }
  if (result.mode == Mode::kBatch) {
    result.fixed.clear();  // F4: the caller says so
    for (const ir::Graph& graph : module.graphs) check_batch(graph, options.n_chips);
  }
  return result;
}

// The state of the variable's choice.
State state_of(const Formulation& f, int variable, const std::vector<int>& choice) {
  const auto v = static_cast<size_t>(variable);
  return f.states[v][static_cast<size_t>(choice[v])];
}

Solution read_off(const Formulation& f, size_t g, const std::vector<int>& choice) {
  const ir::Graph& graph = *f.facts[g].graph;
  Solution s;
  s.colours = f.colours[g];
  s.rules = f.facts[g].rules;
  s.kinds = f.graphs[g].kinds;
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    const auto variable = static_cast<size_t>(f.graphs[g].nodes[n]);
    s.strategies.push_back(f.kind(g, n).strategies[static_cast<size_t>(choice[variable])]);
  }
  std::vector<State> made(graph.values.size());
  for (size_t i = 0; i < graph.inputs.size(); ++i) {
    s.inputs.push_back(state_of(f, f.graphs[g].inputs[i], choice));
    made[static_cast<size_t>(graph.inputs[i].value)] = s.inputs.back();
  }
  for (size_t n = 0; n < graph.nodes.size(); ++n)
    for (size_t i = 0; i < graph.nodes[n].outputs.size(); ++i)
      made[static_cast<size_t>(graph.nodes[n].outputs[i])] = s.strategies[n].results[i];
  for (const auto& [value, variable] : f.graphs[g].hubs) {
    s.hubs[value] = state_of(f, variable, choice);
    made[static_cast<size_t>(value)] = s.hubs[value];
  }
  for (const ir::Output& output : graph.outputs) {
    State state = f.output_state(g, output, made[static_cast<size_t>(output.value)]);
    if (output.role == ir::OutputRole::kBufferMutation)
      for (size_t i = 0; i < graph.inputs.size(); ++i)
        if (graph.inputs[i].name == output.name &&
            graph.inputs[i].role != ir::InputRole::kUserInput)
          state = s.inputs[i];
    s.outputs.push_back(state);
  }
  return s;
}

double seconds_of_graph(const Formulation& f, size_t g, const std::vector<int>& choice) {
  Cost total = 0;
  const auto at = [&](int v) { return static_cast<size_t>(choice[static_cast<size_t>(v)]); };
  for (size_t v = 0; v < f.problem.variables.size(); ++v)
    if (f.graph_of_variable[v] == static_cast<int>(g))
      total += f.problem.variables[v].costs[at(static_cast<int>(v))];
  for (size_t t = 0; t < f.problem.tables.size(); ++t) {
    const Problem::Table& table = f.problem.tables[t];
    const size_t columns = f.problem.variables[static_cast<size_t>(table.b)].costs.size();
    if (f.graph_of_table[t] == static_cast<int>(g))
      total += (*table.costs)[at(table.a) * columns + at(table.b)];
  }
  return seconds_of(total);
}

double flops_of_graph(const Formulation& f, size_t g) {
  double flops = 0;
  for (size_t n = 0; n < f.facts[g].graph->nodes.size(); ++n) {
    const ir::Node& node = f.facts[g].graph->nodes[n];
    flops += ops::flops_of(*node.op, node.attrs, *f.facts[g].rules[n]);
  }
  return flops;
}

constexpr int kOpen = -1;

// Chooses for the variables of one graph and the stored tensors that it reads; what is chosen
// already stays, and its costs are those of its readers.
void minimise_graph(const Formulation& f, size_t g, std::vector<int>* choice) {
  Problem problem;
  std::vector<int> variables;                                 // of f, by their index in `problem`
  std::vector<int> index(f.problem.variables.size(), kOpen);  // and the other way
  const auto add = [&](int variable) {
    const auto v = static_cast<size_t>(variable);
    if ((*choice)[v] != kOpen || index[v] != kOpen) return;
    index[v] = static_cast<int>(variables.size());
    variables.push_back(variable);
    problem.variables.push_back(f.problem.variables[v]);
  };
  for (const int variable : f.graphs[g].inputs) add(variable);
  for (const int variable : f.graphs[g].nodes) add(variable);
  for (const auto& [value, variable] : f.graphs[g].hubs) add(variable);
  for (size_t t = 0; t < f.problem.tables.size(); ++t) {
    if (f.graph_of_table[t] != static_cast<int>(g)) continue;
    const Problem::Table& table = f.problem.tables[t];
    const int a = index[static_cast<size_t>(table.a)], b = index[static_cast<size_t>(table.b)];
    if (a != kOpen && b != kOpen) {
      problem.tables.push_back({a, b, table.costs});
      continue;
    }
    if (a == kOpen && b == kOpen) continue;
    const size_t columns = f.problem.variables[static_cast<size_t>(table.b)].costs.size();
    std::vector<Cost>& costs = problem.variables[static_cast<size_t>(a != kOpen ? a : b)].costs;
    const auto chosen =
        static_cast<size_t>((*choice)[static_cast<size_t>(a != kOpen ? table.b : table.a)]);
    for (size_t i = 0; i < costs.size(); ++i)
      costs[i] += (*table.costs)[a != kOpen ? i * columns + chosen : chosen * columns + i];
  }
  const std::vector<int> found = minimise(problem);
  for (size_t i = 0; i < found.size(); ++i) (*choice)[static_cast<size_t>(variables[i])] = found[i];
}

// One graph after the other, those of little work first: they run most often (decode), and where a
// stored tensor lies is decided by the first that reads it. Together they would be one problem
// whose width grows with their number (docs/decisions/0010).
std::vector<int> minimise_graphs(const Formulation& f) {
  std::vector<std::pair<double, size_t>> order;
  for (size_t g = 0; g < f.graphs.size(); ++g) order.emplace_back(flops_of_graph(f, g), g);
  std::sort(order.begin(), order.end());
  std::vector<int> choice(f.problem.variables.size(), kOpen);
  for (const auto& [flops, g] : order) minimise_graph(f, g, &choice);
  return choice;
}

}  // namespace

const char* mode_name(Mode mode) {
  constexpr const char* kNames[] = {"none", "batch", "weight", "auto"};
  return kNames[static_cast<int>(mode)];
}

std::vector<Solution> solve(const ir::Module& module, const SolveOptions& options) {
  const SolveOptions effective = checked(module, options);
  const Formulation f(module, effective);
  const std::vector<int> choice = minimise_graphs(f);
  std::vector<Solution> solutions;
  for (size_t g = 0; g < module.graphs.size(); ++g) {
    Solution s = read_off(f, g, choice);
    s.options = effective;
    s.reasons = reasons_of(f, g, choice);
    s.notes = notes_of(f, g, s);
    s.seconds = seconds_of_graph(f, g, choice);
    solutions.push_back(std::move(s));
  }
  return solutions;
}

std::string problem_json(const ir::Module& module, const SolveOptions& options) {
  const SolveOptions effective = checked(module, options);
  const Formulation f(module, effective);
  return to_json(f.problem, minimise(f.problem));
}

}  // namespace shardwright::shard
