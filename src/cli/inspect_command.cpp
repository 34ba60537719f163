// inspect and verify: what is inside a PEF, and whether every byte of it is right.
#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/fold.h"
#include "cli/inspect.h"
#include "cli/options.h"
#include "cli/pef_options.h"
#include "cli/print.h"
#include "pef/read.h"

namespace shardwright::cli {
namespace {

using Json = nlohmann::ordered_json;

std::string split_text(const Json& weight) {
  const std::string state = weight.at("state");
  if (state == "whole") return "whole on every chip";
  return fmt::format("{}: {}", split_words(weight.at("operator"), weight.at("factor"), state),
                     fmt::join(weight.at("rows_per_chip").get<std::vector<int64_t>>(), " + "));
}

const Json* report_of(const Json& report, int n_chips) {
  if (!report.is_object() || !report.contains("plans")) return nullptr;
  for (const Json& plan : report["plans"])
    if (plan.value("n_chips", 0) == n_chips) return &plan;
  return nullptr;
}

int64_t total_parameter_bytes(const pef::Manifest& manifest) {
  int64_t bytes = 0;
  for (const pef::Tensor& tensor : manifest.tensors)
    bytes += tensor.constant ? 0 : tensor.type.bytes();
  return bytes;
}

std::string memory_table(const pef::Manifest& manifest, const pef::Plan& plan) {
  std::vector<std::vector<std::string>> rows = {
      {"chip", "weights", "activations", "of these transfers", "together"}};
  int64_t sum = 0;
  for (size_t i = 0; i < plan.chips.size(); ++i) {
    const pef::ChipPlan& chip = plan.chips[i];
    sum += chip.parameter_bytes;
    rows.push_back({fmt::format("{}", i), bytes_text(chip.parameter_bytes),
                    bytes_text(chip.arena_bytes), bytes_text(chip.transfer_bytes),
                    bytes_text(chip.parameter_bytes + chip.arena_bytes)});
  }
  const int64_t total = total_parameter_bytes(manifest);
  if (total == 0) return table(rows);
  return table(rows) +
         fmt::format("  all chips hold {} of weights for a model of {}: {:.3f} copies\n",
                     bytes_text(sum), bytes_text(total),
                     static_cast<double>(sum) / static_cast<double>(total));
}

// "" for a graph without groups. Files of version 1.0 don't speak of them.
std::string groups_text(const Json& graph) {
  if (!graph.contains("groups") || graph["groups"].empty()) return "";
  Folded groups;
  for (const Json& g : graph["groups"]) {
    const int parts = g.at("parts"), steps = g.at("steps");
    const std::string why_not = g.at("why_not_one");
    const auto saved = g.at("saved_bytes_per_chip").get<std::vector<int64_t>>();
    groups.add({g.at("name"), g.at("origin"), folded(g.at("where")),
                bytes_text(*std::max_element(saved.begin(), saved.end())),
                fmt::format("{} -> {}{}{}", parts, steps, why_not.empty() ? "" : ": ", why_not)});
  }
  return groups.text({"fused", "by", "first at", "saves", "steps"});
}

std::string graph_text(const Json& graph, int n_chips) {
  Folded weights, exchanges;
  for (const Json& w : graph.at("weights"))
    weights.add({folded(w.at("name")), to_string(w.at("shape").get<Shape>()), split_text(w)});
  int64_t moved = 0;
  int64_t meetings = 0;
  for (const Json& e : graph.at("exchanges")) {
    meetings += e.value("with_previous", false) ? 0 : 1;
    exchanges.add({e.at("kind"),
                   fmt::format("{} {}", e.at("dtype").get<std::string>(),
                               to_string(e.at("shape").get<Shape>())),
                   bytes_text(e.at("bytes_moved")), folded(e.at("forced_by"))});
    moved += e.at("bytes_moved").get<int64_t>();
  }
  std::string text = fmt::format(
      " graph {}\n{}{}", graph.at("name").get<std::string>(),
      graph.at("weights").empty() ? "  no weights\n" : weights.text({"weight", "shape", "split"}),
      groups_text(graph));
  if (n_chips == 1) return text;
  if (graph.at("exchanges").empty()) return text + "  no transfers between chips\n";
  return text + exchanges.text({"transfer", "of", "received", "forced by"}) +
         fmt::format("  {} in {} of the chips, {} received by all together\n",
                     count_text(std::ssize(graph.at("exchanges")), "transfer"),
                     count_text(meetings, "meeting"), bytes_text(moved));
}

int inspect(const std::string& path, int n_chips, const Globals& globals) {
  const auto file = pef::File::open(path, n_chips);
  const pef::Manifest& m = file->manifest();
  if (globals.json) {
    Json json = {
        {"schema_version", 1},    {"pef", path},           {"size_bytes", file->size_bytes()},
        {"producer", m.producer}, {"model", m.model_name}, {"options", m.options}};
    for (const auto& graph : m.graphs) {
      Json entry = {{"name", graph.name}};
      for (const auto& input : graph.inputs)
        entry["inputs"].push_back({{"name", input.name},
                                   {"dtype", std::string(dtype_name(input.type.dtype))},
                                   {"shape", input.type.shape}});
      for (const auto& output : graph.outputs)
        entry["outputs"].push_back({{"name", output.name},
                                    {"dtype", std::string(dtype_name(output.type.dtype))},
                                    {"shape", output.type.shape}});
      json["graphs"].push_back(entry);
    }
    json["parameters"] = {{"count", m.tensors.size()}, {"bytes", total_parameter_bytes(m)}};
    json["plans"] = Json::parse(plans_json(m, file->report_json()));
    emit_json(globals, json.dump());
    return 0;
  }
  fmt::print("{}  {}, written by {}\n", path, bytes_text(file->size_bytes()), m.producer);
  for (const auto& [option, value] : m.options) fmt::print("  --{} {}\n", option, value);
  for (const auto& graph : m.graphs) {
    fmt::print("graph {}\n", graph.name);
    for (const auto& input : graph.inputs)
      fmt::print("  input  {}: {}\n", input.name, to_string(input.type));
    for (const auto& output : graph.outputs)
      fmt::print("  output {}: {}\n", output.name, to_string(output.type));
  }
  fmt::print("{}", plans_text(m, file->report_json()));
  return 0;
}

int verify(const std::string& path, bool deep, const Globals& globals) {
  Progress progress(globals);
  progress.stage("read", 0, 0);
  const auto file = pef::File::open(path);
  pef::check_manifest(file->manifest());
  if (deep) progress.stage("hash the weights", 0, 0), file->verify_deep();
  progress.end();
  if (globals.json)
    emit_json(globals,
              Json{{"schema_version", 1}, {"pef", path}, {"ok", true}, {"deep", deep}}.dump());
  else
    fmt::print("{}: {} is right ({})\n", path, deep ? "every byte" : "all metadata",
               bytes_text(file->size_bytes()));
  return 0;
}

}  // namespace

std::string plans_text(const pef::Manifest& manifest, const std::string& report_json) {
  const Json report = Json::parse(report_json, nullptr, false);
  std::string text;
  for (const pef::Plan& plan : manifest.plans) {
    if (plan.chips.empty()) continue;  // not asked for
    text += fmt::format("plan for {}, mode {}\n{}", count_text(plan.n_chips, "chip"), plan.mode,
                        memory_table(manifest, plan));
    if (const Json* p = report_of(report, plan.n_chips))
      for (const Json& graph : p->at("graphs")) text += graph_text(graph, plan.n_chips);
    for (const std::string& note : plan.notes) text += "  note: " + note + "\n";
  }
  return text;
}

std::string plans_json(const pef::Manifest& manifest, const std::string& report_json) {
  const Json report = Json::parse(report_json, nullptr, false);
  Json plans = Json::array();
  for (const pef::Plan& plan : manifest.plans) {
    Json entry = {{"n_chips", plan.n_chips},
                  {"mode", plan.mode},
                  {"notes", plan.notes},
                  {"chips", Json::array()}};
    for (const pef::ChipPlan& chip : plan.chips) {
      entry["chips"].push_back({{"weights_bytes", chip.parameter_bytes},
                                {"arena_bytes", chip.arena_bytes},
                                {"transfer_bytes", chip.transfer_bytes},
                                {"traffic_of_graphs", Json::array()}});
      for (const pef::Program& program : chip.programs) {
        const pef::Traffic traffic = pef::traffic_of(program);
        entry["chips"].back()["traffic_of_graphs"].push_back(
            {{"steps", program.steps.size()},
             {"weights_bytes", traffic.weights_bytes},
             {"activations_bytes", traffic.activations_bytes}});
      }
    }
    if (const Json* p = report_of(report, plan.n_chips)) entry["graphs"] = p->at("graphs");
    plans.push_back(entry);
  }
  return plans.dump();
}

void add_inspect(CLI::App& app, const Globals& globals, Action& action) {
  auto pef = std::make_shared<std::string>();
  CLI::App* c = app.add_subcommand("inspect", "Show what is inside a PEF");
  c->footer(fmt::format("Example:\n  {} inspect out/demo/demo.pef", globals.command_line()));
  add_pef(*c, *pef, globals);
  auto n_chips = std::make_shared<int>(0);
  whole_number(c->add_option("--n-chips", *n_chips, "One plan alone (default: all)"), 1);
  c->callback([pef, n_chips, &globals, &action] {
    action = [pef, n_chips, &globals] { return inspect(pef_of(*pef), *n_chips, globals); };
  });
}

void add_verify(CLI::App& app, const Globals& globals, Action& action) {
  auto pef = std::make_shared<std::string>();
  auto deep = std::make_shared<bool>(false);
  CLI::App* c = app.add_subcommand("verify", "Check a PEF");
  c->footer(fmt::format("Example:\n  {} verify out/demo/demo.pef --deep", globals.command_line()));
  add_pef(*c, *pef, globals);
  c->add_flag("--deep", *deep, "Every byte of the weights too");
  c->callback([pef, deep, &globals, &action] {
    action = [pef, deep, &globals] { return verify(pef_of(*pef), *deep, globals); };
  });
}

}  // namespace shardwright::cli
