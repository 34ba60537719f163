// The interpreter: every node by its operator's reference, one graph or n in lockstep.
#include "ir/interpret.h"

#include <algorithm>

#include "base/check.h"
#include "base/error.h"
#include "ops/build.h"
#include "ops/exchange.h"

namespace shardwright::ir {
namespace {

using ops::RefTensor;

RefTensor read_strided(TensorType type, const Strides& strides, int64_t offset,
                       const std::vector<double>& data, const std::string& name) {
  RefTensor result(std::move(type));
  if (result.data.empty()) return result;
  std::vector<int64_t> index(result.type.shape.size(), 0);
  size_t position = 0;
  do {
    const int64_t from = offset + ops::position_of(index, strides);
    CHECK(0 <= from && from < static_cast<int64_t>(data.size()), name + " lies outside its tensor");
    result.data[position++] = data[static_cast<size_t>(from)];
  } while (ops::next_index(result.type.shape, index));
  return result;
}

// One graph while it runs. Values are dropped after their last use.
class Run {
 public:
  Run(const Module& module, const Graph& graph, const RefMap& inputs,
      const InterpretOptions& options)
      : module_(module), graph_(graph), options_(options), values_(graph.values.size()) {
    uses_.assign(graph.values.size(), 0);
    for (const Node& node : graph.nodes)
      for (const ValueId id : node.inputs)
        if (id != kNoValue) ++uses_[static_cast<size_t>(id)];
    for (const Output& output : graph.outputs) ++uses_[static_cast<size_t>(output.value)];
    for (const Input& input : graph.inputs) {
      if (uses_[static_cast<size_t>(input.value)] == 0) continue;
      RefTensor& value = values_[static_cast<size_t>(input.value)];
      value = read_input(input, inputs);
      if (options.round_to_dtype) round(value);
    }
  }

  // Runs up to and without the next exchange; null at the end.
  const Node* run_to_exchange() {
    for (; next_ < graph_.nodes.size(); ++next_) {
      const Node& node = graph_.nodes[next_];
      if (node.op == &ops::exchange) return &node;
      run(node);
    }
    return nullptr;
  }

  void finish_exchange(RefTensor result) {
    const Node& node = graph_.nodes[next_++];
    set(node.outputs[0], std::move(result));
    release(node);
  }

  const RefTensor& value(ValueId id) const { return values_[static_cast<size_t>(id)]; }
  const Graph& graph() const { return graph_; }

 private:
  void round(RefTensor& tensor) const {
    for (double& element : tensor.data) element = round_to(tensor.type.dtype, element);
  }

  void set(ValueId id, RefTensor result) {
    if (options_.round_to_dtype) round(result);
    values_[static_cast<size_t>(id)] = std::move(result);
  }

  void release(const Node& node) {
    for (const ValueId id : node.inputs)
      if (id != kNoValue && --uses_[static_cast<size_t>(id)] == 0)
        values_[static_cast<size_t>(id)] = RefTensor();
  }

  void run(const Node& node) {
    std::vector<const RefTensor*> operands;
    for (const ValueId id : node.inputs) operands.push_back(id == kNoValue ? nullptr : &value(id));
    std::vector<RefTensor> results = interpret_node(graph_, node, operands);
    for (size_t i = 0; i < results.size(); ++i) set(node.outputs[i], std::move(results[i]));
    release(node);
  }

  // A whole tensor given by the user for this input: cut to this chip's piece.
  RefTensor given_input(const Input& input, const RefTensor& whole) const {
    const TensorType& type = graph_.type(input.value);
    RefTensor mine = input.piece.empty() ? whole : fitting_piece(input, whole);
    if (mine.type != type)
      throw Error(ErrorCode::kUsage, "input " + input.name + " is " + to_string(mine.type) +
                                         ", the graph takes " + to_string(type));
    return mine;
  }

  static RefTensor fitting_piece(const Input& input, const RefTensor& whole) {
    bool fits = whole.type.shape.size() == input.piece.size();
    for (size_t d = 0; fits && d < input.piece.size(); ++d)
      fits = input.piece[d].end <= whole.type.shape[d];
    if (!fits)
      throw Error(ErrorCode::kUsage, "input " + input.name + " is " + to_string(whole.type) +
                                         ": smaller than its piece");
    return ops::cut_piece(whole, input.piece);
  }

  RefTensor read_input(const Input& input, const RefMap& inputs) const {
    if (input.role == InputRole::kUserInput) {
      const auto found = inputs.find(input.name);
      if (found == inputs.end())
        throw Error(ErrorCode::kUsage, "input " + input.name + " is missing");
      return given_input(input, found->second);
    }
    const LogicalTensor& tensor = module_.tensors[static_cast<size_t>(input.ref.tensor)];
    const TensorType& type = graph_.type(input.value);
    const auto given = inputs.find(tensor.name);
    if (given == inputs.end()) {
      if (tensor.bytes.data == nullptr)
        throw Error(ErrorCode::kUsage, "tensor " + tensor.name + " has no data");
      return read_ref(tensor, input.ref, type);
    }
    if (given->second.type.shape != tensor.type.shape)
      throw Error(ErrorCode::kUsage, "tensor " + tensor.name + " is " +
                                         to_string(given->second.type) + ", the module's is " +
                                         to_string(tensor.type));
    return read_strided(type, input.ref.strides, input.ref.offset, given->second.data, input.name);
  }

  const Module& module_;
  const Graph& graph_;
  const InterpretOptions& options_;
  std::vector<RefTensor> values_;
  std::vector<int> uses_;
  size_t next_ = 0;
};

}  // namespace

RefTensor to_ref(const TensorView& view) {
  RefTensor result(view.type);
  if (result.data.empty()) return result;
  std::vector<int64_t> index(view.type.shape.size(), 0);
  const int64_t bytes = dtype_bytes(view.type.dtype);
  size_t position = 0;
  do {
    const std::byte* address = view.data + bytes * ops::position_of(index, view.strides);
    result.data[position++] = load_element(view.type.dtype, address);
  } while (ops::next_index(view.type.shape, index));
  return result;
}

RefTensor read_ref(const LogicalTensor& tensor, const TensorRef& ref, const TensorType& type) {
  // A ref counts elements of the whole, contiguous tensor; where that lies contiguous in its bytes
  // the part can be read without the rest.
  if (is_contiguous(tensor.type.shape, tensor.strides)) {
    const int64_t offset = ref.offset * dtype_bytes(type.dtype);
    return to_ref({type, ref.strides, tensor.view().data + offset});
  }
  return read_strided(type, ref.strides, ref.offset, to_ref(tensor.view()).data, tensor.name);
}

std::vector<RefTensor> interpret_node(const Graph& graph, const Node& node,
                                      std::span<const RefTensor* const> operands) {
  CHECK(node.op->reference != nullptr, graph.describe(node) + " has no reference");
  std::vector<RefTensor> results;
  for (const ValueId id : node.outputs) results.emplace_back(graph.type(id));
  node.op->reference({node.attrs, operands, results, node.begins});
  return results;
}

RefMap interpret(const Module& module, const Graph& graph, const RefMap& inputs,
                 const InterpretOptions& options) {
  Run run(module, graph, inputs, options);
  CHECK(run.run_to_exchange() == nullptr, "a whole graph has no exchange");
  RefMap outputs;
  for (const Output& output : graph.outputs) outputs[output.name] = run.value(output.value);
  return outputs;
}

RefMap interpret_chips(const Module& module, const std::vector<Graph>& chips, const RefMap& inputs,
                       const InterpretOptions& options) {
  std::vector<Run> runs;
  for (const Graph& graph : chips) runs.emplace_back(module, graph, inputs, options);
  while (true) {
    std::vector<const Node*> nodes;
    for (Run& run : runs) nodes.push_back(run.run_to_exchange());
    if (nodes[0] == nullptr) {
      CHECK(std::all_of(nodes.begin(), nodes.end(), [](const Node* n) { return n == nullptr; }),
            "chip 0 has no more exchange, another has");
      break;
    }
    const std::string& name = chips[0].values[static_cast<size_t>(nodes[0]->outputs[0])].name;
    std::vector<const RefTensor*> before;
    for (size_t chip = 0; chip < runs.size(); ++chip) {
      CHECK(nodes[chip] != nullptr && nodes[chip]->attrs == nodes[0]->attrs,
            "%" + name + ": chip " + std::to_string(chip) + " is at another exchange than chip 0");
      before.push_back(&runs[chip].value(nodes[chip]->inputs[0]));
    }
    auto after = ops::run_exchange(ops::exchange_of(nodes[0]->attrs), before, "%" + name);
    for (size_t chip = 0; chip < runs.size(); ++chip)
      runs[chip].finish_exchange(std::move(after[chip]));
  }

  RefMap outputs;
  for (size_t i = 0; i < chips[0].outputs.size(); ++i) {
    const std::string& name = chips[0].outputs[i].name;
    std::vector<const RefTensor*> tensors;
    std::vector<ops::Piece> pieces;
    Shape shape(chips[0].outputs[i].piece.size(), 0);
    for (const Run& run : runs) {
      const Output& output = run.graph().outputs[i];
      tensors.push_back(&run.value(output.value));
      pieces.push_back(output.piece);
      for (size_t d = 0; d < shape.size(); ++d) shape[d] = std::max(shape[d], output.piece[d].end);
    }
    const TensorType whole{tensors[0]->type.dtype, shape};
    outputs[name] = ops::join_pieces(whole, ops::Combine::kCopy, tensors, pieces, name);
  }
  return outputs;
}

}  // namespace shardwright::ir
