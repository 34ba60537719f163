// The order of the passes, and why.
#include "passes/canonicalize.h"

#include "ir/verify.h"
#include "passes/drop_noops.h"
#include "passes/drop_unused.h"
#include "passes/expand.h"
#include "passes/find_gelu.h"
#include "passes/find_rms_norm.h"
#include "passes/fold_constants.h"
#include "passes/fold_masks.h"
#include "passes/fold_parameter_views.h"
#include "passes/group_heads.h"
#include "passes/merge_common.h"
#include "passes/split_linear.h"

namespace shardwright::passes {

const std::vector<Pass>& canonical_passes() {
  static const std::vector<Pass> passes{
      {"drop_unused", drop_unused},
      // First, so that all others see few operators in one form each.
      {"expand", expand},
      // Before folding: an expanded mask is folded small.
      {"drop_noops", drop_noops},
      {"fold_constants", fold_constants},
      // Constants that turned out to be 0 or 1.
      {"drop_noops", drop_noops},
      {"fold_parameter_views", fold_parameter_views},
      {"fold_masks", fold_masks},
      {"group_heads", group_heads},
      {"find_rms_norm", find_rms_norm},
      {"find_gelu", find_gelu},
      // After parameter views, because it cuts parameters; before merging, because it repeats.
      {"split_linear", split_linear},
      {"drop_noops", drop_noops},
      {"merge_common", merge_common},
  };
  return passes;
}

void drop_unused_tensors(ir::Module& module) {
  std::vector<int> renumbered(module.tensors.size(), -1);
  for (const ir::Graph& graph : module.graphs)
    for (const ir::Input& input : graph.inputs)
      if (input.role != ir::InputRole::kUserInput)
        renumbered[static_cast<size_t>(input.ref.tensor)] = 0;
  std::vector<ir::LogicalTensor> kept;
  for (size_t i = 0; i < renumbered.size(); ++i) {
    if (renumbered[i] < 0) continue;
    renumbered[i] = static_cast<int>(kept.size());
    kept.push_back(std::move(module.tensors[i]));
  }
  module.tensors = std::move(kept);
  for (ir::Graph& graph : module.graphs)
    for (ir::Input& input : graph.inputs)
      if (input.role != ir::InputRole::kUserInput)
        input.ref.tensor = renumbered[static_cast<size_t>(input.ref.tensor)];
}

void canonicalize(ir::Module& module) {
  for (ir::Graph& graph : module.graphs) {
    ir::verify(module, graph, ir::Stage::kImported);
    for (const Pass& pass : canonical_passes()) {
      pass.run(module, graph);
      ir::verify(module, graph, ir::Stage::kImported);
    }
    ir::verify(module, graph, ir::Stage::kCanonical);
  }
  drop_unused_tensors(module);
}

}  // namespace shardwright::passes
