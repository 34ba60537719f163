// Constants of a graph.
#include "passes/constants.h"

#include <cstring>

#include "ir/interpret.h"
#include "passes/rewrite.h"

namespace shardwright::passes {

using ir::Graph;
using ir::Input;
using ir::InputRole;
using ir::LogicalTensor;
using ir::Module;
using ir::ValueId;

std::vector<bool> mutated_tensors(const Module& module) {
  std::vector<bool> mutated(module.tensors.size(), false);
  for (const Graph& graph : module.graphs)
    for (const ir::Output& output : graph.outputs) {
      if (output.role != ir::OutputRole::kBufferMutation) continue;
      for (const Input& input : graph.inputs)
        if (input.role != InputRole::kUserInput && input.name == output.name)
          mutated[static_cast<size_t>(input.ref.tensor)] = true;
    }
  return mutated;
}

const Input* find_constant(const Module& module, const Graph& graph,
                           const std::vector<bool>& mutated, ValueId id) {
  const Input* input = find_input(graph, id);
  if (input == nullptr) return nullptr;
  if (input->role != InputRole::kConstant && input->role != InputRole::kBuffer) return nullptr;
  const auto tensor = static_cast<size_t>(input->ref.tensor);
  // Constants that were added after `mutated` was made are not written by anybody.
  if (tensor < mutated.size() && mutated[tensor]) return nullptr;
  return module.tensors[tensor].bytes.data == nullptr ? nullptr : input;
}

std::optional<double> scalar_value(const Module& module, const Graph& graph, ValueId id) {
  if (id == ir::kNoValue || graph.type(id).count() != 1) return std::nullopt;
  const Input* input = find_input(graph, id);
  if (input == nullptr || input->role != InputRole::kConstant) return std::nullopt;
  const LogicalTensor& tensor = module.tensors[static_cast<size_t>(input->ref.tensor)];
  if (tensor.bytes.data == nullptr) return std::nullopt;
  return ir::read_ref(tensor, input->ref, graph.type(id)).data[0];
}

namespace {

bool same_bytes(const LogicalTensor& tensor, const TensorType& type, const std::byte* data) {
  return tensor.role == InputRole::kConstant && tensor.type == type &&
         tensor.bytes.data != nullptr && is_contiguous(type.shape, tensor.strides) &&
         std::memcmp(tensor.view().data, data, static_cast<size_t>(type.bytes())) == 0;
}

std::string unused_name(const Module& module, const std::string& name) {
  for (const LogicalTensor& tensor : module.tensors)
    if (tensor.name == name) return name + "_" + std::to_string(module.tensors.size());
  return name;
}

}  // namespace

ValueId intern_constant(Module& module, Graph& graph, const ops::RefTensor& tensor,
                        const std::string& name) {
  const TensorType& type = tensor.type;
  std::byte* data = nullptr;
  SharedBytes bytes = SharedBytes::allocate(type.bytes(), &data);
  for (size_t i = 0; i < tensor.data.size(); ++i)
    store_element(type.dtype, data + static_cast<int64_t>(i) * dtype_bytes(type.dtype),
                  tensor.data[i]);
  for (size_t i = 0; i < module.tensors.size(); ++i) {
    if (!same_bytes(module.tensors[i], type, data)) continue;
    const ir::TensorRef ref{static_cast<int>(i), 0, contiguous_strides(type.shape)};
    for (const Input& input : graph.inputs)
      if (input.role == InputRole::kConstant && input.ref == ref) return input.value;
    const ValueId id = graph.add_value(type, module.tensors[i].name);
    graph.inputs.push_back({id, InputRole::kConstant, module.tensors[i].name, ref});
    return id;
  }
  return ir::add_constant(module, graph, type, std::move(bytes), unused_name(module, name));
}

}  // namespace shardwright::passes
