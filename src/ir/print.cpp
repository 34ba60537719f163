// The text form: printing.
#include <cstring>

#include "ir/text.h"

namespace shardwright::ir {
namespace {

using ops::Attr;
using ops::to_string;

std::string quoted(const std::string& text) { return to_string(Attr(text)); }

std::string joined(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : ", ") + part;
  return text;
}

std::string value_name(const Graph& graph, ValueId id) {
  return id == kNoValue ? "-" : "%" + graph.values[static_cast<size_t>(id)].name;
}

std::string typed_name(const Graph& graph, ValueId id) {
  return value_name(graph, id) + ": " + shardwright::to_string(graph.type(id));
}

std::string piece_text(const std::vector<Range>& piece) {
  if (piece.empty()) return {};
  std::vector<std::string> ranges;
  for (const Range& range : piece)
    ranges.push_back(std::to_string(range.begin) + ":" + std::to_string(range.end));
  return " piece [" + joined(ranges) + "]";
}

std::string input_line(const Graph& graph, const Input& input) {
  std::string text = "  input " + typed_name(graph, input.value) + " = ";
  text += std::string(role_name(input.role)) + " " + quoted(input.name);
  if (input.role != InputRole::kUserInput) {
    text += " of " + std::to_string(input.ref.tensor);
    text += " offset " + std::to_string(input.ref.offset);
    text += " strides " + to_string(Attr(input.ref.strides));
  }
  return text + piece_text(input.piece) + "\n";
}

std::string group_line(const FusionGroup& group, size_t index) {
  std::string text = "  group " + std::to_string(index) + " " + quoted(group.name);
  text += " from " + quoted(group.origin);
  if (!group.split.empty()) text += " split " + quoted(group.split);
  return text + "\n";
}

std::string node_line(const Graph& graph, const Node& node) {
  std::vector<std::string> results, operands, attrs, begins;
  for (const ValueId id : node.outputs) results.push_back(typed_name(graph, id));
  for (const ValueId id : node.inputs) operands.push_back(value_name(graph, id));
  for (const auto& [name, attr] : node.attrs.entries())
    attrs.push_back(name + "=" + to_string(attr));
  for (const auto& [factor, begin] : node.begins)
    begins.push_back(factor + "=" + std::to_string(begin));

  std::string text = "  " + joined(results) + " = " + node.op->name + "(" + joined(operands) + ")";
  if (!attrs.empty()) text += " {" + joined(attrs) + "}";
  if (!begins.empty()) text += " begin {" + joined(begins) + "}";
  if (node.group >= 0) text += " group " + std::to_string(node.group);
  if (node.source >= 0) {
    const Source& source = graph.sources[static_cast<size_t>(node.source)];
    text += " @ " + quoted(source.path) + " " + quoted(source.file) + ":";
    text += std::to_string(source.line);
  }
  return text + "\n";
}

std::string element_text(DType dtype, const std::byte* address) {
  if (dtype == DType::kI64) {  // a double would round beyond 2^53
    int64_t exact = 0;
    std::memcpy(&exact, address, sizeof exact);
    return std::to_string(exact);
  }
  const double element = load_element(dtype, address);
  return is_floating(dtype) ? to_string(Attr(element))
                            : std::to_string(static_cast<int64_t>(element));
}

// Only for contiguous constants: what add_constant makes.
std::string elements_text(const LogicalTensor& tensor) {
  const int64_t count = tensor.type.count();
  if (tensor.role != InputRole::kConstant || tensor.bytes.data == nullptr ||
      count > kMaxPrintedElements || !is_contiguous(tensor.type.shape, tensor.strides))
    return {};
  std::vector<std::string> elements;
  const DType dtype = tensor.type.dtype;
  for (int64_t i = 0; i < count; ++i)
    elements.push_back(element_text(dtype, tensor.view().data + i * dtype_bytes(dtype)));
  return " = [" + joined(elements) + "]";
}

std::string tensor_line(const LogicalTensor& tensor, size_t index) {
  std::string text = "tensor " + std::to_string(index) + " " + quoted(tensor.name) + ": ";
  text += shardwright::to_string(tensor.type) + " " + std::string(role_name(tensor.role));
  if (tensor.trainable) text += " trainable";
  for (size_t i = 0; i < tensor.other_names.size(); ++i)
    text += (i ? ", " : " also ") + quoted(tensor.other_names[i]);
  return text + elements_text(tensor) + "\n";
}

}  // namespace

std::string_view role_name(InputRole role) {
  constexpr std::string_view kNames[] = {"user_input", "parameter", "buffer", "constant"};
  return kNames[static_cast<int>(role)];
}

std::string_view role_name(OutputRole role) {
  constexpr std::string_view kNames[] = {"user_output", "loss", "buffer_mutation", "gradient"};
  return kNames[static_cast<int>(role)];
}

std::string print(const Graph& graph) {
  std::string text = "graph " + graph.name + " {\n";
  for (size_t i = 0; i < graph.groups.size(); ++i) text += group_line(graph.groups[i], i);
  for (const Input& input : graph.inputs) text += input_line(graph, input);
  for (const Node& node : graph.nodes) text += node_line(graph, node);
  for (const Output& output : graph.outputs) {
    text += "  output " + value_name(graph, output.value) + " = ";
    text += std::string(role_name(output.role)) + " " + quoted(output.name);
    text += piece_text(output.piece) + "\n";
  }
  return text + "}\n";
}

std::string print(const Module& module) {
  std::string text;
  for (size_t i = 0; i < module.tensors.size(); ++i) text += tensor_line(module.tensors[i], i);
  for (const Graph& graph : module.graphs) text += (text.empty() ? "" : "\n") + print(graph);
  return text;
}

}  // namespace shardwright::ir
