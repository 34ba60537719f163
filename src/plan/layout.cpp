// Layouts of values.
#include "plan/layout.h"

#include <algorithm>

namespace shardwright::plan {
namespace {

// All dimensions but the last are one row index with one stride.
bool is_rows(const Shape& shape, const Strides& strides) {
  int64_t expected = -1;  // stride of the next outer dimension
  for (size_t i = shape.size() - 1; i-- > 0;) {
    if (shape[i] == 1) continue;
    if (expected >= 0 && strides[i] != expected) return false;
    expected = strides[i] * shape[i];
  }
  return true;
}

// The permutation that a view is, found by showing it strides that tell its dimensions apart:
// result dimension i is operand dimension order[i]. Empty if it is none.
std::vector<int> permutation_of(const ir::Graph& graph, const ir::Node& node) {
  const Shape& shape = graph.type(node.inputs[0]).shape;
  const size_t ndim = shape.size();
  if (graph.type(node.outputs[0]).shape.size() != ndim || element_count(shape) == 0) return {};
  // Primes: no product or sum of a reshape hits another by chance.
  static constexpr int64_t kMarks[kMaxDims] = {1000003, 1000033, 1000037, 1000039,
                                               1000081, 1000099, 1000117, 1000121};
  const auto view = view_of(graph, node, Strides(kMarks, kMarks + ndim));
  if (!view || view->offset != 0) return {};
  std::vector<int> order;
  std::vector<bool> used(ndim, false);
  for (size_t i = 0; i < ndim; ++i) {
    const auto mark =
        static_cast<size_t>(std::find(kMarks, kMarks + ndim, view->strides[i]) - kMarks);
    if (mark == ndim || used[mark] || shape[mark] != graph.type(node.outputs[0]).shape[i])
      return {};
    used[mark] = true;
    order.push_back(static_cast<int>(mark));
  }
  return order;
}

}  // namespace

bool accepts(ops::Strided mode, const Shape& shape, const Strides& strides) {
  if (mode == ops::Strided::kAny || element_count(shape) == 0 || is_contiguous(shape, strides))
    return true;
  if (mode == ops::Strided::kNo) return false;
  if (shape.back() != 1 && strides.back() != 1) return false;
  return mode == ops::Strided::kLast || is_rows(shape, strides);
}

std::optional<ViewResult> view_of(const ir::Graph& graph, const ir::Node& node, const Strides& in) {
  if (node.op->view == nullptr) return std::nullopt;
  ops::KernelSpec spec;
  spec.op = node.op;
  spec.attrs = &node.attrs;
  spec.begins = node.begins;
  for (ir::ValueId id : node.inputs) {
    ops::OperandSpec operand;
    operand.present = id != ir::kNoValue;
    if (operand.present) {
      operand.type = graph.type(id);
      operand.strides = id == node.inputs[0] ? in : contiguous_strides(operand.type.shape);
    }
    spec.operands.push_back(std::move(operand));
  }
  for (ir::ValueId id : node.outputs)
    spec.results.push_back(
        {true, graph.type(id), contiguous_strides(graph.type(id).shape), ops::Layout::kStrided});
  ViewResult result;
  if (!node.op->view(spec, in, &result.strides, &result.offset)) return std::nullopt;
  return result;
}

std::vector<Strides> wanted_layouts(const ir::Graph& graph) {
  std::vector<Strides> wanted;
  for (const ir::Value& value : graph.values)
    wanted.push_back(contiguous_strides(value.type.shape));
  const auto producers = graph.producers();
  const auto consumers = graph.consumers();
  // Consumers first: a chain of views asks from its end.
  for (size_t n = graph.nodes.size(); n-- > 0;) {
    const ir::Node& node = graph.nodes[n];
    if (node.op->view == nullptr) continue;
    const auto from = static_cast<size_t>(node.inputs[0]);
    if (consumers[from].size() != 1 || producers[from] < 0) continue;
    const std::vector<int> order = permutation_of(graph, node);
    if (order.empty()) continue;
    Strides strides(order.size());
    for (size_t i = 0; i < order.size(); ++i)
      strides[static_cast<size_t>(order[i])] = wanted[static_cast<size_t>(node.outputs[0])][i];
    const ir::Node& producer = graph.nodes[static_cast<size_t>(producers[from])];
    const bool can =
        producer.op->view != nullptr ||
        accepts(producer.op->result_strides, graph.type(node.inputs[0]).shape, strides);
    if (can) wanted[from] = std::move(strides);
  }
  return wanted;
}

}  // namespace shardwright::plan
