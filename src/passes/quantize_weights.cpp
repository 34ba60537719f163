// quantize_weights: finds the parameters, makes their tensors, then the nodes that read them.
#include "passes/quantize_weights.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "base/error.h"
#include "ir/interpret.h"
#include "passes/canonicalize.h"
#include "passes/refs.h"
#include "passes/rewrite.h"

namespace shardwright::passes {
namespace {

using ir::Graph;
using ir::Input;
using ir::kNoValue;
using ir::LogicalTensor;
using ir::Module;
using ir::Node;
using ir::TensorRef;
using ir::ValueId;

constexpr double kMost = 127;
constexpr int64_t kElementsAtOnce = 1 << 20;

// What a graph's input is, the same in every graph.
using Part = std::tuple<int, int64_t, Strides, Shape>;
Part part_of(const Graph& graph, const Input& input) {
  return {input.ref.tensor, input.ref.offset, input.ref.strides, graph.type(input.value).shape};
}

struct Quantized {
  int weight = -1;  // logical tensors
  int scale = -1;
};

bool is_weight_of(const Node& node, ValueId value) {
  const auto count = std::count(node.inputs.begin(), node.inputs.end(), value);
  if (is_op(node, "linear"))
    return count == 1 && node.inputs[1] == value && node.inputs[2] == kNoValue;
  return is_op(node, "embedding") && count == 1 && node.inputs[0] == value;
}

bool is_quantizable(const Graph& graph, const Input& input) {
  const TensorType& type = graph.type(input.value);
  if (input.role != ir::InputRole::kParameter || type.ndim() != 2) return false;
  if (!is_floating(type.dtype) || type.dtype == DType::kF64) return false;
  for (const ir::Output& output : graph.outputs)
    if (output.value == input.value || output.name == input.name) return false;
  bool is_read = false;
  for (const Node& node : graph.nodes) {
    if (std::find(node.inputs.begin(), node.inputs.end(), input.value) == node.inputs.end())
      continue;
    if (!is_weight_of(node, input.value)) return false;
    is_read = true;
  }
  return is_read;
}

class Quantizer {
 public:
  explicit Quantizer(Module& module) : module_(module) {}

  void run() {
    std::map<Part, bool> parts;  // false: some graph needs it as it is
    for (const Graph& graph : module_.graphs)
      for (const Input& input : graph.inputs) {
        if (input.role == ir::InputRole::kUserInput) continue;
        const auto entry = parts.emplace(part_of(graph, input), true).first;
        entry->second = entry->second && is_quantizable(graph, input);
      }
    for (const auto& [part, can_be] : parts)
      if (can_be) made_[part] = make_tensors(part);
    for (Graph& graph : module_.graphs) rewrite(graph);
    drop_unused_tensors(module_);
  }

 private:
  static constexpr ir::InputRole kRole = ir::InputRole::kParameter;

  int add_tensor(std::string name, std::vector<std::string> other_names, TensorType type,
                 std::byte** data) {
    LogicalTensor tensor;
    tensor.name = std::move(name);
    tensor.other_names = std::move(other_names);
    tensor.strides = contiguous_strides(type.shape);
    if (data != nullptr) tensor.bytes = SharedBytes::allocate(type.bytes(), data);
    tensor.type = std::move(type);
    module_.tensors.push_back(std::move(tensor));
    return static_cast<int>(module_.tensors.size()) - 1;
  }

  Quantized make_tensors(const Part& part) {
    const auto& [index, offset, strides, shape] = part;
    const LogicalTensor whole = module_.tensors[static_cast<size_t>(index)];
    const TensorType type{whole.type.dtype, shape};
    const TensorRef ref{index, offset, strides};
    const std::string name = ref_name(whole, ref, type);
    std::vector<std::string> names[2];
    if (name == whole.name)
      for (const std::string& other : whole.other_names) {
        names[0].push_back(other + ".int8");
        names[1].push_back(other + ".scale");
      }
    const bool has_bytes = whole.bytes.data != nullptr;
    std::byte* weight = nullptr;
    std::byte* scale = nullptr;
    const Quantized made{add_tensor(name + ".int8", std::move(names[0]), {DType::kI8, shape},
                                    has_bytes ? &weight : nullptr),
                         add_tensor(name + ".scale", std::move(names[1]), {DType::kF32, {shape[0]}},
                                    has_bytes ? &scale : nullptr)};
    if (has_bytes)
      quantize(whole, ref, type, name, reinterpret_cast<int8_t*>(weight),
               reinterpret_cast<float*>(scale));
    return made;
  }

  static void quantize(const LogicalTensor& whole, const TensorRef& ref, const TensorType& type,
                       const std::string& name, int8_t* weight, float* scale) {
    const int64_t n = type.shape[0];
    const int64_t k = type.shape[1];
    const int64_t at_once = std::max<int64_t>(1, kElementsAtOnce / std::max<int64_t>(k, 1));
    for (int64_t row = 0; row < n; row += at_once) {
      TensorRef rows = ref;
      rows.offset += row * ref.strides[0];
      const int64_t count = std::min(at_once, n - row);
      const ops::RefTensor block = ir::read_ref(whole, rows, {type.dtype, {count, k}});
      for (int64_t i = 0; i < count; ++i)
        scale[row + i] = quantize_row(block.data.data() + i * k, k, name, weight + (row + i) * k);
    }
  }

  // Gives the scale.
  static float quantize_row(const double* w, int64_t k, const std::string& name, int8_t* out) {
    double most = 0;
    for (int64_t i = 0; i < k; ++i) {
      if (!std::isfinite(w[i]))
        throw Error(ErrorCode::kUnsupported,
                    "weight " + name + " holds " + std::to_string(w[i]) +
                        ", which int8 can't; compile with precision f32 or bf16");
      most = std::max(most, std::abs(w[i]));
    }
    const auto scale = static_cast<float>(most / kMost);
    for (int64_t i = 0; i < k && scale > 0; ++i)  // the bytes are zero already
      out[i] = static_cast<int8_t>(std::clamp(std::nearbyint(w[i] / scale), -kMost, kMost));
    return scale;
  }

  void rewrite(Graph& graph) {
    std::map<ValueId, Quantized> values;
    for (const Input& input : graph.inputs) {
      if (input.role != kRole) continue;
      const auto found = made_.find(part_of(graph, input));
      if (found != made_.end()) values[input.value] = found->second;
    }
    Rewriter rewriter(graph);
    rewriter.run([&](const Node& node) {
      const bool is_linear = is_op(node, "linear");
      if (!is_linear && !is_op(node, "embedding")) return;
      const auto found = values.find(node.inputs[is_linear ? 1 : 0]);
      if (found == values.end()) return;
      const Node old = node;  // appending moves it
      const ValueId weight = input_of(graph, found->second.weight);
      const ValueId scale = input_of(graph, found->second.scale);
      const DType dtype = graph.type(old.outputs[0]).dtype;
      const ValueId result =
          is_linear ? ir::append(graph, *ops::find_op("linear_int8"),
                                 {rewriter.current(old.inputs[0]), weight, scale}, {}, old.source)
                    : ir::append(graph, *ops::find_op("embedding_int8"),
                                 {weight, scale, rewriter.current(old.inputs[1])},
                                 {{"dtype", dtype}}, old.source);
      graph.nodes.back().group = old.group;
      rewriter.replace(old.outputs[0], result);
    });
  }

  ValueId input_of(Graph& graph, int tensor) {
    const TensorType& type = module_.tensors[static_cast<size_t>(tensor)].type;
    return input_for_ref(module_, graph, kRole, {tensor, 0, contiguous_strides(type.shape)}, type);
  }

  Module& module_;
  std::map<Part, Quantized> made_;
};

}  // namespace

void quantize_weights(Module& module) { Quantizer(module).run(); }

}  // namespace shardwright::passes
