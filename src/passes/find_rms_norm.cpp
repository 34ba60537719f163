// find_rms_norm: grows from the inner product outwards, one node of the graph at a time.
#include "passes/find_rms_norm.h"

#include <cmath>
#include <map>

#include "passes/constants.h"
#include "passes/rewrite.h"

namespace shardwright::passes {
namespace {

using ir::Graph;
using ir::kNoValue;
using ir::Module;
using ir::Node;
using ir::ValueId;

class Finder {
 public:
  Finder(Module& module, Graph& graph) : module_(module), graph_(graph), rewriter_(graph) {}

  void run() {
    rewriter_.run([&](const Node& node) {
      if (is_op(node, "cast")) {
        absorb_casts(node);
      } else if (is_op(node, "mul")) {
        for (const size_t i : {0U, 1U})
          if (normalise(node, node.inputs[i], node.inputs[1 - i]) ||
              weigh(node, node.inputs[i], node.inputs[1 - i]))
            return;
      }
    });
  }

 private:
  std::optional<double> scalar(ValueId id) const { return scalar_value(module_, graph_, id); }

  bool has_scalar(ValueId id, double value) const {
    const auto found = scalar(id);
    return found && std::abs(*found - value) <= 1e-6 * std::abs(value);
  }

  std::vector<int> members_of(ValueId id, const Node& norm) const {
    const auto found = members_.find(id);
    return found == members_.end() ? std::vector<int>{norm.group} : found->second;
  }

  // x for an id that is x * x.
  ValueId square_root(ValueId id) {
    const Node* node = rewriter_.producer(id);
    if (node == nullptr) return kNoValue;
    const bool is_square = is_op(*node, "square") ||
                           (is_op(*node, "mul") && node->inputs[0] == node->inputs[1]) ||
                           (is_op(*node, "pow") && scalar(node->inputs[1]) == 2.0);
    if (!is_square) return kNoValue;
    groups_.push_back(node->group);
    return node->inputs[0];
  }

  // x for an id that is the mean of x over the last dimension, kept with size 1.
  ValueId averaged(ValueId id) {
    const Node* node = rewriter_.producer(id);
    if (node == nullptr || node->inputs.size() != 2) return kNoValue;
    for (const size_t i : {0U, 1U}) {
      const Node* sum = rewriter_.producer(node->inputs[i], "sum");
      if (sum == nullptr || !sum->attrs.has("dim") || !sum->attrs.boolean("keepdim", false))
        continue;
      const TensorType& type = graph_.type(sum->inputs[0]);
      const std::vector<int64_t>& dims = sum->attrs.integers("dim");
      if (dims.size() != 1 || ops::normal_dim(dims[0], type.ndim()) != type.ndim() - 1) continue;
      const auto count = static_cast<double>(type.shape.back());
      const ValueId other = node->inputs[1 - i];
      const bool divided = is_op(*node, "div") && i == 0 && has_scalar(other, count);
      if (!divided && (!is_op(*node, "mul") || !has_scalar(other, 1 / count))) continue;
      groups_.insert(groups_.end(), {node->group, sum->group});
      return sum->inputs[0];
    }
    return kNoValue;
  }

  // The argument of 1 / sqrt.
  ValueId under_root(ValueId id) {
    const Node* node = rewriter_.producer(id);
    if (node == nullptr) return kNoValue;
    const bool is_root =
        is_op(*node, "rsqrt") || (is_op(*node, "pow") && scalar(node->inputs[1]) == -0.5);
    if (!is_root) return kNoValue;
    groups_.push_back(node->group);
    return node->inputs[0];
  }

  void replace(const Node& old, ValueId x, ValueId weight, ops::Attrs attrs) {
    const ValueId id =
        ir::append(graph_, *ops::find_op("rms_norm"), {x, weight}, std::move(attrs), old.source);
    groups_.push_back(old.group);
    graph_.nodes.back().group = joint_group(groups_);
    members_[id] = groups_;
    rewriter_.replace(old.outputs[0], id);
  }

  // x * rsqrt(mean(x * x) + eps) -> rms_norm(x)
  bool normalise(const Node& node, ValueId x, ValueId root) {
    groups_.clear();
    const Node* sum = rewriter_.producer(under_root(root), "add");
    if (sum == nullptr) return false;
    groups_.push_back(sum->group);
    for (const size_t i : {0U, 1U}) {
      const auto eps = scalar(sum->inputs[1 - i]);
      const ValueId mean = sum->inputs[i];
      if (!eps || square_root(averaged(mean)) != x) continue;
      // In 16 bits the square would have been rounded, which rms_norm does not do.
      if (graph_.type(mean).dtype != graph_.type(x).dtype ||
          graph_.type(node.outputs[0]) != graph_.type(x) || dtype_bytes(graph_.type(x).dtype) < 4)
        continue;
      replace(node, x, kNoValue, {{"eps", *eps}});
      return true;
    }
    return false;
  }

  // weight * rms_norm(x) -> rms_norm(x, weight)
  bool weigh(const Node& node, ValueId normal, ValueId weight) {
    const Node* norm = rewriter_.producer(normal, "rms_norm");
    if (norm == nullptr || norm->inputs[1] != kNoValue) return false;
    const TensorType& type = graph_.type(normal);
    if (graph_.type(node.outputs[0]) != type ||
        graph_.type(weight).shape != Shape{type.shape.back()})
      return false;
    groups_ = members_of(normal, *norm);
    ops::Attrs attrs = norm->attrs;
    const ValueId x = norm->inputs[0];
    attrs.set("round_before_weight", dtype_bytes(type.dtype) < 4);
    if (const Node* sum = rewriter_.producer(weight, "add")) {
      for (const size_t i : {0U, 1U}) {
        const ValueId rest = sum->inputs[i];
        if (scalar(sum->inputs[1 - i]) != 1.0 || graph_.type(rest) != graph_.type(weight)) continue;
        attrs.set("weight_plus_one", true);
        weight = rest;
        break;
      }
    }
    replace(node, x, widened_from(weight), std::move(attrs));
    return true;
  }

  // What was cast to a wider type to give `id`, or `id`.
  ValueId widened_from(ValueId id) {
    const Node* cast = rewriter_.producer(id, "cast");
    if (cast == nullptr || graph_.type(id).dtype != DType::kF32) return id;
    const DType from = graph_.type(cast->inputs[0]).dtype;
    return is_floating(from) && dtype_bytes(from) == 2 ? cast->inputs[0] : id;
  }

  // cast(rms_norm(cast(x))) -> rms_norm(x), which computes in f32 by itself
  void absorb_casts(const Node& node) {
    const Node* norm = rewriter_.producer(node.inputs[0], "rms_norm");
    if (norm == nullptr) return;
    groups_ = members_of(node.inputs[0], *norm);
    const ops::Attrs attrs = norm->attrs;
    const ValueId weight = norm->inputs[1];
    const ValueId x = widened_from(norm->inputs[0]);
    if (graph_.type(x) != graph_.type(node.outputs[0])) return;
    replace(node, x, weight, attrs);
  }

  Module& module_;
  Graph& graph_;
  Rewriter rewriter_;
  std::vector<int> groups_;                      // of the nodes that the norm replaces
  std::map<ValueId, std::vector<int>> members_;  // the same, of norms made so far
};

}  // namespace

void find_rms_norm(Module& module, Graph& graph) { Finder(module, graph).run(); }

}  // namespace shardwright::passes
