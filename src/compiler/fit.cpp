// Memory: the need of a plan against the limit, and remedies with numbers.
#include "compiler/fit.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>

#include <fmt/format.h>

#include "base/error.h"
#include "base/units.h"
#include "plan/plan.h"
#include "shard/partition.h"

namespace shardwright::compiler {
namespace {

constexpr int kMostChips = 64;  // beyond this we stop looking for a number of chips

struct Need {
  int64_t parameters = 0;
  int64_t arena = 0;
  int64_t total() const { return parameters + arena; }
};

// Of the chip that needs most; of all together where they share one memory.
Need need_of(const pef::Plan& plan, bool shared) {
  Need need;
  for (const pef::ChipPlan& chip : plan.chips) {
    if (shared) {
      need.parameters += chip.parameter_bytes;
      need.arena += chip.arena_bytes;
    } else if (chip.parameter_bytes + chip.arena_bytes > need.total()) {
      need = {chip.parameter_bytes, chip.arena_bytes};
    }
  }
  return need;
}

int64_t batch_of(const ir::Module& module) {
  for (const ir::Graph& graph : module.graphs)
    for (const ir::Input& input : graph.inputs)
      if (input.role == ir::InputRole::kUserInput && graph.type(input.value).ndim() > 0)
        return graph.type(input.value).shape[0];
  return 1;
}

bool fits(const ir::Module& module, const CompileOptions& options, shard::Mode mode, int n,
          int64_t limit) {
  const shard::SolveOptions solve_options{
      .mode = mode, .n_chips = n, .machine = options.machine, .fixed = {}};
  const auto solutions = shard::solve(module, solve_options);
  std::vector<std::vector<ir::Graph>> local;
  for (size_t g = 0; g < module.graphs.size(); ++g)
    local.push_back(shard::partition(module, module.graphs[g], solutions[g]));
  return need_of(plan::make_plan(module, local).plan, false).total() <= limit;
}

// "4 chips in weight mode hold it (...)": the smallest number of chips above `from`; "" if there is
// none up to kMostChips. Weight mode first: it splits what a model has most of.
std::string chips_that_fit(const ir::Module& module, const CompileOptions& options, int from,
                           int64_t limit) {
  for (int n = from + 1; n <= kMostChips; ++n)
    for (const shard::Mode mode : {shard::Mode::kWeight, shard::Mode::kBatch})
      if ((mode == shard::Mode::kWeight || n <= batch_of(module)) &&
          fits(module, options, mode, n, limit))
        return fmt::format("{} chips in {} mode hold it (--tensor-parallel {} --n-chips {})", n,
                           to_string(mode), to_string(mode), n);
  return "";
}

}  // namespace

int64_t machine_memory_bytes() {
  int64_t bytes = sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
  for (const char* path :
       {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    std::ifstream file(path);
    int64_t limit = 0;
    if (file >> limit && limit > 0) bytes = std::min(bytes, limit);
  }
  return bytes;
}

void check_fits(const ir::Module& module, const pef::Plan& plan, const CompileOptions& options) {
  const bool shared = options.machine.memory_bytes == 0;
  const int64_t limit = shared ? machine_memory_bytes() : options.machine.memory_bytes;
  const Need need = need_of(plan, shared);
  if (need.total() <= limit) return;
  const int64_t batch = batch_of(module);
  const int64_t per_sample = std::max<int64_t>(1, need.arena / std::max<int64_t>(batch, 1));
  const int64_t fitting_batch =
      need.parameters < limit ? (limit - need.parameters) / per_sample : 0;
  std::string remedy;
  if (fitting_batch >= 1)
    remedy = fmt::format("a batch of {} fits (-b {})", fitting_batch, fitting_batch);
  if (!shared) {
    const std::string more = chips_that_fit(module, options, plan.n_chips, limit);
    if (!more.empty()) remedy += (remedy.empty() ? "" : ", or ") + more;
  } else {
    remedy += fmt::format("{}a machine with {} of memory holds it", remedy.empty() ? "" : ", or ",
                          bytes_text(need.total()));
  }
  if (remedy.empty())
    remedy = fmt::format("not even {} chips hold it: give chips more memory (--chip-memory)",
                         kMostChips);
  throw Error(
      ErrorCode::kDoesNotFit,
      fmt::format("the model does not fit: {} {} {} (weights {}, activations and transfers {} at "
                  "batch {}), but the limit is {}; {}",
                  shared ? fmt::format("{} chips together", plan.n_chips) : "a chip",
                  shared ? "need" : "needs", bytes_text(need.total()), bytes_text(need.parameters),
                  bytes_text(need.arena), batch, bytes_text(limit), remedy));
}

}  // namespace shardwright::compiler
