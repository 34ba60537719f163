// merge_common: a table of all nodes so far by their text.
#include "passes/merge_common.h"

#include <unordered_map>

#include "passes/rewrite.h"

namespace shardwright::passes {
namespace {

std::string key_of(const ir::Node& node) {
  std::string key = node.op->name;
  for (const auto& [name, attr] : node.attrs.entries())
    key += " " + name + "=" + ops::to_string(attr);
  for (const ir::ValueId id : node.inputs) key += " %" + std::to_string(id);
  return key;
}

}  // namespace

void merge_common(ir::Module&, ir::Graph& graph) {
  std::unordered_map<std::string, std::vector<ir::ValueId>> results;
  Rewriter rewriter(graph);
  rewriter.run([&](const ir::Node& node) {
    const auto [entry, is_new] = results.emplace(key_of(node), node.outputs);
    if (is_new) return;
    rewriter.join_group(entry->second[0], node.group);
    for (size_t i = 0; i < node.outputs.size(); ++i)
      rewriter.replace(node.outputs[i], entry->second[i]);
  });
}

}  // namespace shardwright::passes
