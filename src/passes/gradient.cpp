// gradient: backwards over the nodes, adding up what flows into each value.
#include "passes/gradient.h"

#include <algorithm>
#include <set>

#include "base/check.h"
#include "base/error.h"
#include "passes/drop_noops.h"
#include "passes/expand.h"
#include "passes/expression.h"
#include "passes/fold_constants.h"
#include "passes/merge_common.h"
#include "passes/rewrite.h"

namespace shardwright::passes {
namespace {

using ir::kNoValue;
using ir::ValueId;

class Backward {
 public:
  Backward(ir::Module& module, ir::Graph& graph) : module_(module), graph_(graph) {}

  std::vector<ValueId> run(ValueId loss, const std::vector<ValueId>& wanted) {
    const size_t n_nodes = graph_.nodes.size();
    mark(wanted);
    flow_.assign(graph_.values.size(), kNoValue);
    flow_[index(loss)] = add_scalar(module_, graph_, graph_.type(loss).dtype, 1);
    for (size_t i = n_nodes; i-- > 0;) visit(ir::Node(graph_.nodes[i]));  // a copy: nodes move
    report_missing();
    std::vector<ValueId> gradients;
    for (const ValueId id : wanted) gradients.push_back(flow_[index(id)]);
    return gradients;
  }

 private:
  static size_t index(ValueId id) { return static_cast<size_t>(id); }
  bool is_marked(ValueId id) const { return id != kNoValue && marked_[index(id)]; }

  static bool is_constant(const ops::OpDef& op) { return op.gradient && *op.gradient == '\0'; }

  // Values that depend on a wanted one, by floating-point numbers alone.
  void mark(const std::vector<ValueId>& wanted) {
    marked_.assign(graph_.values.size(), false);
    for (const ValueId id : wanted) marked_[index(id)] = true;
    for (const ir::Node& node : graph_.nodes) {
      if (is_constant(*node.op)) continue;
      if (std::none_of(node.inputs.begin(), node.inputs.end(),
                       [&](ValueId id) { return is_marked(id); }))
        continue;
      for (const ValueId id : node.outputs)
        if (is_floating(graph_.type(id).dtype)) marked_[index(id)] = true;
    }
  }

  void visit(const ir::Node& node) {
    bool flows = false;
    for (const ValueId id : node.outputs) flows |= is_marked(id) && flow_[index(id)] != kNoValue;
    if (!flows) return;
    try {
      const std::string text = text_of(node);
      if (text.empty()) return void(missing_.insert(graph_.describe(node)));
      accumulate(node, build(module_, graph_, text, names_of(node), node.source).names);
    } catch (const Error& error) {
      throw error.within("gradient of " + graph_.describe(node));
    }
  }

  std::string text_of(const ir::Node& node) const {
    if (node.op->gradient != nullptr) return node.op->gradient;
    if (node.op->gradient_for == nullptr) return "";
    return node.op->gradient_for(node.attrs, graph_.operand_types(node));
  }

  // The operands, and y and dy (of several results the first: no operator here has more).
  Names names_of(const ir::Node& node) const {
    Names names = operand_names(node);
    CHECK(node.outputs.size() == 1, graph_.describe(node) + ": a gradient of several results");
    CHECK(!names.contains("y") && !names.contains("dy"), node.op->name);
    names["y"] = node.outputs[0];
    names["dy"] = flow_[index(node.outputs[0])];
    return names;
  }

  void accumulate(const ir::Node& node, const Names& built) {
    for (const auto& [name, id] : operand_names(node)) {
      if (!is_marked(id)) continue;
      const auto found = built.find("d" + name);
      if (found == built.end())
        throw Error(ErrorCode::kUnsupported,
                    "operand " + name + " is to be trained, but has no gradient yet");
      const ValueId part = fitted(found->second, graph_.type(id), node.source);
      ValueId& total = flow_[index(id)];
      total = total == kNoValue ? part : append("add", {total, part}, {}, node.source);
    }
  }

  // Added up over what was broadcast, in the operand's dtype.
  // `type` by value: appending moves the values.
  ValueId fitted(ValueId id, TensorType type, int source) {
    const Shape from = graph_.type(id).shape;
    const size_t leading = from.size() - type.shape.size();
    CHECK(from.size() >= type.shape.size());
    std::vector<int64_t> dims;
    for (size_t d = 0; d < from.size(); ++d)
      if (d < leading || (type.shape[d - leading] == 1 && from[d] != 1))
        dims.push_back(static_cast<int64_t>(d));
    if (!dims.empty()) id = append("sum", {id}, {{"dim", dims}, {"keepdim", false}}, source);
    if (graph_.type(id).shape != type.shape)
      id = append("reshape", {id}, {{"shape", type.shape}}, source);
    if (graph_.type(id).dtype != type.dtype)
      id = append("cast", {id}, {{"dtype", type.dtype}}, source);
    return id;
  }

  ValueId append(const char* op, std::vector<ValueId> inputs, ops::Attrs attrs, int source) {
    const ops::OpDef& def = *ops::find_op(op);
    ops::fill_defaults(def, &attrs);
    return ir::append(graph_, def, std::move(inputs), std::move(attrs), source);
  }

  void report_missing() const {
    if (missing_.empty()) return;
    std::string text;
    for (const std::string& node : missing_) text += "\n  " + node;
    throw Error(ErrorCode::kUnsupported,
                "training needs gradients of operators that have none yet:" + text +
                    "\nCompile with --inference, or freeze what lies before them "
                    "(requires_grad=False).");
  }

  ir::Module& module_;
  ir::Graph& graph_;
  std::vector<bool> marked_;   // by value of the forward graph
  std::vector<ValueId> flow_;  // the gradient so far
  std::set<std::string> missing_;
};

// A part of a trainable parameter.
bool is_trained(const ir::Module& module, const ir::Graph& graph, const ir::Input& input) {
  return input.role == ir::InputRole::kParameter &&
         module.tensors[static_cast<size_t>(input.ref.tensor)].trainable &&
         is_floating(graph.type(input.value).dtype);
}

void drop_detach(ir::Graph& graph) {
  Rewriter rewriter(graph);
  rewriter.run([&](const ir::Node& node) {
    if (is_op(node, "detach")) rewriter.replace(node.outputs[0], node.inputs[0]);
  });
}

}  // namespace

std::vector<ValueId> append_gradients(ir::Module& module, ir::Graph& graph, ValueId loss,
                                      const std::vector<ValueId>& wanted) {
  return Backward(module, graph).run(loss, wanted);
}

void gradient(ir::Module& module, ir::Graph& graph) {
  const auto loss = std::find_if(graph.outputs.begin(), graph.outputs.end(),
                                 [](const auto& o) { return o.role == ir::OutputRole::kLoss; });
  CHECK(loss != graph.outputs.end(), "graph " + graph.name + " has no loss");
  const TensorType& type = graph.type(loss->value);
  if (type.count() != 1 || !is_floating(type.dtype))
    throw Error(ErrorCode::kUsage, "the loss '" + loss->name + "' is " + to_string(type) +
                                       "; training needs one floating-point number: give its mean "
                                       "or sum");
  std::vector<ValueId> wanted;
  std::vector<std::string> names;
  for (const ir::Input& input : graph.inputs) {
    if (!is_trained(module, graph, input)) continue;
    wanted.push_back(input.value);
    names.push_back(input.name);
  }
  if (wanted.empty())
    throw Error(ErrorCode::kUsage,
                "nothing is to be trained: no parameter that the loss reads has "
                "requires_grad=True; compile with --inference, or set it");
  const std::vector<ValueId> gradients = append_gradients(module, graph, loss->value, wanted);
  for (size_t i = 0; i < wanted.size(); ++i)
    if (gradients[i] != kNoValue)
      graph.outputs.push_back({gradients[i], ir::OutputRole::kGradient, names[i]});
  drop_detach(graph);
  expand(module, graph);
  fold_constants(module, graph);
  drop_noops(module, graph);
  merge_common(module, graph);
}

}  // namespace shardwright::passes
