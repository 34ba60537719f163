// fold_masks.
#include "passes/fold_masks.h"

#include <algorithm>
#include <cmath>

#include "ir/interpret.h"
#include "ops/build.h"
#include "passes/constants.h"
#include "passes/rewrite.h"

namespace shardwright::passes {
namespace {

using ir::kNoValue;
using ir::Node;
using ops::RefTensor;

constexpr size_t kMask = 3;  // operand of attention

enum class Sees : uint8_t { kAll, kCausal, kOther };

// An additive mask hides by the lowest number of its dtype, or minus infinity.
bool hides(DType dtype, double element) {
  if (dtype == DType::kBool) return element == 0;
  const double lowest = dtype == DType::kF16 ? -65504.0 : -3e38;
  return element <= lowest;
}

bool shows(DType dtype, double element) {
  return dtype == DType::kBool ? element != 0 : element == 0;
}

// Rows and columns of the scores as attention has them; the mask may have size 1 in either.
Sees classify(const RefTensor& mask, int64_t n_queries, int64_t n_keys) {
  const DType dtype = mask.type.dtype;
  if (std::all_of(mask.data.begin(), mask.data.end(),
                  [&](double element) { return shows(dtype, element); }))
    return Sees::kAll;
  const int ndim = mask.type.ndim();
  if (ndim < 2 || mask.size(ndim - 2) != n_queries || mask.size(ndim - 1) != n_keys)
    return Sees::kOther;
  for (size_t i = 0; i < mask.data.size(); ++i) {
    const auto position = static_cast<int64_t>(i);
    const int64_t key = position % n_keys;
    const int64_t query = position / n_keys % n_queries;
    if (key <= query ? !shows(dtype, mask.data[i]) : !hides(dtype, mask.data[i]))
      return Sees::kOther;
  }
  return Sees::kCausal;
}

// One row of each dimension along which all rows are equal.
RefTensor without_repeats(RefTensor mask) {
  for (size_t d = 0; d < mask.type.shape.size(); ++d) {
    if (mask.type.shape[d] <= 1) continue;
    TensorType type = mask.type;
    type.shape[d] = 1;
    const int64_t step = contiguous_strides(mask.type.shape)[d];
    const int64_t size = mask.type.shape[d];
    RefTensor first(type);
    bool equal = true;
    for (size_t i = 0; i < mask.data.size() && equal; ++i) {
      const auto position = static_cast<int64_t>(i);
      const int64_t row = position / step % size;
      equal = mask.data[i] == mask.data[static_cast<size_t>(position - row * step)];
      const int64_t to = position / (step * size) * step + position % step;
      if (row == 0) first.data[static_cast<size_t>(to)] = mask.data[i];
    }
    if (equal) mask = std::move(first);
  }
  return mask;
}

}  // namespace

void fold_masks(ir::Module& module, ir::Graph& graph) {
  const std::vector<bool> mutated = mutated_tensors(module);
  Rewriter rewriter(graph);
  rewriter.run([&](const Node& node) {
    if (!is_op(node, "attention") || node.inputs[kMask] == kNoValue) return;
    const ir::Input* input = find_constant(module, graph, mutated, node.inputs[kMask]);
    if (input == nullptr) return;
    const RefTensor mask = ir::read_ref(module.tensors[static_cast<size_t>(input->ref.tensor)],
                                        input->ref, graph.type(node.inputs[kMask]));
    const Shape& query = graph.type(node.inputs[0]).shape;
    const Shape& key = graph.type(node.inputs[1]).shape;
    const Sees sees = classify(mask, query[query.size() - 2], key[key.size() - 2]);
    Node changed = node;
    changed.inputs[kMask] = kNoValue;
    if (sees == Sees::kCausal) changed.attrs.set("is_causal", true);
    if (sees == Sees::kOther) {
      const RefTensor smaller = without_repeats(mask);
      if (smaller.type == mask.type) return;
      changed.inputs[kMask] = intern_constant(module, graph, smaller, "mask");
    }
    const ir::ValueId id = ir::append(graph, *node.op, changed.inputs, changed.attrs, node.source);
    graph.nodes.back().group = node.group;
    rewriter.replace(node.outputs[0], id);
  });
}

}  // namespace shardwright::passes
