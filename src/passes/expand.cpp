// expand: until no operator has an expansion.
#include "passes/expand.h"

#include "base/check.h"
#include "base/error.h"
#include "passes/expression.h"
#include "passes/rewrite.h"

namespace shardwright::passes {
namespace {

std::string expansion_of(const ir::Graph& graph, const ir::Node& node) {
  if (node.op->expansion != nullptr) return node.op->expansion;
  if (node.op->expansion_for == nullptr) return {};
  return node.op->expansion_for(node.attrs, graph.operand_types(node));
}

// One round; true if something was expanded.
bool expand_once(ir::Module& module, ir::Graph& graph) {
  bool expanded = false;
  Rewriter rewriter(graph);
  rewriter.run([&](const ir::Node& node) {
    try {
      const std::string text = expansion_of(graph, node);
      if (text.empty()) return;
      const size_t first_new = graph.nodes.size();
      const Built built = build(module, graph, text, operand_names(node), node.source);
      CHECK(built.results.size() == node.outputs.size(), graph.describe(node) + ": " + text);
      for (size_t i = first_new; i < graph.nodes.size(); ++i) graph.nodes[i].group = node.group;
      for (size_t i = 0; i < node.outputs.size(); ++i)
        rewriter.replace(node.outputs[i], built.results[i]);
      expanded = true;
    } catch (const Error& error) {
      throw error.within(graph.describe(node));
    }
  });
  return expanded;
}

}  // namespace

void expand(ir::Module& module, ir::Graph& graph) {
  constexpr int kMostRounds = 20;  // an expansion of itself would never end
  int rounds = 0;
  while (expand_once(module, graph))
    CHECK(++rounds < kMostRounds, "an operator expands into itself");
}

}  // namespace shardwright::passes
