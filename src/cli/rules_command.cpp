// rules: checks a fusion-rule file, and says what each rule matches in a model.
#include <algorithm>
#include <chrono>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/print.h"
#include "rules/describe.h"
#include "rules/match.h"

namespace shardwright::cli {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::string file;
  std::string against;
  bool builtin = false;
};

std::string split_text(const rules::Rule& rule) {
  return rule.split.empty() ? "Auto" : rule.split == "m" ? "M" : "K";
}

// One graph, matched.
struct GraphMatches {
  const ir::Graph& graph;
  const rules::RuleFile& file;
  rules::Matches matches;
  double seconds = 0;

  GraphMatches(const ir::Graph& of, const rules::RuleFile& by) : graph(of), file(by) {
    const auto start = std::chrono::steady_clock::now();
    matches = rules::match_rules(graph, file);
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  // Matches of a rule that stand, or (loser) that were lost to one of another rule, or of itself.
  std::vector<const rules::Match*> of(int rule, int lost_to_rule = -1) const {
    std::vector<const rules::Match*> found;
    for (const rules::Match& match : matches.all) {
      const int winner =
          match.lost_to < 0 ? -1 : matches.all[static_cast<size_t>(match.lost_to)].rule;
      if (match.rule == rule && winner == lost_to_rule) found.push_back(&match);
    }
    return found;
  }
};

std::string places_text(const GraphMatches& g, const std::vector<const rules::Match*>& matches,
                        const std::string& head) {
  std::string text;
  for (const rules::Places& places : rules::fold_places(g.graph, matches))
    text += fmt::format("    {}{} x {}{}\n", head, places.count, places.paths,
                        places.layers.empty() ? "" : ": " + places.layers);
  return text;
}

std::string rule_text(const GraphMatches& g, int r) {
  const rules::Rule& rule = g.file.rules[static_cast<size_t>(r)];
  const auto mine = std::count_if(g.matches.all.begin(), g.matches.all.end(),
                                  [&](const rules::Match& m) { return m.rule == r; });
  const std::vector<const rules::Match*> standing = g.of(r);
  std::string text = fmt::format("  {} (line {}): ", rule.name, rule.place.line);
  if (const auto& miss = g.matches.misses[static_cast<size_t>(r)])
    return text +
           fmt::format("no match\n    {}\n", rules::describe_miss(g.graph, g.file, r, *miss));
  text += count_text(mine, "match");
  if (standing.size() != static_cast<size_t>(mine))
    text += fmt::format(", {} after priorities", standing.size());
  text += "\n" + places_text(g, standing, "");
  for (int winner = 0; winner < static_cast<int>(g.file.rules.size()); ++winner)
    text +=
        places_text(g, g.of(r, winner),
                    fmt::format("lost to {}: ", g.file.rules[static_cast<size_t>(winner)].name));
  return text;
}

Json node_json(const ir::Graph& graph, ir::NodeId id) {
  const ir::Node& node = graph.nodes[static_cast<size_t>(id)];
  Json json = {{"value", graph.values[static_cast<size_t>(node.outputs[0])].name},
               {"operator", node.op->name}};
  if (node.source < 0) return json;
  const ir::Source& source = graph.sources[static_cast<size_t>(node.source)];
  json["module"] = source.path;
  json["file"] = source.file;
  json["line"] = source.line;
  return json;
}

Json graph_json(const GraphMatches& g) {
  Json json = {{"name", g.graph.name},     {"nodes", g.graph.nodes.size()},
               {"seconds", g.seconds},     {"rules", Json::array()},
               {"matches", Json::array()}, {"notes", g.matches.notes}};
  for (int r = 0; r < static_cast<int>(g.file.rules.size()); ++r) {
    const auto before = std::count_if(g.matches.all.begin(), g.matches.all.end(),
                                      [&](const rules::Match& m) { return m.rule == r; });
    Json rule = {{"name", g.file.rules[static_cast<size_t>(r)].name},
                 {"matches_before_priorities", before},
                 {"matches", g.of(r).size()},
                 {"places", Json::array()},
                 {"miss", nullptr}};
    for (const rules::Places& p : rules::fold_places(g.graph, g.of(r)))
      rule["places"].push_back({{"count", p.count}, {"modules", p.paths}, {"layers", p.layers}});
    if (const auto& miss = g.matches.misses[static_cast<size_t>(r)])
      rule["miss"] = rules::describe_miss(g.graph, g.file, r, *miss);
    json["rules"].push_back(std::move(rule));
  }
  for (const rules::Match& match : g.matches.all) {
    Json entry = {{"rule", g.file.rules[static_cast<size_t>(match.rule)].name},
                  {"lost_to", nullptr},
                  {"nodes", Json::array()}};
    if (match.lost_to >= 0)
      entry["lost_to"] =
          g.file.rules[static_cast<size_t>(g.matches.all[static_cast<size_t>(match.lost_to)].rule)]
              .name;
    for (const ir::NodeId id : match.nodes) entry["nodes"].push_back(node_json(g.graph, id));
    json["matches"].push_back(std::move(entry));
  }
  return json;
}

Json file_json(const rules::RuleFile& file) {
  Json json = {
      {"schema_version", 1}, {"file", file.path}, {"rules", Json::array()}, {"notes", file.notes}};
  for (const rules::Rule& rule : file.rules)
    json["rules"].push_back({{"name", rule.name},
                             {"line", rule.place.line},
                             {"priority", rule.priority},
                             {"heuristic", rule.heuristic.empty() ? Json() : Json(rule.heuristic)},
                             {"tp_dim", split_text(rule)},
                             {"nodes", rule.nodes.size()}});
  return json;
}

std::string file_text(const rules::RuleFile& file) {
  std::string text =
      fmt::format("{}: {}, nothing wrong\n", file.path, count_text(std::ssize(file.rules), "rule"));
  std::vector<std::vector<std::string>> rows = {
      {"rule", "line", "priority", "heuristic", "tp_dim", "nodes"}};
  for (const rules::Rule& rule : file.rules)
    rows.push_back({rule.name, fmt::format("{}", rule.place.line), fmt::format("{}", rule.priority),
                    rule.heuristic.empty() ? "-" : rule.heuristic, split_text(rule),
                    fmt::format("{}", rule.nodes.size())});
  text += table(rows);
  for (const std::string& note : file.notes) text += "  note: " + note + "\n";
  return text;
}

int check_rules(const Options& o, const Globals& globals) {
  if (o.builtin && !o.file.empty())
    throw Error(ErrorCode::kUsage,
                "--builtin prints our own rule file: leave FILE out, or save "
                "what it prints and give that");
  if (!o.builtin && o.file.empty())
    throw Error(ErrorCode::kUsage,
                "FILE is missing: give a rule file, or --builtin for our own, which you can copy");
  const rules::RuleFile file = o.builtin ? rules::builtin_rules() : rules::read_rules(o.file);
  const bool match = globals.provider || !o.against.empty();
  if (o.builtin && !match) {
    if (globals.json)
      emit_json(globals, Json{{"schema_version", 1}, {"text", rules::builtin_rules_text()}}.dump());
    else
      fmt::print("{}", rules::builtin_rules_text());
    return 0;
  }
  Json json = file_json(file);
  std::string text = file_text(file);
  if (match) {
    const ir::Module module = read_model(o.against, globals);
    json["graphs"] = Json::array();
    for (const ir::Graph& graph : module.graphs) {
      const GraphMatches g(graph, file);
      if (globals.json) json["graphs"].push_back(graph_json(g));
      text += fmt::format("graph {}: {}, matched in {}\n", graph.name,
                          count_text(std::ssize(graph.nodes), "node"), seconds_text(g.seconds));
      for (int r = 0; r < static_cast<int>(file.rules.size()); ++r) text += rule_text(g, r);
      for (const std::string& note : g.matches.notes) text += "  note: " + note + "\n";
    }
  }
  if (globals.json)
    emit_json(globals, json.dump());
  else
    fmt::print("{}", text);
  return 0;
}

}  // namespace

void add_rules(CLI::App& app, const Globals& globals, Action& action) {
  auto o = std::make_shared<Options>();
  CLI::App* c = app.add_subcommand("rules", "Check a fusion-rule file");
  c->add_option("FILE", o->file, "A YAML file of fusion rules (docs/rules.md)")->type_name(kFile);
  c->add_flag("--builtin", o->builtin, "The rules of -o1 without a file: prints them");
  if (globals.provider) {
    c->footer(fmt::format("Example:\n  python {} rules rules.yaml", globals.program));
  } else {
    c->footer("Example:\n  shardwright rules rules.yaml --against model.pt2");
    c->add_option("--against", o->against,
                  "A model, as for compile: what each rule matches in it, and why not")
        ->type_name(kFile);
  }
  c->callback(
      [o, &globals, &action] { action = [o, &globals] { return check_rules(*o, globals); }; });
}

}  // namespace shardwright::cli
