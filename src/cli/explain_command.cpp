// explain: why each operator is split as it is, what is transferred for it, and what else it could
// have cost.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "base/file.h"
#include "cli/commands.h"
#include "cli/explanation.h"
#include "cli/fold.h"
#include "cli/options.h"
#include "cli/pef_options.h"
#include "cli/print.h"

namespace shardwright::cli {
namespace {

using Json = nlohmann::ordered_json;
using Rows = std::vector<std::vector<std::string>>;

// "+1.2 us", "-3.0 us", "+0.0 us"
std::string more_seconds(double seconds) {
  const bool less = seconds < -0.05e-6;  // as printed
  return (less ? "-" : "+") + seconds_text(std::abs(seconds));
}

std::string split_text(const Json& node) {
  const std::string words = node.at("split").at("words");
  const auto rows = node.at("rows_per_chip").get<std::vector<int64_t>>();
  return rows.empty() ? words : fmt::format("{}: {}", words, fmt::join(rows, " + "));
}

// "K (contracted) +1.2 us, +48 B weights"
std::string alternative_text(const Json& other) {
  const int64_t bytes = other.at("more_weight_bytes");
  const std::string weights = bytes == 0 ? ""
                                         : fmt::format(", {}{} weights", bytes < 0 ? "-" : "+",
                                                       bytes_text(std::abs(bytes)));
  return fmt::format("{} {}{}", other.at("split").at("words").get<std::string>(),
                     more_seconds(other.at("more_seconds")), weights);
}

// "self_attn.q_proj" in the block "model.layers.*".
std::string short_path(const std::string& path, const Json& block) {
  const std::string prefix = block.at("path").get<std::string>() + ".";
  const std::string whole = block.at("layers").size() > 1 ? folded(path) : path;
  return whole.starts_with(prefix) ? whole.substr(prefix.size()) : whole;
}

std::string nodes_text(const Json& block) {
  Rows rows = {{"module", "operator", "split", "decided by", "instead"}};
  std::string fell_back;
  for (const Json& node : block.at("nodes")) {
    if (!node.contains("alternatives") || node["alternatives"].empty()) continue;
    std::vector<std::string> others;
    for (const Json& other : node["alternatives"]) others.push_back(alternative_text(other));
    const std::string path =
        short_path(node.at("path"), block) + node.at("part").get<std::string>();
    rows.push_back({path, node.at("operator"), split_text(node),
                    fmt::format("{}: {}", node.at("decided_by").get<std::string>(),
                                node.at("reason").get<std::string>()),
                    fmt::format("{}", fmt::join(others, "; "))});
    if (!node["fell_back"].get<std::string>().empty())
      fell_back += fmt::format("  {} fell back: {}\n", path, node["fell_back"].get<std::string>());
  }
  return rows.size() == 1 ? "" : table(rows) + fell_back;
}

std::string exchanges_text(const Json& block) {
  Rows rows = {{"transfer", "of", "received", "modelled", "measured", "waited", "forced by"}};
  for (const Json& e : block.at("exchanges")) {
    const bool with = e.at("with_previous");
    const Json& measured = e.at("measured");
    const auto time = [&](const char* key) {
      if (measured.is_null()) return std::string(with ? "(above)" : "-");
      return seconds_text(measured.at(key));
    };
    rows.push_back({e.at("kind"),
                    fmt::format("{} {}", e.at("dtype").get<std::string>(),
                                to_string(e.at("shape").get<Shape>())),
                    bytes_text(e.at("bytes_moved")), seconds_text(e.at("modelled_seconds")),
                    time("seconds"), time("waited_seconds"),
                    (with ? "with the one above: " : "") +
                        (block.at("layers").size() > 1 ? folded(e.at("forced_by"))
                                                       : e.at("forced_by").get<std::string>())});
  }
  return rows.size() == 1 ? "" : table(rows);
}

// Operators of a group: "linear x 3, silu, mul".
std::string members_text(const Json& members) {
  std::vector<std::pair<std::string, int>> counts;
  for (const auto& member : members.get<std::vector<std::string>>()) {
    if (counts.empty() || counts.back().first != member) counts.emplace_back(member, 0);
    ++counts.back().second;
  }
  std::vector<std::string> texts;
  for (const auto& [name, count] : counts)
    texts.push_back(count == 1 ? name : fmt::format("{} x {}", name, count));
  return fmt::format("{}", fmt::join(texts, ", "));
}

std::string groups_text(const Json& block) {
  Rows rows = {{"fused", "by", "operators", "saves a chip", "steps"}};
  for (const Json& group : block.at("groups")) {
    const auto saved = group.at("saved_bytes_per_chip").get<std::vector<int64_t>>();
    const std::string why_not = group.at("why_not_one");
    rows.push_back({group.at("name"), group.at("origin"), members_text(group.at("members")),
                    bytes_text(*std::max_element(saved.begin(), saved.end())),
                    fmt::format("{}{}", group.at("steps").get<int>(),
                                why_not.empty() ? "" : ", not one: " + why_not)});
  }
  return rows.size() == 1 ? "" : table(rows);
}

std::string measured_text(const Json& measured) {
  if (measured.contains("why_not")) return measured["why_not"];
  return fmt::format(
      "measured {} a run, of these {} moving data and {} waiting for other chips "
      "({} a chip, {}, each step timed)",
      seconds_text(measured.at("seconds")), seconds_text(measured.at("transfer_seconds")),
      seconds_text(measured.at("waited_seconds")),
      count_text(measured.at("threads_per_chip"), "thread"),
      count_text(measured.at("runs"), "run"));
}

void write_page(const std::string& path, const Json& explanation) {
  try {
    AtomicFile file(path);
    file.write_at(0, explanation_page(explanation));
    file.commit();
  } catch (const Error& error) {
    throw error.within("--html");
  }
}

struct Options {
  std::string pef;
  int n_chips = 0;
  std::optional<int> layer;
  std::string html;
};

int explain_pef(const Options& o, const Globals& globals) {
  const Json explanation = explain(pef_of(o.pef), o.n_chips, o.layer);
  if (!o.html.empty()) write_page(o.html, explanation);
  if (globals.json)
    emit_json(globals, explanation.dump());
  else if (o.html.empty())
    fmt::print("{}", explanation_text(explanation));
  else
    fmt::print("{}: open it in a browser\n", o.html);
  return 0;
}

}  // namespace

std::string explanation_text(const Json& explanation) {
  const Json& machine = explanation.at("machine");
  const int n = explanation.at("n_chips");
  std::string text = fmt::format(
      "{}: plan for {}, mode {}\n  modelled for {}: {:g} GFLOP/s and {:g} GB/s a chip, {:g} "
      "GB/s and {:g} us between chips\n",
      explanation.at("pef").get<std::string>(), count_text(n, "chip"),
      explanation.at("mode").get<std::string>(), machine.at("name").get<std::string>(),
      machine.at("flops_per_s").get<double>() * 1e-9,
      machine.at("bytes_per_s").get<double>() * 1e-9,
      machine.at("link_bytes_per_s").get<double>() * 1e-9,
      machine.at("link_latency_s").get<double>() * 1e6);
  for (const auto& note : explanation.at("notes"))
    text += "  note: " + note.get<std::string>() + "\n";
  for (const Json& graph : explanation.at("graphs")) {
    text += fmt::format(
        "graph {}: modelled {} a run; {} in {}, {} received by all chips\n  {}\n",
        graph.at("name").get<std::string>(), seconds_text(graph.at("modelled_seconds")),
        count_text(graph.at("exchanges"), "transfer"), count_text(graph.at("meetings"), "meeting"),
        bytes_text(graph.at("received_bytes")), measured_text(graph.at("measured")));
    for (const Json& block : graph.at("blocks")) {
      const std::string body = nodes_text(block) + exchanges_text(block) + groups_text(block);
      if (body.empty()) continue;
      const std::string path = block.at("path");
      text += fmt::format("\n{}{}\n{}", block.at("title").get<std::string>(),
                          path.empty() ? "" : " (" + path + ")", body);
    }
  }
  if (n > 1)
    text +=
        "\ninstead: modelled time of all graphs, and weights of a chip, if this node alone were "
        "split so and all others were chosen anew\n";
  return text;
}

void add_explain(CLI::App& app, const Globals& globals, Action& action) {
  auto o = std::make_shared<Options>();
  CLI::App* c = app.add_subcommand(
      "explain", "Why each operator is split as it is, what it transfers, what else it could cost");
  c->footer(
      fmt::format("Example:\n  {0} explain out/demo/demo.pef\n  {0} explain "
                  "out/demo/demo.pef --html explain.html",
                  globals.command_line()));
  add_pef(*c, o->pef, globals);
  whole_number(c->add_option("--n-chips", o->n_chips,
                             "Which plan (default: the first for more than one chip)"),
               1);
  whole_number(
      c->add_option("--layer", o->layer, "One layer alone (default: all; those alike once)"), 0);
  c->add_option("--html", o->html, "Write one page with the graphs of the layers instead")
      ->type_name(kFile);
  c->callback(
      [o, &globals, &action] { action = [o, &globals] { return explain_pef(*o, globals); }; });
}

}  // namespace shardwright::cli
