// Words for matches.
#include "rules/describe.h"

#include <algorithm>
#include <map>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace shardwright::rules {
namespace {

constexpr size_t kMostPaths = 6;  // that one line names

// The first component of a module path that is a number: where it stands, and which it is.
struct Numbered {
  size_t begin = std::string::npos;
  size_t end = 0;
  int number = -1;
};

Numbered find_number(const std::string& path) {
  for (size_t begin = 0; begin < path.size();) {
    const size_t end = std::min(path.find('.', begin), path.size());
    const std::string part = path.substr(begin, end - begin);
    if (!part.empty() && part.size() < 7 &&
        part.find_first_not_of("0123456789") == std::string::npos)
      return {begin, end, std::stoi(part)};
    begin = end + 1;
  }
  return {};
}

std::string path_of(const ir::Graph& graph, const ir::Node& node) {
  if (node.source < 0) return node.op->name;
  const std::string& path = graph.sources[static_cast<size_t>(node.source)].path;
  return path.empty() ? node.op->name : path;
}

std::string op_types_text(const PatternNode& node) {
  return fmt::format("{}", fmt::join(node.op_types, " or "));
}

std::string found_text(const ir::Graph& graph, const Miss& miss) {
  constexpr size_t kMost = 4;
  std::string text;
  for (size_t i = 0; i < std::min(kMost, miss.found.size()); ++i)
    text += (i > 0 ? "; " : "") + graph.describe(graph.nodes[static_cast<size_t>(miss.found[i])]);
  if (miss.found.size() > kMost) text += fmt::format("; and {} more", miss.found.size() - kMost);
  return text.empty() ? "nothing" : text;
}

}  // namespace

std::string ranges_text(std::vector<int> numbers) {
  std::sort(numbers.begin(), numbers.end());
  numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
  std::string text;
  for (size_t i = 0; i < numbers.size();) {
    size_t end = i + 1;
    while (end < numbers.size() && numbers[end] == numbers[end - 1] + 1) ++end;
    text += text.empty() ? "" : ", ";
    text += end - i == 1 ? std::to_string(numbers[i])
                         : fmt::format("{}-{}", numbers[i], numbers[end - 1]);
    i = end;
  }
  return text;
}

std::vector<Places> fold_places(const ir::Graph& graph, const std::vector<const Match*>& matches) {
  std::vector<Places> folded;
  std::vector<std::vector<int>> layers;
  std::map<std::string, size_t> known;
  for (const Match* match : matches) {
    std::vector<std::string> paths;
    int layer = -1;
    for (const ir::NodeId id : match->nodes) {
      std::string path = path_of(graph, graph.nodes[static_cast<size_t>(id)]);
      if (std::find(paths.begin(), paths.end(), path) != paths.end()) continue;
      const int number = find_number(path).number;
      if (number >= 0 && (layer < 0 || number < layer)) layer = number;
      paths.push_back(std::move(path));
    }
    for (std::string& path : paths) {
      const Numbered at = find_number(path);
      if (at.number < 0) continue;
      const std::string star = at.number == layer ? "*" : fmt::format("(*+{})", at.number - layer);
      path.replace(at.begin, at.end - at.begin, star);
    }
    const size_t more = paths.size() > kMostPaths ? paths.size() - kMostPaths : 0;
    paths.resize(paths.size() - more);
    std::string key = fmt::format("{}", fmt::join(paths, ", "));
    if (more > 0) key += fmt::format(" and {} more", more);
    const auto [entry, is_new] = known.emplace(key, folded.size());
    if (is_new) {
      folded.push_back({key, "", 0});
      layers.emplace_back();
    }
    ++folded[entry->second].count;
    if (layer >= 0) layers[entry->second].push_back(layer);
  }
  for (size_t i = 0; i < folded.size(); ++i)
    if (!layers[i].empty())
      folded[i].layers = (layers[i].size() == 1 ? "layer " : "layers ") + ranges_text(layers[i]);
  return folded;
}

std::string describe_miss(const ir::Graph& graph, const RuleFile& file, int rule,
                          const Miss& miss) {
  const std::vector<PatternNode>& nodes = file.rules[static_cast<size_t>(rule)].nodes;
  const PatternNode& wanted = nodes[static_cast<size_t>(miss.node)];
  const std::string what =
      fmt::format("{} ({}, {})", wanted.name, op_types_text(wanted), file.origin(wanted.place));
  if (miss.beside < 0) return fmt::format("nothing in the graph can be {}", what);
  const PatternNode& beside = nodes[static_cast<size_t>(miss.beside)];
  const std::string where = fmt::format("{} = {}", beside.name,
                                        graph.describe(graph.nodes[static_cast<size_t>(miss.at)]));
  const std::string found = found_text(graph, miss);
  const std::string most =
      fmt::format("the best attempt matched {} of {} nodes", miss.matched, nodes.size());
  if (miss.fits)
    return fmt::format("{}; {} was found beside {}, but without its other edges: there stood {}",
                       most, what, where, found);
  return miss.reads
             ? fmt::format("{}; {} should read the result of {}, where it is read by {}", most,
                           what, where, found)
             : fmt::format("{}; {} should be read by {}, which reads {}", most, what, where, found);
}

}  // namespace shardwright::rules
