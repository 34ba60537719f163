// check_supported.
#include "passes/check_supported.h"

#include <map>

#include "base/error.h"

namespace shardwright::passes {

void check_supported(const ir::Graph& graph) {
  struct Missing {
    int count = 0;
    std::string first;
  };
  std::map<std::string, Missing> missing;
  for (const ir::Node& node : graph.nodes) {
    if (node.op->make_kernel != nullptr) continue;
    Missing& entry = missing[node.op->name];
    if (entry.count++ == 0) entry.first = graph.describe(node);
  }
  if (missing.empty()) return;
  std::string text = "graph " + graph.name + " uses " + std::to_string(missing.size()) +
                     (missing.size() > 1 ? " operators" : " operator") +
                     " that can only be computed on constants:";
  for (const auto& [name, entry] : missing)
    text += "\n  " + name + " (" + std::to_string(entry.count) +
            (entry.count > 1 ? " times" : " time") + "), first in " + entry.first;
  text += "\nExpress them by supported operators (docs/ops.md lists these) and capture again.";
  throw Error(ErrorCode::kUnsupported, text);
}

}  // namespace shardwright::passes
