// The table test's engine: one node under one strategy on n chips, alone. Operands are cut from
// true values, partial operands are random integer pieces that add up, and the results, put
// together, must be those of the whole run.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "ir/interpret.h"
#include "ops/exchange.h"
#include "ops/run_op.h"
#include "shard/strategies.h"

namespace shardwright::shard {

using Tensors = std::vector<std::optional<ops::RefTensor>>;
using Begins = std::vector<std::pair<std::string, int64_t>>;
// Runs a node on one chip.
using RunNode = std::function<std::vector<ops::RefTensor>(
    const ir::Node&, const Tensors&, const std::vector<TensorType>&, const Begins&)>;

inline std::vector<ops::RefTensor> run_reference_node(const ir::Node& node, const Tensors& operands,
                                                      const std::vector<TensorType>& results,
                                                      const Begins& begins) {
  std::vector<const ops::RefTensor*> pointers;
  for (const auto& operand : operands) pointers.push_back(operand ? &*operand : nullptr);
  std::vector<ops::RefTensor> out;
  for (const TensorType& type : results) out.emplace_back(type);
  node.op->reference({node.attrs, pointers, out, begins});
  return out;
}

inline std::vector<ops::RefTensor> run_kernel_node(const ir::Node& node, const Tensors& operands,
                                                   const std::vector<TensorType>& results,
                                                   const Begins& begins) {
  return ops::run_kernel(*node.op, node.attrs, operands, results, begins);
}

// Relative, of what the kernels of these dtypes may round.
inline double kernel_tolerance(const std::vector<ops::RefTensor>& results,
                               const Tensors& operands) {
  double tolerance = 1e-5;
  for (const auto& r : results) tolerance = std::max(tolerance, ops::tolerance_of(r.type.dtype));
  for (const auto& o : operands)
    if (o) tolerance = std::max(tolerance, ops::tolerance_of(o->type.dtype));
  return tolerance;
}

// What may be planted: the begins of each chip.
struct NodeHooks {
  std::function<void(Begins*)> begins;
};

struct NodeCase {
  const ir::Graph& graph;
  const ir::Node& node;
  const ops::Rule& rule;
  const Colours& colours;
  const Tensors& operands;                   // true values
  const std::vector<ops::RefTensor>& whole;  // true results
  double tolerance = 1e-9;                   // where values are not integers; relative
};

// The pieces of a value in a state.
inline std::vector<ops::RefTensor> cut_value(const NodeCase& c, ir::ValueId value,
                                             const ops::RefTensor& whole, const State& state,
                                             std::mt19937_64& random) {
  std::vector<ops::RefTensor> pieces;
  for (int chip = 0; chip < c.colours.n_chips; ++chip)
    pieces.push_back(ops::cut_piece(whole, piece_of(c.graph, value, state, c.colours, chip)));
  const bool adds = state == kPartialSum || (state.is_split() && state.variant == Variant::kSum);
  if (!adds) return pieces;
  // Every holder but the last gets a random part; the last what is left.
  ops::RefTensor left = whole;
  std::vector<int> last(left.data.size(), -1);
  const auto positions = [&](int chip) {
    ops::RefTensor index(whole.type);
    for (size_t i = 0; i < index.data.size(); ++i) index.data[i] = static_cast<double>(i);
    return ops::cut_piece(index, piece_of(c.graph, value, state, c.colours, chip)).data;
  };
  for (int chip = 0; chip < c.colours.n_chips; ++chip)
    for (const double at : positions(chip)) last[static_cast<size_t>(at)] = chip;
  for (int chip = 0; chip < c.colours.n_chips; ++chip) {
    const std::vector<double> at = positions(chip);
    for (size_t i = 0; i < at.size(); ++i) {
      const auto element = static_cast<size_t>(at[i]);
      double& piece = pieces[static_cast<size_t>(chip)].data[i];
      piece = last[element] == chip ? left.data[element] : static_cast<double>(random() % 9) - 4;
      left.data[element] -= piece;
    }
  }
  return pieces;
}

// `magnitude`: of what was added up to get there.
inline std::string compare(const ops::RefTensor& got, const ops::RefTensor& want, double tolerance,
                           double magnitude = 0) {
  const auto integral = [](double v) { return v == std::floor(v) && std::abs(v) < 1e15; };
  const bool exact = std::all_of(want.data.begin(), want.data.end(), integral);
  double scale = magnitude;
  for (const double v : want.data) scale = std::isfinite(v) ? std::max(scale, std::abs(v)) : scale;
  for (size_t i = 0; i < want.data.size(); ++i) {
    const double a = got.data[i], b = want.data[i];
    if (a == b || (std::isnan(a) && std::isnan(b))) continue;
    if ((!exact || tolerance > 1e-6) && std::abs(a - b) <= tolerance * std::max(scale, 1e-30))
      continue;
    return "element " + std::to_string(i) + " is " + std::to_string(a) + ", the whole run gives " +
           std::to_string(b);
  }
  return "";
}

// Runs the node on every chip. "" or what is wrong.
inline std::string check_strategy(const NodeCase& c, const Strategy& strategy, const RunNode& run,
                                  uint64_t seed, const NodeHooks& hooks = {}) {
  std::mt19937_64 random(seed);
  const int n = c.colours.n_chips;
  std::vector<std::vector<ops::RefTensor>> operands(c.node.inputs.size());
  for (size_t i = 0; i < c.node.inputs.size(); ++i)
    if (c.operands[i])
      operands[i] = cut_value(c, c.node.inputs[i], *c.operands[i], strategy.operands[i], random);

  std::vector<std::vector<ops::RefTensor>> results(c.node.outputs.size());
  try {
    for (int chip = 0; chip < n; ++chip) {
      Tensors local;
      for (const auto& pieces : operands)
        local.push_back(pieces.empty() ? std::nullopt
                                       : std::optional(pieces[static_cast<size_t>(chip)]));
      std::vector<TensorType> types;
      for (size_t i = 0; i < c.node.outputs.size(); ++i)
        types.push_back(
            local_type(c.graph, c.node.outputs[i], strategy.results[i], c.colours, chip));
      Begins begins = begins_of(c.graph, c.node, c.rule, strategy, c.colours, chip);
      if (hooks.begins) hooks.begins(&begins);
      std::vector<ops::RefTensor> out = run(c.node, local, types, begins);
      for (size_t i = 0; i < out.size(); ++i) results[i].push_back(std::move(out[i]));
    }
    for (size_t i = 0; i < results.size(); ++i) {
      const State& state = strategy.results[i];
      const bool adds =
          state == kPartialSum || (state.is_split() && state.variant == Variant::kSum);
      // Kernels round, so copies of theirs are compared with the whole run, not with each other.
      const ops::Combine combine = adds                   ? ops::Combine::kSum
                                   : state == kPartialMax ? ops::Combine::kMax
                                                          : ops::Combine::kCopy;
      std::vector<const ops::RefTensor*> pointers;
      std::vector<ops::Piece> pieces;
      for (int chip = 0; chip < n; ++chip) {
        pointers.push_back(&results[i][static_cast<size_t>(chip)]);
        pieces.push_back(piece_of(c.graph, c.node.outputs[i], state, c.colours, chip));
      }
      const ops::RefTensor joined =
          ops::join_pieces(c.whole[i].type, combine, pointers, pieces, "result");
      const std::string wrong = compare(joined, c.whole[i], c.tolerance, adds ? 4.0 * n : 0);
      if (!wrong.empty()) return "result " + std::to_string(i) + ": " + wrong;
    }
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// True values of all values of a graph.
inline std::vector<ops::RefTensor> all_values(const ir::Module& module, const ir::Graph& graph,
                                              const ir::RefMap& inputs) {
  std::vector<ops::RefTensor> values(graph.values.size());
  for (const ir::Input& input : graph.inputs)
    values[static_cast<size_t>(input.value)] =
        input.role == ir::InputRole::kUserInput
            ? inputs.at(input.name)
            : ir::to_ref(module.tensors[static_cast<size_t>(input.ref.tensor)].view());
  for (const ir::Node& node : graph.nodes) {
    std::vector<const ops::RefTensor*> operands;
    for (const ir::ValueId id : node.inputs)
      operands.push_back(id == ir::kNoValue ? nullptr : &values[static_cast<size_t>(id)]);
    std::vector<ops::RefTensor> results = ir::interpret_node(graph, node, operands);
    for (size_t i = 0; i < results.size(); ++i)
      values[static_cast<size_t>(node.outputs[i])] = std::move(results[i]);
  }
  return values;
}

// A graph of one node, with operands of small integers.
struct OneNode {
  ir::Graph graph;
  Tensors operands;
  std::vector<ops::RefTensor> whole;
};

inline OneNode one_node(const ops::OpDef& op, const ops::Sample& sample, uint64_t seed) {
  std::mt19937_64 random(seed);
  OneNode one;
  ir::Node node{.op = &op, .attrs = sample.attrs, .inputs = {}, .outputs = {}};
  for (size_t i = 0; i < sample.operands.size(); ++i) {
    if (!sample.operands[i]) {
      node.inputs.push_back(ir::kNoValue);
      one.operands.push_back(std::nullopt);
      continue;
    }
    const TensorType& type = *sample.operands[i];
    node.inputs.push_back(one.graph.add_value(type));
    one.graph.inputs.push_back(
        {node.inputs.back(), ir::InputRole::kUserInput, "x" + std::to_string(i), {}, {}});
    ops::RefTensor value(type);
    for (double& element : value.data) {
      // Not zero: some operators divide.
      const double magnitude = 1 + static_cast<double>(random() % 3);
      const int64_t below = sample.below[i];
      element = type.dtype == DType::kBool ? static_cast<double>(random() % 2)
                : below > 0 ? static_cast<double>(random() % static_cast<uint64_t>(below))
                            : (random() % 2 == 0 && type.dtype != DType::kU8 ? -1 : 1) * magnitude;
    }
    one.operands.push_back(std::move(value));
  }
  std::vector<TensorType> types = ops::infer_types(op, sample.attrs, sample.operands);
  for (const TensorType& type : types) node.outputs.push_back(one.graph.add_value(type));
  one.graph.nodes.push_back(node);
  one.whole = run_reference_node(node, one.operands, types, {});
  return one;
}

inline bool is_canonical(const ops::OpDef& op, const ops::Attrs& attrs,
                         ops::OperandTypes operands) {
  if (op.expansion != nullptr) return false;
  return op.expansion_for == nullptr || op.expansion_for(attrs, operands).empty();
}

}  // namespace shardwright::shard
