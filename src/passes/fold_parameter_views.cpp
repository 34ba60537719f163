// fold_parameter_views: by the operators' own view functions.
#include "passes/fold_parameter_views.h"

#include <algorithm>

#include "passes/constants.h"
#include "passes/refs.h"
#include "passes/rewrite.h"

namespace shardwright::passes {
namespace {

using ir::Graph;
using ir::Input;
using ir::Module;
using ir::Node;
using ir::TensorRef;
using ir::ValueId;

// The part of the logical tensor that the node's result is, or nothing if it must copy.
std::optional<TensorRef> ref_of_view(const Graph& graph, const Node& node, const Input& input) {
  const TensorType& from = graph.type(node.inputs[0]);
  const TensorType& to = graph.type(node.outputs[0]);
  ops::KernelSpec spec;
  spec.op = node.op;
  spec.attrs = &node.attrs;
  spec.operands.push_back({true, from, input.ref.strides, ops::Layout::kStrided});
  spec.results.push_back({true, to, {}, ops::Layout::kStrided});
  TensorRef ref = input.ref;
  int64_t offset = 0;
  if (!node.op->view(spec, input.ref.strides, &ref.strides, &offset)) return std::nullopt;
  ref.offset += offset;
  // A repeated parameter would be stored repeated.
  for (size_t d = 0; d < to.shape.size(); ++d)
    if (ref.strides[d] == 0 && to.shape[d] > 1) return std::nullopt;
  return ref;
}

void merge_equal_inputs(Rewriter& rewriter, Graph& graph) {
  for (size_t i = 0; i < graph.inputs.size(); ++i) {
    const Input& later = graph.inputs[i];
    if (later.role == ir::InputRole::kUserInput) continue;
    for (size_t j = 0; j < i; ++j) {
      const Input& first = graph.inputs[j];
      const bool equal = first.role == later.role && first.ref == later.ref &&
                         graph.type(first.value) == graph.type(later.value);
      if (!equal || rewriter.current(first.value) != first.value) continue;
      rewriter.replace(later.value, first.value);
      break;
    }
  }
}

}  // namespace

void fold_parameter_views(Module& module, Graph& graph) {
  const std::vector<bool> mutated = mutated_tensors(module);
  Rewriter rewriter(graph);
  merge_equal_inputs(rewriter, graph);
  rewriter.run([&](const Node& node) {
    if (node.op->view == nullptr || node.inputs.size() != 1) return;
    const Input* found = find_input(graph, node.inputs[0]);
    if (found == nullptr || found->role == ir::InputRole::kUserInput) return;
    const auto tensor = static_cast<size_t>(found->ref.tensor);
    if (tensor < mutated.size() && mutated[tensor]) return;
    if (const auto ref = ref_of_view(graph, node, *found)) {
      const ir::InputRole role = found->role;
      const TensorType type = graph.type(node.outputs[0]);
      rewriter.replace(node.outputs[0], input_for_ref(module, graph, role, *ref, type));
    }
  });
}

}  // namespace shardwright::passes
