// find_gelu: tries what a product with 1 + tanh(u) multiplies it with as x, and asks which
// polynomial in x u is.
#include "passes/find_gelu.h"

#include <array>
#include <cmath>

#include "passes/constants.h"
#include "passes/rewrite.h"

namespace shardwright::passes {
namespace {

using ir::Graph;
using ir::kNoValue;
using ir::Module;
using ir::Node;
using ir::ValueId;

using Polynomial = std::array<double, 4>;  // coefficients of 1, x, x^2, x^3

constexpr double kSqrt2OverPi = 0.79788456080286535588;
constexpr Polynomial kInner{0, kSqrt2OverPi, 0, kSqrt2OverPi * 0.044715};
// Of the constants, which may be written with 7 digits.
constexpr double kTolerance = 1e-6;

bool is_near(double value, double wanted) {
  return std::abs(value - wanted) <= kTolerance * std::abs(wanted);
}

class Finder {
 public:
  Finder(Module& module, Graph& graph) : module_(module), graph_(graph), rewriter_(graph) {}

  void run() {
    rewriter_.run([&](const Node& node) {
      if (is_op(node, "mul")) find(node);
    });
  }

 private:
  // A product of constants and one other value.
  struct Scaled {
    double factor = 1;
    ValueId value = kNoValue;
  };

  std::optional<double> scalar(ValueId id) const { return scalar_value(module_, graph_, id); }

  // The producer of `id`, whose group joins those of the gelu; null for an input.
  const Node* take(ValueId id) {
    const Node* node = rewriter_.producer(id);
    if (node != nullptr) groups_.push_back(node->group);
    return node;
  }

  // Which operand of a node of two is a constant of one element; -1 if none is.
  int scalar_operand(const Node& node) const {
    for (const int i : {0, 1})
      if (scalar(node.inputs[static_cast<size_t>(i)])) return i;
    return -1;
  }

  // Takes a factor off `scaled`; false if there is none.
  bool peel(Scaled* scaled) {
    const Node* node = rewriter_.producer(scaled->value, "mul");
    const int i = node == nullptr ? -1 : scalar_operand(*node);
    if (i < 0) return false;
    groups_.push_back(node->group);
    scaled->factor *= *scalar(node->inputs[static_cast<size_t>(i)]);
    scaled->value = node->inputs[static_cast<size_t>(1 - i)];
    return true;
  }

  static bool widens(DType from, DType to) {
    return is_floating(from) && is_floating(to) && dtype_bytes(from) <= dtype_bytes(to);
  }
  // What was cast to a type that holds all its values to give `id`, or `id`.
  ValueId before_cast(ValueId id) {
    const Node* node = rewriter_.producer(id, "cast");
    if (node == nullptr || !widens(graph_.type(node->inputs[0]).dtype, graph_.type(id).dtype))
      return id;
    groups_.push_back(node->group);
    return node->inputs[0];
  }

  static std::optional<Polynomial> product(const Polynomial& a, const Polynomial& b) {
    Polynomial result{};
    for (size_t i = 0; i < a.size(); ++i)
      for (size_t j = 0; j < b.size(); ++j) {
        if (a[i] * b[j] == 0) continue;
        if (i + j >= result.size()) return std::nullopt;
        result[i + j] += a[i] * b[j];
      }
    return result;
  }

  // `id` as a polynomial in x. `depth`: of operators that may still come; the longest way of
  // writing it has six, and shared values could be walked exponentially often.
  std::optional<Polynomial> polynomial(ValueId id, ValueId x, int depth = 8) {
    if (const auto value = scalar(id)) return Polynomial{*value};
    id = before_cast(id);
    if (id == x) return Polynomial{0, 1};
    const Node* node = depth == 0 ? nullptr : take(id);
    if (node == nullptr || node->inputs.size() != 2) return std::nullopt;
    const auto a = polynomial(node->inputs[0], x, depth - 1);
    if (!a) return std::nullopt;
    if (is_op(*node, "pow")) {
      const auto exponent = scalar(node->inputs[1]);
      if (exponent == 2.0) return product(*a, *a);
      const auto square = exponent == 3.0 ? product(*a, *a) : std::nullopt;
      return square ? product(*square, *a) : std::nullopt;
    }
    const auto b = polynomial(node->inputs[1], x, depth - 1);
    if (!b) return std::nullopt;
    if (is_op(*node, "mul")) return product(*a, *b);
    if (!is_op(*node, "add") || node->attrs.number("alpha", 1) != 1) return std::nullopt;
    Polynomial sum = *a;
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += (*b)[i];
    return sum;
  }

  // u for an id that is 1 + tanh(u).
  ValueId under_tanh(ValueId id) {
    const Node* sum = rewriter_.producer(before_cast(id), "add");
    const int i = sum == nullptr || sum->attrs.number("alpha", 1) != 1 ? -1 : scalar_operand(*sum);
    if (i < 0 || scalar(sum->inputs[static_cast<size_t>(i)]) != 1.0) return kNoValue;
    groups_.push_back(sum->group);
    const Node* tanh =
        rewriter_.producer(before_cast(sum->inputs[static_cast<size_t>(1 - i)]), "tanh");
    if (tanh == nullptr) return kNoValue;
    groups_.push_back(tanh->group);
    return tanh->inputs[0];
  }

  bool is_inner(ValueId id, ValueId x) {
    const auto u = polynomial(id, x);
    return u && std::equal(u->begin(), u->end(), kInner.begin(), is_near);
  }

  void find(const Node& node) {
    for (const size_t i : {0U, 1U}) {
      groups_ = {node.group};
      Scaled half{.factor = 1, .value = node.inputs[i]};
      ValueId gate = node.inputs[1 - i];
      if (const auto outer = scalar(half.value)) {  // all of it is halved in the end
        const Node* inner = rewriter_.producer(gate, "mul");
        if (inner == nullptr) continue;
        groups_.push_back(inner->group);
        for (const size_t j : {0U, 1U})
          if (replace(node, {*outer, inner->inputs[j]}, inner->inputs[1 - j])) return;
      } else if (replace(node, half, gate)) {
        return;
      }
    }
  }

  // `half` is 0.5 x, `gate` 1 + tanh(u).
  bool replace(const Node& node, Scaled half, ValueId gate) {
    const std::vector<int> outside = groups_;
    for (bool more = true; more; more = peel(&half)) {
      if (!is_near(half.factor, 0.5)) continue;
      const ValueId x = before_cast(half.value);
      const ValueId u = under_tanh(gate);
      const TensorType& result = graph_.type(node.outputs[0]);
      if (u == kNoValue || graph_.type(x).shape != result.shape ||
          !widens(graph_.type(x).dtype, result.dtype) || !is_inner(u, x))
        continue;
      const int group = joint_group(groups_);
      const ValueId wide = graph_.type(x).dtype == result.dtype
                               ? x
                               : append("cast", x, {{"dtype", result.dtype}}, group, node.source);
      rewriter_.replace(
          node.outputs[0],
          append("gelu", wide, {{"approximate", std::string("tanh")}}, group, node.source));
      return true;
    }
    groups_ = outside;
    return false;
  }

  ValueId append(const char* op, ValueId x, ops::Attrs attrs, int group, int source) {
    const ValueId id = ir::append(graph_, *ops::find_op(op), {x}, std::move(attrs), source);
    graph_.nodes.back().group = group;
    return id;
  }

  Module& module_;
  Graph& graph_;
  Rewriter rewriter_;
  std::vector<int> groups_;  // of the nodes that the gelu replaces
};

}  // namespace

void find_gelu(Module& module, Graph& graph) { Finder(module, graph).run(); }

}  // namespace shardwright::passes
