// All rules of a file on a graph: searches, then who gets what.
#include "rules/match.h"

#include <algorithm>
#include <numeric>
#include <set>

#include <fmt/format.h>

#include "rules/search.h"

namespace shardwright::rules {
namespace {

using ir::NodeId;

Match as_match(const Rule& rule, int index, Found found) {
  Match match;
  match.rule = index;
  for (size_t p = 0; p < rule.nodes.size(); ++p)
    if (found.at[p] >= 0 && rule.nodes[p].included) match.nodes.push_back(found.at[p]);
  std::sort(match.nodes.begin(), match.nodes.end());
  match.at = std::move(found.at);
  match.passed = std::move(found.passed);
  return match;
}

// Of the variants the first that matches: what an earlier one fused, no later one matches.
void match_rule(const GraphIndex& index, const RuleFile& file, int number, Matches* matches) {
  const Rule& rule = file.rules[static_cast<size_t>(number)];
  std::set<NodeId> taken;
  std::set<std::vector<NodeId>> seen;
  std::vector<Match> mine;
  std::optional<Miss> best;
  bool cut_off = false;
  for (const Variant& variant : rule.variants) {
    Search search(index, rule, variant);
    const size_t before = mine.size();
    for (Found& found : search.run()) {
      Match match = as_match(rule, number, std::move(found));
      const bool free = std::none_of(match.nodes.begin(), match.nodes.end(),
                                     [&](NodeId id) { return taken.contains(id); });
      if (free && seen.insert(match.nodes).second) mine.push_back(std::move(match));
    }
    for (size_t i = before; i < mine.size(); ++i)
      taken.insert(mine[i].nodes.begin(), mine[i].nodes.end());
    if (search.miss() && (!best || search.miss()->matched > best->matched)) best = search.miss();
    cut_off = cut_off || search.cut_off();
  }
  if (cut_off)
    matches->notes.push_back(fmt::format(
        "{} {}: too many ways to match; the search was cut off, some matches may be missing. Make "
        "optional nodes required, or name more of what is between",
        file.origin(rule), rule.name));
  std::sort(mine.begin(), mine.end(),
            [](const Match& a, const Match& b) { return a.nodes < b.nodes; });
  if (mine.empty()) matches->misses[static_cast<size_t>(number)] = best;
  matches->all.insert(matches->all.end(), std::make_move_iterator(mine.begin()),
                      std::make_move_iterator(mine.end()));
}

void resolve(const ir::Graph& graph, const RuleFile& file, std::vector<Match>* all) {
  std::vector<size_t> order(all->size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto priority = [&](size_t i) {
    return file.rules[static_cast<size_t>((*all)[i].rule)].priority;
  };
  // Stable: `all` is by rule, then by nodes.
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return priority(a) > priority(b); });
  std::vector<int> owner(graph.nodes.size(), -1);
  for (const size_t i : order) {
    Match& match = (*all)[i];
    for (const NodeId id : match.nodes)
      if (match.lost_to < 0) match.lost_to = owner[static_cast<size_t>(id)];
    if (match.lost_to >= 0) continue;
    for (const NodeId id : match.nodes) owner[static_cast<size_t>(id)] = static_cast<int>(i);
  }
}

}  // namespace

Matches match_rules(const ir::Graph& graph, const RuleFile& file) {
  const GraphIndex index(graph);
  Matches matches;
  matches.misses.resize(file.rules.size());
  for (size_t r = 0; r < file.rules.size(); ++r)
    match_rule(index, file, static_cast<int>(r), &matches);
  resolve(graph, file, &matches.all);
  return matches;
}

void mark(ir::Graph& graph, const RuleFile& file, const Matches& matches) {
  for (const Match& match : matches.all) {
    if (match.lost_to >= 0) continue;
    const Rule& rule = file.rules[static_cast<size_t>(match.rule)];
    const auto group = static_cast<int>(graph.groups.size());
    graph.groups.push_back({rule.name, file.origin(rule), rule.split});
    for (const NodeId id : match.nodes) graph.nodes[static_cast<size_t>(id)].group = group;
  }
  // What was passed through belongs to no match, unless it does to another one.
  int group = 0;
  for (const Match& match : matches.all) {
    if (match.lost_to >= 0) continue;
    for (const NodeId id : match.passed)
      if (graph.nodes[static_cast<size_t>(id)].group < 0)
        graph.nodes[static_cast<size_t>(id)].group = group;
    ++group;
  }
}

}  // namespace shardwright::rules
