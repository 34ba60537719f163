// Graph: values, nodes in topological order, inputs and outputs with roles; Module: graphs that
// share logical tensors.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ops/op.h"
#include "tensor/tensor.h"

namespace shardwright::ir {

using ValueId = int32_t;                 // index into Graph::values
using NodeId = int32_t;                  // index into Graph::nodes
inline constexpr ValueId kNoValue = -1;  // an absent optional operand

struct Value {
  std::string name;  // unique in the graph; printed as %name
  TensorType type;
};

// Where a node comes from in the user's model. `path` "model.layers.0.mlp.up_proj", `file` base
// name, `line` 1-based (0: unknown).
struct Source {
  std::string path;
  std::string file;
  int line = 0;
  bool operator==(const Source&) const = default;
};

struct Node {
  const ops::OpDef* op = nullptr;
  ops::Attrs attrs;
  // By OpDef::arguments; kNoValue where absent. Optional ones at the end may be left out.
  std::vector<ValueId> inputs;
  std::vector<ValueId> outputs;
  int source = -1;  // index into Graph::sources
  int group = -1;   // index into Graph::groups; -1 alone
  // Local graphs only: where this chip's range of each split factor of the (global) rule starts.
  std::vector<std::pair<std::string, int64_t>> begins = {};
};

enum class InputRole : uint8_t { kUserInput, kParameter, kBuffer, kConstant };

// Which elements of a logical tensor an input is: element (i...) of the input is element offset +
// sum i_k strides_k of the whole, contiguous logical tensor. Slices, transposes and reshapes of
// parameters are folded into it.
struct TensorRef {
  int tensor = -1;  // index into Module::tensors
  int64_t offset = 0;
  Strides strides;
  bool operator==(const TensorRef&) const = default;
};

struct Input {
  ValueId value = kNoValue;
  InputRole role = InputRole::kUserInput;
  std::string name;  // user inputs: the argument's name; others: the logical tensor's name, +
                     // "[dim:begin:end]" for a part
  TensorRef ref;     // not for user inputs
  // Local graphs only: the piece of the (global) value on this chip, one range a dimension. `ref`
  // already names the piece's elements.
  std::vector<Range> piece = {};
};

enum class OutputRole : uint8_t { kUserOutput, kLoss, kBufferMutation, kGradient };

struct Output {
  ValueId value = kNoValue;
  OutputRole role = OutputRole::kUserOutput;
  std::string name;  // user outputs: "logits", "output_0"; buffer mutation: the buffer's input name
  std::vector<Range> piece = {};  // local graphs only
};

// Nodes to be run as one step (docs: fusion is a mark, never a rewrite). Who made it, for
// explanations: a rule file's rule, or the compiler's own fusion.
struct FusionGroup {
  std::string name;    // "llama2_qkv", "norm", "chain"
  std::string origin;  // "rules.yaml:12", "-o3"
  std::string split;   // "m" or "k": how weight mode splits the weight gemms in it; "" as it likes
  bool operator==(const FusionGroup&) const = default;
};

struct Graph {
  std::string name = "forward";
  std::vector<Value> values;
  std::vector<Node> nodes;
  std::vector<Input> inputs;
  std::vector<Output> outputs;
  std::vector<Source> sources;
  std::vector<FusionGroup> groups;

  const TensorType& type(ValueId id) const { return values[static_cast<size_t>(id)].type; }
  ValueId add_value(TensorType type,
                    std::string name = {});  // a fresh name if empty; made unique otherwise
  // Types of a node's operands, nullopt where absent.
  std::vector<std::optional<TensorType>> operand_types(const Node& node) const;
  // The node that makes each value (-1: an input), and the nodes that read it (once each, in
  // order).
  std::vector<NodeId> producers() const;
  std::vector<std::vector<NodeId>> consumers() const;
  // "model.layers.0.mlp.up_proj (linear), modeling_llama.py:41"
  std::string describe(const Node& node) const;
};

// A stored tensor, whole. Several names (tied weights) are one logical tensor.
struct LogicalTensor {
  std::string name;
  std::vector<std::string> other_names;
  TensorType type;
  InputRole role = InputRole::kParameter;
  bool trainable = false;
  SharedBytes bytes;   // the storage; no data: shapes only (sizing, solver tests)
  int64_t offset = 0;  // elements into `bytes`
  Strides strides;     // elements, over `bytes`

  TensorView view() const;  // CHECKs that there is data
};

struct Module {
  std::vector<LogicalTensor> tensors;
  std::vector<Graph> graphs;
};

// Adds `op` to the end of the graph with inferred result types; returns its first result. `inputs`
// by OpDef::arguments.
ValueId append(Graph& graph, const ops::OpDef& op, std::vector<ValueId> inputs,
               ops::Attrs attrs = {}, int source = -1);
// Adds a constant (its own logical tensor) as an input.
ValueId add_constant(Module& module, Graph& graph, TensorType type, SharedBytes bytes,
                     const std::string& name);
// A constant of no dimensions.
ValueId add_scalar(Module& module, Graph& graph, DType dtype, double value);

}  // namespace shardwright::ir
