// The cost model. Names no operator: what a node does follows from its rule.
#include "shard/cost.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace shardwright::shard {
namespace {

using ops::FactorKind;
using ops::Rule;

// A chain of elementwise operators runs as one loop over a tile that stays in cache; its tensors
// pass through memory once, not once an operator. Chains of four are typical.
constexpr double kFusedElementwise = 0.25;

bool in_operands(const Rule& rule, size_t operand, int factor) {
  return rule.present[operand] && rule.contains(rule.operands[operand], factor);
}

// Rows of this operand are picked by integers (embedding, pick): only the picked ones are read.
bool is_lookup(const ir::Graph& graph, const ir::Node& node, const Rule& rule, size_t operand) {
  std::vector<size_t> ids;
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    if (i == operand || node.inputs[i] == ir::kNoValue) continue;
    const DType dtype = graph.type(node.inputs[i]).dtype;
    if (dtype == DType::kI64 || dtype == DType::kI32) ids.push_back(i);
  }
  if (ids.empty()) return false;
  for (int f = 0; f < static_cast<int>(rule.factors.size()); ++f) {
    if (rule.factors[static_cast<size_t>(f)].kind != FactorKind::kSum ||
        !in_operands(rule, operand, f))
      continue;
    if (std::none_of(ids.begin(), ids.end(), [&](size_t i) { return in_operands(rule, i, f); }))
      return true;
  }
  return false;
}

double largest_bytes(const ir::Graph& graph, ir::ValueId value, const State& state,
                     const Colours& colours) {
  const TensorType& type = graph.type(value);
  const auto bytes = static_cast<double>(type.bytes());
  if (!state.is_split()) return bytes;
  return bytes * static_cast<double>(largest_piece(state_cuts(graph, value, state, colours))) /
         static_cast<double>(type.shape[static_cast<size_t>(state.dim)]);
}

// Of what is exchanged, as parts of the whole value.
struct Parts {
  double copies = 1;   // how often each row is held before
  double largest = 1;  // the largest piece afterwards
};

Parts parts_of(const Cuts& from, const Cuts& to, int64_t size) {
  Parts parts;
  if (!from.empty()) {
    parts.copies = 0;
    for (const Range& cut : from)
      parts.copies += static_cast<double>(cut.size()) / static_cast<double>(size);
  }
  if (!to.empty())
    parts.largest = static_cast<double>(largest_piece(to)) / static_cast<double>(size);
  return parts;
}

double transfer_seconds(Transfer transfer, double bytes, const Parts& parts, int n_chips,
                        const Machine& machine) {
  const double n = n_chips;
  const double a = machine.link_latency_s;
  const double b = bytes / machine.link_bytes_per_s;
  // Rows that several chips hold are sent once more to be added up.
  const double extra = b * (parts.copies - 1);
  switch (transfer) {
    case Transfer::kNone:
      return 0;
    case Transfer::kAllReduce:  // one shot, or reduce_scatter and all_gather
      return std::min(a + (n - 1) * b, 2 * a + 2 * (n - 1) / n * b);
    case Transfer::kReduceScatter:
    case Transfer::kAllGather:
      return a + (n - 1) / n * b + extra;
    case Transfer::kAllToAll:
      return a + (n - 1) / (n * n) * b + extra;
    case Transfer::kOverlapReduce:
      return a + extra;
    case Transfer::kRebalance:  // a chip copies its own rows too
      return a + b * parts.largest;
  }
  return 0;
}

}  // namespace

Cost cost_of_seconds(double seconds) {
  constexpr double kMost = 3.6e16;  // 2^55
  return static_cast<Cost>(std::min(std::round(seconds * 1e12) * kCostPerPicosecond, kMost));
}

double seconds_of(Cost cost) { return static_cast<double>(cost / kCostPerPicosecond) * 1e-12; }

bool is_gemm(const ir::Node& node, const Rule& rule) {
  if (node.op->elementwise) return false;
  for (int f = 0; f < static_cast<int>(rule.factors.size()); ++f) {
    int holders = 0, tensors = 0;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      if (node.inputs[i] == ir::kNoValue) continue;
      ++tensors;
      holders += in_operands(rule, i, f) ? 1 : 0;
    }
    if (rule.factors[static_cast<size_t>(f)].kind == FactorKind::kSum && tensors >= 2 &&
        holders >= 1)
      return true;
  }
  return false;
}

double node_seconds(const ir::Graph& graph, const ir::Node& node, const Rule& rule,
                    const Strategy& strategy, const Colours& colours, const Machine& machine,
                    const NodeContext& context) {
  if (node.op->view != nullptr || context.adds_gemm_result) return 0;
  double share = 1;
  if (strategy.factor >= 0) {
    const Cuts cuts = strategy_cuts(graph, node, rule, strategy, colours);
    share = static_cast<double>(largest_piece(cuts)) /
            static_cast<double>(rule.factors[static_cast<size_t>(strategy.factor)].size);
  }
  const double flops = ops::flops_of(*node.op, node.attrs, rule) * share;
  double bytes = 0;
  for (size_t i = 0; i < node.outputs.size(); ++i)
    bytes += largest_bytes(graph, node.outputs[i], strategy.results[i], colours);
  const double written = bytes;
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    if (node.inputs[i] == ir::kNoValue) continue;
    bytes += is_lookup(graph, node, rule, i)
                 ? written
                 : largest_bytes(graph, node.inputs[i], strategy.operands[i], colours);
  }
  const double seconds = std::max(flops / machine.flops_per_s, bytes / machine.bytes_per_s);
  return node.op->elementwise ? seconds * kFusedElementwise : seconds;
}

double conversion_seconds(const ir::Graph& graph, ir::ValueId value, const State& from,
                          const State& to, const Colours& colours, const Machine& machine) {
  const Conversion c = conversion(from, to);
  if (c.transfer == Transfer::kNone) return 0;
  const TensorType& type = graph.type(value);
  Parts parts;
  if (from.is_split()) {
    const bool adds = from.variant == Variant::kSum;
    const bool same_dim = c.reached.is_split() && c.reached.dim == from.dim;
    parts = parts_of(adds ? state_cuts(graph, value, from, colours) : Cuts(),
                     same_dim ? state_cuts(graph, value, c.reached, colours) : Cuts(),
                     type.shape[static_cast<size_t>(from.dim)]);
  }
  return transfer_seconds(c.transfer, static_cast<double>(type.bytes()), parts, colours.n_chips,
                          machine);
}

double exchange_seconds(const ops::Exchange& e, DType dtype, const Machine& machine) {
  const double bytes = static_cast<double>(element_count(e.shape) * dtype_bytes(dtype));
  Parts parts;
  if (e.from_dim >= 0)
    parts = parts_of(e.combine == ops::Combine::kSum ? e.from_cuts : Cuts(),
                     e.to_dim == e.from_dim ? e.to_cuts : Cuts(),
                     e.shape[static_cast<size_t>(e.from_dim)]);
  for (const Transfer transfer :
       {Transfer::kAllReduce, Transfer::kReduceScatter, Transfer::kAllGather, Transfer::kAllToAll,
        Transfer::kOverlapReduce, Transfer::kRebalance})
    if (e.kind == transfer_name(transfer))
      return transfer_seconds(transfer, bytes, parts, e.n, machine);
  CHECK(false, "no cost of " + e.kind);
}

}  // namespace shardwright::shard
