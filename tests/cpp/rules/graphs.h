// Graphs and rules in a line, and captured graphs, for tests of matching.
#pragma once

#include <fstream>
#include <iterator>
#include <string>

#include "ir/text.h"
#include "rules/match.h"

namespace shardwright::rules {

// tests/data/imported/NAME.ir: what `compile --until imported --dump` wrote of a model of
// tests/python/zoo.py.
inline ir::Module captured_module(const std::string& name) {
  std::ifstream file(std::string(SHARDWRIGHT_TEST_DATA) + "/data/imported/" + name + ".ir");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  return ir::parse(text);
}
inline ir::Graph captured(const std::string& name) { return captured_module(name).graphs.at(0); }

// A graph over %x: f32[4, 4] and %w: f32[4, 4] whose nodes are `lines`; the last value is the
// output.
inline ir::Graph small_graph(const std::string& lines, const std::string& output) {
  return ir::parse(
             "tensor 0 \"w\": f32[4, 4] parameter\n"
             "graph forward {\n"
             "input %x: f32[4, 4] = user_input \"x\"\n"
             "input %w: f32[4, 4] = parameter \"w\" of 0 offset 0 strides [4, 1]\n" +
             lines + "output %" + output + " = user_output \"y\"\n}\n")
      .graphs.at(0);
}

// The names of the values that the included nodes of each match make: "a b", those that stand; "-"
// before those that lost.
inline std::vector<std::string> matched(const ir::Graph& graph, const RuleFile& file) {
  std::vector<std::string> found;
  for (const Match& match : match_rules(graph, file).all) {
    std::string text;
    for (const ir::NodeId id : match.nodes) {
      const ir::ValueId value = graph.nodes[static_cast<size_t>(id)].outputs[0];
      text += (text.empty() ? "" : " ") + graph.values[static_cast<size_t>(value)].name;
    }
    found.push_back((match.lost_to >= 0 ? "-" : "") + text);
  }
  return found;
}

inline std::vector<std::string> matched(const ir::Graph& graph, const std::string& pattern) {
  return matched(graph, parse_rules("r:\n  pattern:\n" + pattern, "rules.yaml"));
}

}  // namespace shardwright::rules
