// From local graphs to programs: pieces, steps, arena, barriers.
#include "plan/plan.h"

#include <algorithm>

#include "base/check.h"
#include "plan/arena.h"
#include "plan/graph_planner.h"
#include "plan/outputs.h"
#include "plan/pieces.h"
#include "plan/schedule.h"

namespace shardwright::plan {

Planned make_plan(const ir::Module& module, const std::vector<std::vector<ir::Graph>>& local,
                  pef::WhyNotFused why_not_fused) {
  CHECK(!local.empty() && local.size() == module.graphs.size());
  const size_t n_chips = local[0].size();
  const Pieces pieces(module, local);
  Planned planned;
  pef::Plan& plan = planned.plan;
  plan.n_chips = static_cast<int>(n_chips);
  plan.mode = "none";
  plan.chips.resize(n_chips);
  for (size_t c = 0; c < n_chips; ++c) {
    plan.chips[c].pieces = pieces.of_chip(c);
    plan.chips[c].parameter_bytes = pieces.bytes(c);
  }
  for (size_t g = 0; g < local.size(); ++g) {
    CHECK(local[g].size() == n_chips);
    std::vector<ir::Graph> chips = local[g];
    bring_groups_together(chips);
    GraphPlan graph = GraphPlanner(module.graphs[g], chips, pieces.of_graph(g)).plan();
    std::vector<const std::vector<pef::Piece>*> of_chips;
    for (size_t c = 0; c < n_chips; ++c) of_chips.push_back(&pieces.of_chip(c));
    planned.groups.push_back(merge_groups(graph, chips[0].groups.size(), of_chips, why_not_fused));
    for (const auto& steps : graph.steps) find_lifetimes(steps, graph.storages);
    share_in_place(graph.steps, graph.storages);
    for (size_t c = 0; c < n_chips; ++c) {
      pef::ChipPlan& chip = plan.chips[c];
      pef::Program program;
      program.steps = std::move(graph.steps[c]);
      const ArenaUse use = place_storages(graph.storages, c, program.steps);
      drop_barriers(program.steps);
      program.arena_bytes = use.arena_bytes;
      chip.arena_bytes = std::max(chip.arena_bytes, use.arena_bytes);
      chip.transfer_bytes = std::max(chip.transfer_bytes, use.transfer_bytes);
      chip.programs.push_back(std::move(program));
    }
  }
  return planned;
}

std::vector<pef::Tensor> tensors_of(const ir::Module& module) {
  std::vector<pef::Tensor> tensors;
  for (const ir::LogicalTensor& tensor : module.tensors)
    tensors.push_back({.name = tensor.name,
                       .other_names = tensor.other_names,
                       .type = tensor.type,
                       .trainable = tensor.trainable,
                       .constant = tensor.role == ir::InputRole::kConstant});
  return tensors;
}

pef::GraphSignature signature_of(const ir::Graph& global) {
  pef::GraphSignature signature{.name = global.name, .inputs = {}, .outputs = {}};
  for (const ir::Input& input : global.inputs)
    if (input.role == ir::InputRole::kUserInput)
      signature.inputs.push_back({input.name, global.type(input.value)});
  for (const ir::Output& output : global.outputs)
    if (is_users(output)) signature.outputs.push_back({output.name, global.type(output.value)});
  return signature;
}

}  // namespace shardwright::plan
