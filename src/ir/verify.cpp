// The spec of each stage as CHECKs.
#include "ir/verify.h"

#include <set>

#include "base/check.h"
#include "ops/exchange.h"

namespace shardwright::ir {
namespace {

class Verifier {
 public:
  Verifier(const Module& module, const Graph& graph, Stage stage)
      : module_(module), graph_(graph), stage_(stage), defined_(graph.values.size(), false) {}

  void run() {
    std::set<std::string_view> names;
    for (const Value& value : graph_.values)
      CHECK(names.insert(value.name).second, where("value %" + value.name) + " occurs twice");
    std::set<std::string_view> input_names;
    for (const Input& input : graph_.inputs) {
      CHECK(input_names.insert(input.name).second, where("input " + input.name) + " occurs twice");
      check_input(input);
    }
    for (const Node& node : graph_.nodes) check_node(node);
    for (const Output& output : graph_.outputs) {
      const std::string what = where("output " + output.name);
      CHECK(is_defined(output.value), what + " has no value");
      check_piece(output.piece, output.value, what);
    }
  }

 private:
  std::string where(const std::string& what) const { return "graph " + graph_.name + ", " + what; }

  bool is_value(ValueId id) const {
    return id >= 0 && static_cast<size_t>(id) < graph_.values.size();
  }
  bool is_defined(ValueId id) const { return is_value(id) && defined_[static_cast<size_t>(id)]; }

  void define(ValueId id, const std::string& what) {
    CHECK(is_value(id), what + ": no such value");
    const std::string& name = graph_.values[static_cast<size_t>(id)].name;
    CHECK(!defined_[static_cast<size_t>(id)], what + ": %" + name + " is made twice");
    defined_[static_cast<size_t>(id)] = true;
  }

  void check_piece(const std::vector<Range>& piece, ValueId id, const std::string& what) const {
    if (stage_ != Stage::kLocal) {
      CHECK(piece.empty(), what + " has a piece, but the graph is global");
      return;
    }
    const Shape& shape = graph_.type(id).shape;
    CHECK(piece.size() == shape.size(), what + ": a range for each dimension");
    for (size_t d = 0; d < shape.size(); ++d)
      CHECK(piece[d].begin >= 0 && piece[d].size() == shape[d],
            what + ": the piece does not have the value's shape " + to_string(shape));
  }

  void check_input(const Input& input) {
    const std::string what = where("input " + input.name);
    define(input.value, what);
    const TensorType& type = graph_.type(input.value);
    if (stage_ != Stage::kLocal || input.role == InputRole::kUserInput)
      check_piece(input.piece, input.value, what);
    if (input.role == InputRole::kUserInput) return;
    CHECK(input.ref.tensor >= 0 && static_cast<size_t>(input.ref.tensor) < module_.tensors.size(),
          what + ": no such tensor");
    const LogicalTensor& tensor = module_.tensors[static_cast<size_t>(input.ref.tensor)];
    CHECK(tensor.type.dtype == type.dtype, what + ": dtype differs from the tensor's");
    CHECK(input.ref.strides.size() == type.shape.size(), what + ": a stride for each dimension");
    if (type.count() == 0) return;
    int64_t last = input.ref.offset;
    for (size_t d = 0; d < type.shape.size(); ++d) {
      CHECK(input.ref.strides[d] >= 0, what + ": a negative stride");
      last += (type.shape[d] - 1) * input.ref.strides[d];
    }
    CHECK(input.ref.offset >= 0 && last < tensor.type.count(), what + " lies outside its tensor");
  }

  void check_operands(const Node& node, const std::string& what) const {
    size_t least = 0, most = 0;
    for (const ops::Argument& argument : ops::arguments_of(*node.op)) {
      if (!argument.is_tensor()) continue;
      const bool is_list = argument.kind == ops::Argument::Kind::kTensors;
      if (!is_list && most < node.inputs.size() && argument.kind == ops::Argument::Kind::kTensor)
        CHECK(node.inputs[most] != kNoValue, what + ": operand " + argument.name + " is absent");
      most = is_list ? node.inputs.size() : most + 1;
      if (argument.kind != ops::Argument::Kind::kOptionalTensor) least = is_list ? least : most;
    }
    CHECK(node.inputs.size() >= least && node.inputs.size() <= most,
          what + " has " + std::to_string(node.inputs.size()) + " operands");
    for (const ValueId id : node.inputs)
      CHECK(id == kNoValue || is_defined(id), what + " reads a value that is not made before it");
  }

  void check_node(const Node& node) {
    CHECK(node.op != nullptr, where("a node without an operator"));
    const std::string what = where(graph_.describe(node));
    CHECK(node.source < static_cast<int>(graph_.sources.size()), what + ": no such source");
    CHECK(node.group < static_cast<int>(graph_.groups.size()), what + ": no such group");
    CHECK(!node.outputs.empty(), what + " has no result");
    check_operands(node, what);
    for (const ValueId id : node.outputs) define(id, what);
    if (stage_ == Stage::kLocal) {
      check_local(node, what);
      return;
    }
    CHECK(node.op != &ops::exchange, what + ": exchanges are for local graphs");
    CHECK(node.begins.empty(), what + ": begins are for local graphs");
    check_types(node, what);
    if (stage_ == Stage::kImported) return;
    const bool expands = node.op->expansion != nullptr ||
                         (node.op->expansion_for != nullptr &&
                          !node.op->expansion_for(node.attrs, graph_.operand_types(node)).empty());
    CHECK(!expands, what + " is not canonical: it has an expansion");
  }

  void check_types(const Node& node, const std::string& what) const {
    const auto types = ops::infer_types(*node.op, node.attrs, graph_.operand_types(node));
    CHECK(types.size() == node.outputs.size(), what + ": wrong number of results");
    for (size_t i = 0; i < types.size(); ++i)
      CHECK(types[i] == graph_.type(node.outputs[i]),
            what + ": result " + std::to_string(i) + " is " +
                to_string(graph_.type(node.outputs[i])) + ", its rule gives " +
                to_string(types[i]));
  }

  void check_local(const Node& node, const std::string& what) const {
    std::set<std::string_view> factors;
    for (const auto& [factor, begin] : node.begins)
      CHECK(begin >= 0 && factors.insert(factor).second, what + ": begin of " + factor);
    if (node.op != &ops::exchange) return;
    const ops::Exchange exchange = ops::exchange_of(node.attrs);
    const TensorType& before = graph_.type(node.inputs[0]);
    const TensorType& after = graph_.type(node.outputs[0]);
    CHECK(before.dtype == after.dtype, what + ": an exchange keeps the dtype");
    bool fits = false;  // the shapes are those of some chip
    for (int chip = 0; chip < exchange.n; ++chip)
      fits |= exchange.from_shape(chip) == before.shape && exchange.to_shape(chip) == after.shape;
    CHECK(fits, what + ": " + to_string(before) + " -> " + to_string(after) +
                    " are the pieces of no chip");
  }

  const Module& module_;
  const Graph& graph_;
  Stage stage_;
  std::vector<bool> defined_;
};

}  // namespace

void verify(const Module& module, const Graph& graph, Stage stage) {
  Verifier(module, graph, stage).run();
}

}  // namespace shardwright::ir
