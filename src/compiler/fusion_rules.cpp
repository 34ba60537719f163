// -o1.
#include "compiler/fusion_rules.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "rules/describe.h"
#include "rules/match.h"

namespace shardwright::compiler {
namespace {

bool has_weight(const ir::Graph& graph, const ir::Node& node) {
  if (!std::string_view(node.op->name).starts_with("linear")) return false;
  return std::any_of(graph.inputs.begin(), graph.inputs.end(), [&](const ir::Input& input) {
    return input.value == node.inputs[1] && input.role == ir::InputRole::kParameter;
  });
}

std::string rule_of(const ir::FusionGroup& group) { return group.origin + " " + group.name; }

}  // namespace

std::vector<std::string> apply_rules(ir::Module& module, const CompileOptions& options) {
  const bool builtin = options.rules_file.empty();
  const rules::RuleFile file =
      builtin ? rules::builtin_rules() : rules::read_rules(options.rules_file);
  std::vector<std::string> notes = builtin ? std::vector<std::string>() : file.notes;
  for (ir::Graph& graph : module.graphs) {
    const rules::Matches matches = rules::match_rules(graph, file);
    rules::mark(graph, file, matches);
    notes.insert(notes.end(), matches.notes.begin(), matches.notes.end());
    // The built-in rules are for many models: that some match nothing is no news.
    for (size_t r = 0; r < file.rules.size() && !builtin; ++r)
      if (matches.misses[r])
        notes.push_back(fmt::format(
            "{} {} matches nothing in graph {}: {}", file.origin(file.rules[r]), file.rules[r].name,
            graph.name,
            rules::describe_miss(graph, file, static_cast<int>(r), *matches.misses[r])));
  }
  return notes;
}

std::map<std::pair<int, ir::NodeId>, shard::SolveOptions::Fixed> fixed_splits(
    const ir::Module& module) {
  std::map<std::pair<int, ir::NodeId>, shard::SolveOptions::Fixed> fixed;
  for (size_t g = 0; g < module.graphs.size(); ++g) {
    const ir::Graph& graph = module.graphs[g];
    for (size_t n = 0; n < graph.nodes.size(); ++n) {
      const ir::Node& node = graph.nodes[n];
      if (node.group < 0 || !has_weight(graph, node)) continue;
      const ir::FusionGroup& group = graph.groups[static_cast<size_t>(node.group)];
      if (!group.split.empty())
        fixed[{static_cast<int>(g), static_cast<ir::NodeId>(n)}] = {group.split, rule_of(group)};
    }
  }
  return fixed;
}

std::string ignored_splits_note(const ir::Module& module) {
  std::vector<std::string> names;
  for (const ir::Graph& graph : module.graphs)
    for (const ir::FusionGroup& group : graph.groups)
      if (!group.split.empty() &&
          std::find(names.begin(), names.end(), rule_of(group)) == names.end())
        names.push_back(rule_of(group));
  if (names.empty()) return {};
  return fmt::format("batch mode splits no weight: it ignores the tp_dim of {}",
                     fmt::join(names, ", "));
}

std::vector<std::string> idle_splits_notes(const ir::Module& module) {
  std::vector<std::string> idle;
  std::set<std::string> busy;
  const auto fixed = fixed_splits(module);
  for (const auto& [at, split] : fixed) busy.insert(split.reason);
  for (const ir::Graph& graph : module.graphs)
    for (const ir::FusionGroup& group : graph.groups) {
      if (group.split.empty() || !busy.insert(rule_of(group)).second) continue;
      idle.push_back(rule_of(group) +
                     ": its tp_dim has no effect: what it matched holds no linear with a weight");
    }
  return idle;
}

}  // namespace shardwright::compiler
