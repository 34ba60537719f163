// drop_noops.
#include "passes/drop_noops.h"

#include <algorithm>

#include "passes/constants.h"
#include "passes/rewrite.h"

namespace shardwright::passes {
namespace {

using ir::Graph;
using ir::kNoValue;
using ir::Module;
using ir::Node;
using ir::ValueId;

// Where the type does not change, neither do the elements.
constexpr std::string_view kSameIfTypeIs[] = {"clone", "cast",   "reshape",
                                              "slice", "expand", "zero_pad"};

bool is_identity_order(const std::vector<int64_t>& dims) {
  for (size_t i = 0; i < dims.size(); ++i)
    if (ops::normal_dim(dims[i], static_cast<int>(dims.size())) != static_cast<int>(i))
      return false;
  return true;
}

class Noops {
 public:
  Noops(Module& module, Graph& graph) : module_(module), graph_(graph), rewriter_(graph) {}

  void run() {
    rewriter_.run([&](const Node& node) {
      const ValueId same = operand_that_is_result(node);
      if (same != kNoValue && graph_.type(same) == graph_.type(node.outputs[0])) {
        rewriter_.replace(node.outputs[0], same);
      } else if (is_op(node, "reshape")) {
        merge_reshapes(node);
      } else if (is_op(node, "permute")) {
        merge_permutes(node);
      } else if (node.op->elementwise || is_op(node, "attention")) {
        drop_expands(node);
      }
    });
  }

 private:
  bool is_scalar(ValueId id, double value) const {
    return scalar_value(module_, graph_, id) == value;
  }

  // An operand with the result's elements (if its type is the result's), or kNoValue.
  ValueId operand_that_is_result(const Node& node) {
    const std::string_view op = node.op->name;
    const ValueId x = node.inputs.empty() ? kNoValue : node.inputs[0];
    if (std::find(std::begin(kSameIfTypeIs), std::end(kSameIfTypeIs), op) !=
        std::end(kSameIfTypeIs)) {
      if (op == "cast" && graph_.type(x) != graph_.type(node.outputs[0])) return widened(node);
      return x;
    }
    if (op == "detach") return has_loss(graph_) ? kNoValue : x;
    if (op == "permute") return is_identity_order(node.attrs.integers("dims")) ? x : kNoValue;
    if (op != "add" && op != "sub" && op != "mul" && op != "div") return kNoValue;
    const bool is_sum = op == "add" || op == "sub";
    if (is_sum && node.attrs.number("alpha", 1.0) != 1) return kNoValue;
    const double neutral = is_sum ? 0 : 1;
    if (is_scalar(node.inputs[1], neutral)) return x;
    const bool commutes = op == "add" || op == "mul";
    return commutes && is_scalar(x, neutral) ? node.inputs[1] : kNoValue;
  }

  // What a cast to f32 had before, if this casts back: no element changed.
  ValueId widened(const Node& node) {
    const Node* before = rewriter_.producer(node.inputs[0], "cast");
    if (before == nullptr) return kNoValue;
    const DType from = graph_.type(before->inputs[0]).dtype;
    const DType between = graph_.type(node.inputs[0]).dtype;
    const bool exact = is_floating(from) && dtype_bytes(from) == 2 &&
                       (between == DType::kF32 || between == DType::kF64);
    return exact ? before->inputs[0] : kNoValue;
  }

  void append(const Node& old, std::vector<ValueId> inputs, ops::Attrs attrs) {
    const ValueId id = ir::append(graph_, *old.op, std::move(inputs), std::move(attrs), old.source);
    graph_.nodes.back().group = old.group;
    rewriter_.replace(old.outputs[0], id);
  }

  void merge_reshapes(const Node& node) {
    const Node* before = rewriter_.producer(node.inputs[0], "reshape");
    if (before == nullptr) return;
    const ValueId x = before->inputs[0];
    if (graph_.type(x) == graph_.type(node.outputs[0])) {
      rewriter_.replace(node.outputs[0], x);
    } else {
      append(node, {x}, {{"shape", graph_.type(node.outputs[0]).shape}});
    }
  }

  void merge_permutes(const Node& node) {
    const Node* before = rewriter_.producer(node.inputs[0], "permute");
    if (before == nullptr) return;
    const std::vector<int64_t>& first = before->attrs.integers("dims");
    const auto ndim = static_cast<int>(first.size());
    std::vector<int64_t> dims;
    for (const int64_t dim : node.attrs.integers("dims"))
      dims.push_back(ops::normal_dim(first[static_cast<size_t>(ops::normal_dim(dim, ndim))], ndim));
    if (is_identity_order(dims)) {
      rewriter_.replace(node.outputs[0], before->inputs[0]);
    } else {
      append(node, {before->inputs[0]}, {{"dims", std::move(dims)}});
    }
  }

  // Operators that broadcast need no expanded operands, if another operand gives the shape.
  void drop_expands(const Node& node) {
    constexpr size_t kMask = 3;  // the only operand of attention that broadcasts
    std::vector<ValueId> inputs = node.inputs;
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (!node.op->elementwise && i != kMask) continue;
      const Node* before = rewriter_.producer(inputs[i], "expand");
      if (before == nullptr) continue;
      std::vector<ValueId> without = inputs;
      without[i] = before->inputs[0];
      Node changed = node;
      changed.inputs = without;
      const auto types = ops::infer_types(*node.op, node.attrs, graph_.operand_types(changed));
      if (types[0] == graph_.type(node.outputs[0])) inputs = std::move(without);
    }
    if (inputs != node.inputs) append(node, std::move(inputs), node.attrs);
  }

  Module& module_;
  Graph& graph_;
  Rewriter rewriter_;
};

}  // namespace

void drop_noops(Module& module, Graph& graph) { Noops(module, graph).run(); }

}  // namespace shardwright::passes
