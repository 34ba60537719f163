// Graph: building, names, producers and consumers.
#include "ir/graph.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace shardwright::ir {
namespace {

bool is_name_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '.';
}

bool has_name(const Graph& graph, const std::string& name) {
  return std::any_of(graph.values.begin(), graph.values.end(),
                     [&](const Value& value) { return value.name == name; });
}

// `name` with characters that the text form takes; with a number behind it if it is taken.
std::string unique_name(const Graph& graph, std::string name) {
  size_t number = graph.values.size();
  if (name.empty()) name = "v" + std::to_string(number++);
  for (char& c : name)
    if (!is_name_char(c)) c = '_';
  std::string unique = name;
  // The number of values first: counting up from 1 would be quadratic for common names.
  while (has_name(graph, unique)) unique = name + "_" + std::to_string(number++);
  return unique;
}

}  // namespace

ValueId Graph::add_value(TensorType type, std::string wanted) {
  values.push_back({unique_name(*this, std::move(wanted)), std::move(type)});
  return static_cast<ValueId>(values.size()) - 1;
}

std::vector<std::optional<TensorType>> Graph::operand_types(const Node& node) const {
  std::vector<std::optional<TensorType>> types;
  types.reserve(node.inputs.size());
  for (const ValueId id : node.inputs)
    types.push_back(id == kNoValue ? std::nullopt : std::optional<TensorType>(type(id)));
  return types;
}

std::vector<NodeId> Graph::producers() const {
  std::vector<NodeId> result(values.size(), -1);
  for (size_t i = 0; i < nodes.size(); ++i)
    for (const ValueId id : nodes[i].outputs)
      result[static_cast<size_t>(id)] = static_cast<NodeId>(i);
  return result;
}

std::vector<std::vector<NodeId>> Graph::consumers() const {
  std::vector<std::vector<NodeId>> result(values.size());
  for (size_t i = 0; i < nodes.size(); ++i) {
    for (const ValueId id : nodes[i].inputs) {
      if (id == kNoValue) continue;
      std::vector<NodeId>& readers = result[static_cast<size_t>(id)];
      const auto node = static_cast<NodeId>(i);
      if (readers.empty() || readers.back() != node) readers.push_back(node);
    }
  }
  return result;
}

std::string Graph::describe(const Node& node) const {
  const std::string op = node.op->name;
  if (node.source < 0) return op;
  const Source& source = sources[static_cast<size_t>(node.source)];
  std::string text = source.path.empty() ? op : source.path + " (" + op + ")";
  if (source.line > 0) text += ", " + source.file + ":" + std::to_string(source.line);
  return text;
}

TensorView LogicalTensor::view() const {
  CHECK(bytes.data != nullptr, name + " has no data");
  return {type, strides, bytes.data + offset * dtype_bytes(type.dtype)};
}

ValueId append(Graph& graph, const ops::OpDef& op, std::vector<ValueId> inputs, ops::Attrs attrs,
               int source) {
  ops::fill_defaults(op, &attrs);
  Node node{&op, std::move(attrs), std::move(inputs), {}, source};
  size_t operands = 0;
  for (const ops::Argument& argument : ops::arguments_of(op)) operands += argument.is_tensor();
  if (node.inputs.size() < operands) node.inputs.resize(operands, kNoValue);
  for (TensorType& type : ops::infer_types(op, node.attrs, graph.operand_types(node)))
    node.outputs.push_back(graph.add_value(std::move(type)));
  graph.nodes.push_back(std::move(node));
  return graph.nodes.back().outputs.front();
}

ValueId add_constant(Module& module, Graph& graph, TensorType type, SharedBytes bytes,
                     const std::string& name) {
  CHECK(bytes.size >= type.bytes(), "a constant's bytes are shorter than its type");
  const ValueId id = graph.add_value(type, name);
  Strides strides = contiguous_strides(type.shape);
  Input input{
      id, InputRole::kConstant, name, {static_cast<int>(module.tensors.size()), 0, strides}};
  graph.inputs.push_back(std::move(input));
  module.tensors.push_back({.name = name,
                            .other_names = {},
                            .type = std::move(type),
                            .role = InputRole::kConstant,
                            .trainable = false,
                            .bytes = std::move(bytes),
                            .offset = 0,
                            .strides = std::move(strides)});
  return id;
}

ValueId add_scalar(Module& module, Graph& graph, DType dtype, double value) {
  std::byte* data = nullptr;
  SharedBytes bytes = SharedBytes::allocate(dtype_bytes(dtype), &data);
  store_element(dtype, data, value);
  // One input for each scalar of a graph, however often it is asked for.
  for (const Input& input : graph.inputs) {
    if (input.role != InputRole::kConstant || graph.type(input.value) != TensorType{dtype, {}})
      continue;
    const LogicalTensor& tensor = module.tensors[static_cast<size_t>(input.ref.tensor)];
    if (!tensor.type.shape.empty() || tensor.bytes.data == nullptr) continue;
    if (std::memcmp(tensor.view().data, data, static_cast<size_t>(bytes.size)) == 0)
      return input.value;
  }
  std::string name = "scalar_" + std::to_string(module.tensors.size());
  return add_constant(module, graph, {dtype, {}}, std::move(bytes), name);
}

}  // namespace shardwright::ir
