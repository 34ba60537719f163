// The report of a compile.
#include "compiler/report.h"

#include <algorithm>
#include <map>
#include <numeric>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/error.h"
#include "compiler/compile.h"
#include "ir/text.h"

namespace shardwright::compiler {
namespace {

using Json = nlohmann::ordered_json;

WeightReport report_weight(const ir::Graph& graph, size_t input, const shard::Solution& solution,
                           const std::vector<ir::Graph>& chips,
                           const std::vector<std::vector<ir::NodeId>>& consumers) {
  const ir::Input& in = graph.inputs[input];
  WeightReport report;
  report.name = in.name;
  report.type = graph.type(in.value);
  const shard::State state = solution.inputs[input];
  report.state = shard::to_string(state);
  const auto& readers = consumers[static_cast<size_t>(in.value)];
  if (!readers.empty()) {
    const auto node = static_cast<size_t>(readers[0]);
    const shard::Strategy& strategy = solution.strategies[node];
    report.op = graph.nodes[node].op->name;
    if (strategy.factor >= 0)
      report.factor = solution.rules[node]->factors[static_cast<size_t>(strategy.factor)].name;
    report.who = solution.reasons[node].who;
    report.why = solution.reasons[node].text;
  }
  for (const ir::Graph& chip : chips) {
    // A chip may have dropped the input or taken it along another index: it is found by name.
    const auto found = std::find_if(chip.inputs.begin(), chip.inputs.end(),
                                    [&](const ir::Input& i) { return i.name == in.name; });
    const TensorType type =
        found == chip.inputs.end() ? TensorType{report.type.dtype, {0}} : chip.type(found->value);
    report.bytes_per_chip.push_back(type.bytes());
    if (state.kind == shard::StateKind::kSplit)
      report.rows_per_chip.push_back(
          type.ndim() > state.dim ? type.shape[static_cast<size_t>(state.dim)] : 0);
  }
  return report;
}

// Rows of the table whose rows operand 1 of the node names; 0 if it names none.
int64_t rows_indexed(const ir::Graph& graph, const ir::Node& node) {
  if (node.inputs.size() < 2) return 0;
  const std::string_view op = node.op->name;
  const auto size = [&](int64_t dim) {
    const TensorType& table = graph.type(node.inputs[0]);
    return table.shape[static_cast<size_t>(dim < 0 ? dim + table.ndim() : dim)];
  };
  return op == "embedding"     ? size(0)
         : op == "cache_write" ? size(2)
         : op == "gather"      ? size(node.attrs.integer("dim"))
                               : 0;
}

// Rows of the table that an integer input indexes, following it through whatever keeps its values.
std::map<std::string, int64_t> input_bounds(const ir::Graph& graph) {
  std::map<std::string, int64_t> bounds;
  std::map<ir::ValueId, std::string> from;
  for (const ir::Input& input : graph.inputs)
    if (input.role == ir::InputRole::kUserInput && is_integer(graph.type(input.value).dtype))
      from[input.value] = input.name;
  for (const ir::Node& node : graph.nodes) {
    const int64_t rows = rows_indexed(graph, node);
    if (rows > 0 && from.contains(node.inputs[1])) {
      int64_t& bound = bounds[from[node.inputs[1]]];
      bound = bound == 0 ? rows : std::min(bound, rows);
    }
    const bool keeps =
        node.op->view != nullptr && !node.inputs.empty() && from.contains(node.inputs[0]);
    if (keeps) from[node.outputs[0]] = from[node.inputs[0]];
  }
  return bounds;
}

std::vector<GroupReport> report_groups(const ir::Graph& graph,
                                       const std::vector<plan::GroupPlan>& plans) {
  std::vector<GroupReport> reports;
  for (size_t i = 0; i < graph.groups.size(); ++i)
    reports.push_back({.name = graph.groups[i].name,
                       .origin = graph.groups[i].origin,
                       .members = {},
                       .where = "",
                       .plan = plans[i]});
  for (const ir::Node& node : graph.nodes) {
    if (node.group < 0) continue;
    GroupReport& report = reports[static_cast<size_t>(node.group)];
    if (report.members.empty() && node.source >= 0)
      report.where = graph.sources[static_cast<size_t>(node.source)].path;
    report.members.emplace_back(node.op->name);
  }
  return reports;
}

Json to_json(const GroupReport& group) {
  return Json{{"name", group.name},
              {"origin", group.origin},
              {"where", group.where},
              {"members", group.members},
              {"parts", group.plan.parts},
              {"steps", group.plan.steps},
              {"why_not_one", group.plan.why_not},
              {"saved_bytes_per_chip", group.plan.saved_bytes}};
}

Json to_json(const ExchangeReport& report) {
  const shard::ExchangeInfo& info = report.info;
  return Json{{"kind", info.exchange.kind},
              {"value", info.value},
              {"dtype", std::string(dtype_name(info.dtype))},
              {"shape", info.exchange.shape},
              {"bytes", element_count(info.exchange.shape) * dtype_bytes(info.dtype)},
              {"bytes_moved",
               std::accumulate(info.received_bytes.begin(), info.received_bytes.end(), int64_t{0})},
              {"received_bytes", info.received_bytes},
              {"modelled_seconds", info.seconds},
              {"with_previous", info.exchange.with_previous},
              {"forced_by", info.forced},
              {"forced_by_node", info.forced_by},
              {"producer", report.producer},
              {"readers", report.readers},
              {"step", report.step}};
}

Json to_json(const WeightReport& w) {
  return Json{{"name", w.name},
              {"dtype", std::string(dtype_name(w.type.dtype))},
              {"shape", w.type.shape},
              {"state", w.state},
              {"operator", w.op},
              {"factor", w.factor},
              {"decided_by", w.who},
              {"reason", w.why},
              {"bytes_per_chip", w.bytes_per_chip},
              {"rows_per_chip", w.rows_per_chip}};
}

Json to_json(const Split& split) { return Json{{"factor", split.factor}, {"kind", split.kind}}; }

Json to_json(const Decision& d) {
  Json alternatives = Json::array();
  for (const Decision::Alternative& other : d.alternatives)
    alternatives.push_back({{"split", to_json(other.split)},
                            {"more_seconds", other.seconds},
                            {"more_weight_bytes", other.weight_bytes}});
  return Json{{"strategy", d.strategy},           {"split", to_json(d.split)},
              {"rows_per_chip", d.rows_per_chip}, {"results", d.results},
              {"decided_by", d.reason.who},       {"reason", d.reason.text},
              {"fell_back", d.reason.fell_back},  {"alternatives", alternatives},
              {"forced_node", d.forced}};
}

}  // namespace

PlanReport report_plan(const ir::Module& module, const std::vector<shard::Solution>& solutions,
                       const std::vector<std::vector<ir::Graph>>& local,
                       const plan::Planned& planned) {
  PlanReport report;
  report.n_chips = planned.plan.n_chips;
  report.machine = solutions[0].options.machine;
  std::vector<Decisions> decisions = decisions_of(module, solutions);
  for (size_t g = 0; g < module.graphs.size(); ++g) {
    const ir::Graph& graph = module.graphs[g];
    GraphReport& out = report.graphs.emplace_back();
    out.name = graph.name;
    out.exchanges = exchanges_of(graph, local[g][0], planned.plan.chips[0].programs[g],
                                 solutions[g].options.machine);
    out.decisions = std::move(decisions[g]);
    out.modelled_seconds = solutions[g].seconds;
    const auto consumers = graph.consumers();
    for (size_t i = 0; i < graph.inputs.size(); ++i)
      if (graph.inputs[i].role == ir::InputRole::kParameter)
        out.weights.push_back(report_weight(graph, i, solutions[g], local[g], consumers));
    out.groups = report_groups(graph, planned.groups[g]);
  }
  return report;
}

std::string to_json(const ir::Module& module, const std::vector<PlanReport>& plans) {
  Json json = {{"schema_version", 1},
               {"module", ir::print(module)},
               {"input_below", Json::object()},
               {"plans", Json::array()}};
  for (const ir::Graph& graph : module.graphs)
    for (const auto& [name, bound] : input_bounds(graph))
      json["input_below"][graph.name][name] = bound;
  for (const PlanReport& plan : plans) {
    Json graphs = Json::array();
    for (const GraphReport& graph : plan.graphs) {
      Json exchanges = Json::array(), weights = Json::array(), groups = Json::array(),
           decisions = Json::array();
      for (const auto& exchange : graph.exchanges) exchanges.push_back(to_json(exchange));
      for (const auto& decision : graph.decisions.all) decisions.push_back(to_json(decision));
      for (const auto& weight : graph.weights) weights.push_back(to_json(weight));
      for (const auto& group : graph.groups) groups.push_back(to_json(group));
      graphs.push_back({{"name", graph.name},
                        {"modelled_seconds", graph.modelled_seconds},
                        {"exchanges", exchanges},
                        {"weights", weights},
                        {"groups", groups},
                        {"decisions", decisions},
                        {"decision_of_node", graph.decisions.of_node}});
    }
    json["plans"].push_back({{"n_chips", plan.n_chips},
                             {"machine",
                              {{"name", plan.machine.name},
                               {"flops_per_s", plan.machine.flops_per_s},
                               {"bytes_per_s", plan.machine.bytes_per_s},
                               {"link_bytes_per_s", plan.machine.link_bytes_per_s},
                               {"link_latency_s", plan.machine.link_latency_s}}},
                             {"graphs", graphs}});
  }
  return json.dump();
}

ir::Module module_of_report(const std::string& report_json, const std::vector<TensorView>& views) {
  ir::Module module;
  try {
    module = ir::parse(Json::parse(report_json).at("module").get<std::string>());
  } catch (const Json::exception& error) {
    throw Error(ErrorCode::kBrokenFile,
                std::string("the PEF's report can't be read: ") + error.what());
  }
  if (module.tensors.size() != views.size())
    throw Error(ErrorCode::kBrokenFile, "the PEF's report does not belong to its tensors");
  for (size_t i = 0; i < views.size(); ++i) {
    ir::LogicalTensor& tensor = module.tensors[i];
    if (tensor.type != views[i].type)
      throw Error(ErrorCode::kBrokenFile,
                  "the PEF's report does not belong to tensor '" + tensor.name + "'");
    tensor.bytes = {nullptr, views[i].data, views[i].type.bytes()};
    tensor.offset = 0;
    tensor.strides = views[i].strides;
  }
  return module;
}

}  // namespace shardwright::compiler
