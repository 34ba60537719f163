// Decisions and exchanges of a plan, read off its solutions and local graphs.
#include "compiler/decisions.h"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>
#include <tuple>

#include "base/check.h"
#include "ops/exchange.h"
#include "shard/cost.h"
#include "shard/what_if.h"

namespace shardwright::compiler {
namespace {

constexpr size_t kNearest = 2;  // alternatives that are kept, and all that split the weight

// What a dimension's colour is to people.
class Meanings {
 public:
  Meanings(const ir::Graph& graph, const shard::Solution& solution)
      : graph_(graph), solution_(solution) {
    for (const ir::Input& input : graph.inputs)
      if (input.role == ir::InputRole::kUserInput)
        for (int d = 0; d < graph.type(input.value).ndim(); ++d)
          tokens_.insert(solution.colours.at(input.value, d));
    for (size_t n = 0; n < graph.nodes.size(); ++n) {
      const std::string_view op = graph.nodes[n].op->name;
      const ops::Rule& rule = *solution.rules[n];
      for (int f = 0; f < static_cast<int>(rule.factors.size()); ++f) {
        const std::string& name = rule.factors[static_cast<size_t>(f)].name;
        if (op == "attention" && name == "h") heads_.insert(colour_of(n, f));
        if ((op == "attention" && name == "q") || (op.starts_with("linear") && name[0] == 't'))
          tokens_.insert(colour_of(n, f));  // also where a model made them: patches of an image
      }
    }
    for (size_t c = 0; c < solution.colours.colours.size(); ++c)  // KV heads
      if (heads_.contains(solution.colours.colours[c].follows)) heads_.insert(static_cast<int>(c));
    tokens_.erase(-1);
    heads_.erase(-1);
  }

  Split of_factor(size_t n, int factor) const {
    if (factor < 0) return {"", "whole"};
    const ops::Factor& f = solution_.rules[n]->factors[static_cast<size_t>(factor)];
    if (f.kind == ops::FactorKind::kSum || f.kind == ops::FactorKind::kMax) return {f.name, "K"};
    if (std::string_view(graph_.nodes[n].op->name).starts_with("linear") && f.name == "m")
      return {f.name, "M"};
    return {f.name, of_colour(colour_of(n, factor))};
  }

  // A linear group, or no split at all: what the result is.
  Split of_result(size_t n) const {
    const shard::State& state = solution_.strategies[n].results[0];
    if (state == shard::kWhole) return {"", "whole"};
    if (state.is_partial()) return {"", "K"};
    return {"", of_colour(solution_.colours.at(graph_.nodes[n].outputs[0], state.dim))};
  }

 private:
  int colour_of(size_t n, int factor) const {
    return factor < 0 ? -1
                      : shard::factor_colour(graph_.nodes[n], *solution_.rules[n], factor,
                                             solution_.colours);
  }
  std::string of_colour(int colour) const {
    if (tokens_.contains(colour)) return "tokens";
    return heads_.contains(colour) ? "heads" : "M";
  }

  const ir::Graph& graph_;
  const shard::Solution& solution_;
  std::set<int> tokens_, heads_;
};

bool is_work(const ir::Graph& graph, const shard::Solution& solution, size_t n) {
  const ir::Node& node = graph.nodes[n];
  return node.op->flops != nullptr || shard::is_gemm(node, *solution.rules[n]);
}

Decision decide(const ir::Graph& graph, const shard::Solution& solution, const Meanings& meanings,
                size_t n) {
  const shard::Strategy& strategy = solution.strategies[n];
  Decision decision{
      .strategy = strategy.name,
      .split = strategy.factor < 0 ? meanings.of_result(n) : meanings.of_factor(n, strategy.factor),
      .rows_per_chip = {},
      .results = {},
      .reason = solution.reasons[n],
      .alternatives = {}};
  for (const shard::State& state : strategy.results)
    decision.results.push_back(shard::to_string(state));
  if (strategy.factor < 0) return decision;
  const shard::Cuts cuts =
      shard::strategy_cuts(graph, graph.nodes[n], *solution.rules[n], strategy, solution.colours);
  for (const Range& cut : cuts) decision.rows_per_chip.push_back(cut.size());
  return decision;
}

// The alternatives of nodes that are alike, found for the one in the middle: the first and the last
// layer have other neighbours.
void add_alternatives(const ir::Module& module, const std::vector<shard::Solution>& solutions,
                      size_t g, const Meanings& meanings, Decisions* decisions) {
  using Alike = std::pair<int, std::string>;
  std::map<Alike, std::vector<size_t>> alike;
  for (size_t n = 0; n < module.graphs[g].nodes.size(); ++n)
    if (is_work(module.graphs[g], solutions[g], n))
      alike[{solutions[g].kinds[n], solutions[g].strategies[n].name}].push_back(n);
  for (const auto& [key, nodes] : alike) {
    const size_t forced = nodes[nodes.size() / 2];
    const std::vector<shard::Alternative> found = shard::alternatives_of(
        module, solutions, static_cast<int>(g), static_cast<ir::NodeId>(forced));
    for (const size_t n : nodes) {
      Decision& decision = decisions->all[static_cast<size_t>(decisions->of_node[n])];
      if (decision.forced >= 0) continue;
      decision.forced = static_cast<ir::NodeId>(forced);
      decision.reason = solutions[g].reasons[forced];
      for (const shard::Alternative& other : found) {
        Split split = meanings.of_factor(n, other.factor);
        if (decision.alternatives.size() < kNearest || split.kind == "M" || split.kind == "K")
          decision.alternatives.push_back({std::move(split), other.seconds, other.weight_bytes});
      }
    }
  }
}

// The node of the canonical graph that each node of a local graph is; -1: partition put it in.
std::vector<ir::NodeId> canonical_nodes(const ir::Graph& graph, const ir::Graph& local) {
  std::map<std::string_view, ir::NodeId> by_result;
  for (size_t n = 0; n < graph.nodes.size(); ++n)
    by_result[graph.values[static_cast<size_t>(graph.nodes[n].outputs[0])].name] =
        static_cast<ir::NodeId>(n);
  std::vector<ir::NodeId> nodes;
  for (const ir::Node& node : local.nodes) {
    const auto found = by_result.find(local.values[static_cast<size_t>(node.outputs[0])].name);
    const bool same =
        found != by_result.end() && graph.nodes[static_cast<size_t>(found->second)].op == node.op;
    nodes.push_back(same ? found->second : -1);
  }
  return nodes;
}

bool same_exchange(const ir::Node& node, const pef::Step& step) {
  return step.op == ops::exchange.name && ops::to_attrs(ops::exchange_of(node.attrs)) == step.attrs;
}

}  // namespace

std::vector<Decisions> decisions_of(const ir::Module& module,
                                    const std::vector<shard::Solution>& solutions) {
  std::vector<Decisions> result(module.graphs.size());
  if (solutions.empty() || solutions[0].options.n_chips == 1) return result;
  for (size_t g = 0; g < module.graphs.size(); ++g) {
    const ir::Graph& graph = module.graphs[g];
    const Meanings meanings(graph, solutions[g]);
    // What cost decided by how much differs a little from layer to layer.
    const auto reason_of = [&](size_t n) {
      const shard::Reason& reason = solutions[g].reasons[n];
      return reason.who == "cost" ? reason.who : reason.who + reason.text;
    };
    std::map<std::tuple<int, std::string, std::string>, int> known;
    for (size_t n = 0; n < graph.nodes.size(); ++n) {
      const auto [it, added] =
          known.try_emplace({solutions[g].kinds[n], solutions[g].strategies[n].name, reason_of(n)},
                            static_cast<int>(result[g].all.size()));
      if (added) result[g].all.push_back(decide(graph, solutions[g], meanings, n));
      result[g].of_node.push_back(it->second);
    }
    add_alternatives(module, solutions, g, meanings, &result[g]);
  }
  return result;
}

std::vector<ExchangeReport> exchanges_of(const ir::Graph& graph, const ir::Graph& local,
                                         const pef::Program& program,
                                         const shard::Machine& machine) {
  const std::vector<ir::NodeId> canonical = canonical_nodes(graph, local);
  const std::vector<ir::NodeId> producers = local.producers();
  const auto consumers = local.consumers();
  std::vector<shard::ExchangeInfo> infos = shard::exchanges_of(local, machine);
  std::vector<ExchangeReport> reports;
  std::vector<bool> taken(program.steps.size(), false);
  for (size_t n = 0; n < local.nodes.size(); ++n) {
    if (local.nodes[n].op != &ops::exchange) continue;
    ExchangeReport& report = reports.emplace_back();
    report.info = std::move(infos[reports.size() - 1]);
    // Through whatever partition put between.
    for (ir::ValueId value = local.nodes[n].inputs[0]; report.producer < 0;) {
      const ir::NodeId from = producers[static_cast<size_t>(value)];
      if (from < 0) break;
      report.producer = canonical[static_cast<size_t>(from)];
      value = local.nodes[static_cast<size_t>(from)].inputs.empty()
                  ? ir::kNoValue
                  : local.nodes[static_cast<size_t>(from)].inputs[0];
      if (value == ir::kNoValue) break;
    }
    std::vector<ir::ValueId> reached = {local.nodes[n].outputs[0]};
    for (size_t i = 0; i < reached.size(); ++i)
      for (const ir::NodeId reader : consumers[static_cast<size_t>(reached[i])]) {
        const ir::NodeId node = canonical[static_cast<size_t>(reader)];
        if (node >= 0)
          report.readers.push_back(node);
        else
          reached.push_back(local.nodes[static_cast<size_t>(reader)].outputs[0]);
      }
    std::sort(report.readers.begin(), report.readers.end());
    for (size_t s = 0; s < program.steps.size() && report.step < 0; ++s)
      if (!taken[s] && same_exchange(local.nodes[n], program.steps[s])) {
        taken[s] = true;
        report.step = static_cast<int>(s);
      }
    CHECK(report.step >= 0, "an exchange of " + report.info.value + " is no step");
  }
  return reports;
}

}  // namespace shardwright::compiler
