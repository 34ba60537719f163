// What a compile decided, as JSON that goes into the PEF: `inspect`, `explain` and `test` read it.
#pragma once

#include <string>
#include <vector>

#include "compiler/decisions.h"
#include "ir/graph.h"
#include "plan/plan.h"
#include "shard/partition.h"
#include "shard/solve.h"

namespace shardwright::compiler {

// How one parameter is kept, and by which operator it is used.
struct WeightReport {
  std::string name;
  TensorType type;
  std::string state;     // "whole", "split(0)"
  std::string op;        // of its first reader: "linear", "embedding"
  std::string factor;    // of that operator's rule that is split: "m", "k", "v"; "" if none
  std::string who, why;  // decided it
  std::vector<int64_t> bytes_per_chip;
  std::vector<int64_t> rows_per_chip;  // along the split dimension; empty if whole
};

// A fusion group of the canonical graph and what the plan made of it.
struct GroupReport {
  std::string name, origin;          // as in ir::FusionGroup
  std::vector<std::string> members;  // "linear", in order
  std::string where;                 // of its first member: "model.layers.0.mlp.gate_proj"
  plan::GroupPlan plan;
};

struct GraphReport {
  std::string name;
  std::vector<ExchangeReport> exchanges;
  std::vector<WeightReport> weights;
  std::vector<GroupReport> groups;
  Decisions decisions;
  double modelled_seconds = 0;
};

struct PlanReport {
  int n_chips = 1;
  shard::Machine machine;  // that the modelled times are for
  std::vector<GraphReport> graphs;
};

PlanReport report_plan(const ir::Module& module, const std::vector<shard::Solution>& solutions,
                       const std::vector<std::vector<ir::Graph>>& local,
                       const plan::Planned& planned);

// One object: "schema_version", "module" (canonical text), "input_below" (integer inputs that index
// a table: its rows), "plans".
std::string to_json(const ir::Module& module, const std::vector<PlanReport>& plans);

}  // namespace shardwright::compiler
