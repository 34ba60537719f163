// Time of matching 40 fusion rules on a graph of 2,000 nodes: captured Llama layers one after the
// other, the built-in rules and those of docs/examples as often as it takes. The limit is 50 ms.
// Usage: rules_bench [rounds].
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "rules/graphs.h"

namespace shardwright::rules {
namespace {

constexpr double kLimitMs = 50;
constexpr size_t kNodes = 2000, kRules = 40;

// Copies of the graph, each reading what the one before gave instead of its embedding.
ir::Graph repeated(const ir::Graph& once, size_t n_nodes) {
  ir::Graph graph = once;
  while (graph.nodes.size() < n_nodes) {
    const auto offset = static_cast<ir::ValueId>(graph.values.size());
    const ir::ValueId hidden = graph.nodes[graph.nodes.size() - 2].outputs[0];
    graph.values.insert(graph.values.end(), once.values.begin(), once.values.end());
    std::vector<bool> made(once.values.size(), false);
    for (ir::Node node : once.nodes) {
      const bool embeds = std::string_view(node.op->name) == "embedding";
      for (ir::ValueId& id : node.inputs)
        if (id != ir::kNoValue && made[static_cast<size_t>(id)]) id += offset;
      for (ir::ValueId& id : node.outputs) {
        made[static_cast<size_t>(id)] = true;
        id += offset;
      }
      if (embeds) {
        node.op = ops::find_op("relu");
        node.inputs = {hidden};
      }
      graph.nodes.push_back(std::move(node));
    }
  }
  return graph;
}

RuleFile many_rules(size_t count) {
  RuleFile file = builtin_rules();
  const RuleFile example = read_rules(SHARDWRIGHT_TEST_DATA "/../docs/examples/llama2.yaml");
  file.rules.insert(file.rules.end(), example.rules.begin(), example.rules.end());
  for (size_t i = 0; file.rules.size() < count; ++i) file.rules.push_back(file.rules[i]);
  return file;
}

}  // namespace
}  // namespace shardwright::rules

int main(int argc, char** argv) {
  using namespace shardwright::rules;
  const int rounds = argc > 1 ? std::max(std::atoi(argv[1]), 1) : 15;
  const RuleFile file = many_rules(kRules);
  for (const char* name : {"llama_f32", "llama_bf16"}) {
    for (const size_t n_nodes : {kNodes, 4 * kNodes}) {
      const shardwright::ir::Graph graph = repeated(captured(name), n_nodes);
      std::vector<double> times;
      size_t matches = 0;
      for (int i = 0; i < rounds; ++i) {
        const auto begin = std::chrono::steady_clock::now();
        matches = match_rules(graph, file).all.size();
        const std::chrono::duration<double, std::milli> time =
            std::chrono::steady_clock::now() - begin;
        times.push_back(time.count());
      }
      std::sort(times.begin(), times.end());
      std::printf("%-10s %zu nodes, %zu rules, %zu matches: %6.2f ms median, %6.2f ms least", name,
                  graph.nodes.size(), file.rules.size(), matches, times[times.size() / 2],
                  times[0]);
      if (n_nodes == kNodes)
        std::printf(", %.2f of %g ms", times[times.size() / 2] / kLimitMs, kLimitMs);
      std::printf("\n");
    }
  }
}
