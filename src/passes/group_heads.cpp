// group_heads.
#include "passes/group_heads.h"

#include "passes/rewrite.h"

namespace shardwright::passes {
namespace {

using ir::Graph;
using ir::kNoValue;
using ir::Node;
using ir::ValueId;

// Keys or values [b, h, s, d] whose heads repeat.
struct Repeated {
  ValueId heads = kNoValue;  // [b, h/r, s, d], or the same with a dimension of 1 after h/r
  int64_t times = 1;
  int group = -1;  // of the nodes that repeat
};

// expand([b, 1, s, d]), or reshape(expand([b, h/r, 1, s, d] to [b, h/r, r, s, d])).
Repeated find_repeated(const Graph& graph, Rewriter& rewriter, ValueId id) {
  const Shape& all = graph.type(id).shape;
  if (all.size() < 3) return {};
  const size_t head_dim = all.size() - 3;
  if (const Node* expand = rewriter.producer(id, "expand")) {
    Shape once = all;
    once[head_dim] = 1;
    const bool repeats = graph.type(expand->inputs[0]).shape == once;
    return repeats ? Repeated{expand->inputs[0], all[head_dim], expand->group} : Repeated();
  }
  const Node* reshape = rewriter.producer(id, "reshape");
  const Node* expand = reshape ? rewriter.producer(reshape->inputs[0], "expand") : nullptr;
  if (expand == nullptr) return {};
  const Shape& once = graph.type(expand->inputs[0]).shape;
  const Shape& many = graph.type(expand->outputs[0]).shape;
  if (once.size() != all.size() + 1 || once[head_dim + 1] != 1) return {};
  const int64_t times = many[head_dim + 1];
  Shape expected = once;
  expected[head_dim + 1] = times;
  Shape merged = once;
  merged.erase(merged.begin() + static_cast<std::ptrdiff_t>(head_dim) + 1);
  merged[head_dim] *= times;
  if (many != expected || merged != all) return {};
  return {expand->inputs[0], times, joint_group({expand->group, reshape->group})};
}

// Without the dimension of 1 after the heads.
ValueId drop_dim(Graph& graph, const Repeated& repeated, size_t ndim, int source) {
  Shape shape = graph.type(repeated.heads).shape;
  if (shape.size() == ndim) return repeated.heads;
  shape.erase(shape.begin() + static_cast<std::ptrdiff_t>(ndim) - 2);
  const ValueId id =
      ir::append(graph, *ops::find_op("reshape"), {repeated.heads}, {{"shape", shape}}, source);
  graph.nodes.back().group = repeated.group;
  return id;
}

}  // namespace

void group_heads(ir::Module&, Graph& graph) {
  Rewriter rewriter(graph);
  rewriter.run([&](const Node& node) {
    if (!is_op(node, "attention") || node.attrs.integer("group", 0) > 1) return;
    const Repeated key = find_repeated(graph, rewriter, node.inputs[1]);
    const Repeated value = find_repeated(graph, rewriter, node.inputs[2]);
    if (key.times <= 1 || key.times != value.times) return;
    const size_t ndim = graph.type(node.inputs[0]).shape.size();
    std::vector<ValueId> inputs = node.inputs;
    inputs[1] = drop_dim(graph, key, ndim, node.source);
    inputs[2] = drop_dim(graph, value, ndim, node.source);
    ops::Attrs attrs = node.attrs;
    attrs.set("group", key.times);
    const ValueId id =
        ir::append(graph, *node.op, std::move(inputs), std::move(attrs), node.source);
    graph.nodes.back().group = node.group;
    rewriter.replace(node.outputs[0], id);
  });
}

}  // namespace shardwright::passes
