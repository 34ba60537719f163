// Inputs that are parts of logical tensors.
#include "passes/refs.h"

#include <algorithm>

namespace shardwright::passes {
namespace {

using ir::Graph;
using ir::Input;
using ir::LogicalTensor;
using ir::TensorRef;

struct Cut {
  Range range;
  int position = -1;  // the dimension of the part that it is; -1: none (size 1)
};

// The part as a range of each dimension of the tensor, in some order; empty if it is no such thing.
std::vector<Cut> cuts_of(const LogicalTensor& tensor, const TensorRef& ref, const Shape& shape) {
  const Strides strides = contiguous_strides(tensor.type.shape);
  std::vector<Cut> cuts;
  int64_t offset = ref.offset;
  size_t n_found = 0;
  for (size_t d = 0; d < strides.size(); ++d) {
    const int64_t size = tensor.type.shape[d];
    Cut cut;
    cut.range.begin = size == 1 ? 0 : offset / strides[d];
    cut.range.end = cut.range.begin + 1;
    if (size > 1) offset %= strides[d];
    for (size_t i = 0; i < shape.size() && size > 1; ++i) {
      if (shape[i] == 1 || ref.strides[i] != strides[d]) continue;
      cut.position = static_cast<int>(i);
      cut.range.end = cut.range.begin + shape[i];
      ++n_found;
    }
    if (cut.range.end > size) return {};
    cuts.push_back(cut);
  }
  const auto n_wanted = static_cast<size_t>(
      std::count_if(shape.begin(), shape.end(), [](int64_t size) { return size > 1; }));
  return n_found == n_wanted ? cuts : std::vector<Cut>();
}

std::string unused_input_name(const Graph& graph, const std::string& name) {
  const bool used = std::any_of(graph.inputs.begin(), graph.inputs.end(),
                                [&](const Input& input) { return input.name == name; });
  return used ? name + "#" + std::to_string(graph.inputs.size()) : name;
}

}  // namespace

std::string ref_name(const LogicalTensor& tensor, const TensorRef& ref, const TensorType& type) {
  const std::vector<Cut> cuts = cuts_of(tensor, ref, type.shape);
  if (cuts.empty() && tensor.type.ndim() > 0)
    return tensor.name + "[" + std::to_string(ref.offset) + " + " + to_string(type.shape) + "]";
  std::string name = tensor.name;
  int last = -1;
  bool permuted = false;
  for (const Cut& cut : cuts) {
    if (cut.position < 0) continue;
    permuted |= cut.position < last;
    last = cut.position;
  }
  if (permuted) name += ".T";
  for (size_t d = 0; d < cuts.size(); ++d)
    if (cuts[d].range.size() != tensor.type.shape[d])
      name += "[" + std::to_string(d) + ":" + std::to_string(cuts[d].range.begin) + ":" +
              std::to_string(cuts[d].range.end) + "]";
  return name;
}

ir::ValueId input_for_ref(ir::Module& module, Graph& graph, ir::InputRole role,
                          const TensorRef& ref, const TensorType& type) {
  for (const Input& input : graph.inputs)
    if (input.role == role && input.ref == ref && graph.type(input.value) == type)
      return input.value;
  const LogicalTensor& tensor = module.tensors[static_cast<size_t>(ref.tensor)];
  const std::string name = unused_input_name(graph, ref_name(tensor, ref, type));
  const ir::ValueId id = graph.add_value(type, name);
  graph.inputs.push_back({id, role, name, ref});
  return id;
}

}  // namespace shardwright::passes
