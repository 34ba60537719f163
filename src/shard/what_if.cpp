// alternatives_of: one solve for each choice not taken.
#include "shard/what_if.h"

#include <algorithm>
#include <set>
#include <tuple>

namespace shardwright::shard {
namespace {

double seconds_of_all(const std::vector<Solution>& plan) {
  double sum = 0;
  for (const Solution& solution : plan) sum += solution.seconds;
  return sum;
}

// Of the chip that holds most; what several graphs or inputs share counts once.
int64_t weight_bytes_of(const ir::Module& module, const std::vector<Solution>& plan) {
  int64_t most = 0;
  for (int chip = 0; chip < plan[0].options.n_chips; ++chip) {
    int64_t bytes = 0;
    std::set<std::tuple<int, int64_t, State>> seen;
    for (size_t g = 0; g < module.graphs.size(); ++g)
      for (size_t i = 0; i < module.graphs[g].inputs.size(); ++i) {
        const ir::Input& input = module.graphs[g].inputs[i];
        const State& state = plan[g].inputs[i];
        if (input.role == ir::InputRole::kParameter &&
            seen.emplace(input.ref.tensor, input.ref.offset, state).second)
          bytes += local_type(module.graphs[g], input.value, state, plan[g].colours, chip).bytes();
      }
    most = std::max(most, bytes);
  }
  return most;
}

}  // namespace

std::vector<Alternative> alternatives_of(const ir::Module& module,
                                         const std::vector<Solution>& plan, int g, ir::NodeId id) {
  const Solution& solution = plan[static_cast<size_t>(g)];
  const ir::Graph& graph = module.graphs[static_cast<size_t>(g)];
  const ir::Node& node = graph.nodes[static_cast<size_t>(id)];
  const ops::Rule& rule = *solution.rules[static_cast<size_t>(id)];
  const int chosen = solution.strategies[static_cast<size_t>(id)].factor;
  const double seconds = seconds_of_all(plan);
  const int64_t weight_bytes = weight_bytes_of(module, plan);
  std::vector<Alternative> alternatives;
  for (int factor = -1; factor < static_cast<int>(rule.factors.size()); ++factor) {
    if (factor == chosen) continue;
    if (factor >= 0) {
      if (!rule.splittable(factor)) continue;
      const std::optional<Cuts> cuts = factor_cuts(graph, node, rule, factor, solution.colours);
      if (!cuts || count_pieces(*cuts) < 2) continue;
    }
    SolveOptions options = solution.options;
    options.what_if = {g, id, factor};
    const std::vector<Solution> other = solve(module, options);
    alternatives.push_back(
        {factor, seconds_of_all(other) - seconds, weight_bytes_of(module, other) - weight_bytes});
  }
  std::stable_sort(
      alternatives.begin(), alternatives.end(),
      [](const Alternative& a, const Alternative& b) { return a.seconds < b.seconds; });
  return alternatives;
}

}  // namespace shardwright::shard
