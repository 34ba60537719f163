// fold_constants: marks what can be computed, then computes it in order.
#include "passes/fold_constants.h"

#include <map>

#include "base/error.h"
#include "ir/interpret.h"
#include "passes/constants.h"
#include "passes/rewrite.h"

namespace shardwright::passes {
namespace {

using ir::Graph;
using ir::kNoValue;
using ir::Module;
using ir::Node;
using ir::ValueId;
using ops::RefTensor;

// A larger constant costs more in the file and in memory than computing it at every run.
constexpr int64_t kMostBytes = int64_t{64} << 20;

class Folder {
 public:
  Folder(Module& module, Graph& graph)
      : module_(module),
        graph_(graph),
        mutated_(mutated_tensors(module)),
        known_(graph.values.size(), false),
        wanted_(graph.values.size(), false),
        uses_(graph.values.size(), 0) {}

  void run() {
    mark();
    Rewriter rewriter(graph_);
    rewriter.run([&](const Node& node) {
      if (!known_[at(node.outputs[0])]) return;
      std::vector<RefTensor> results = compute(node);
      for (size_t i = 0; i < results.size(); ++i) {
        const ValueId id = node.outputs[i];
        if (wanted_[at(id)]) {
          rewriter.replace(id, add(id, results[i]));
        } else if (uses_[at(id)] > 0) {
          values_[id] = std::move(results[i]);
        }
      }
    });
  }

 private:
  static size_t at(ValueId id) { return static_cast<size_t>(id); }
  std::string name_of(ValueId id) const { return graph_.values[at(id)].name; }

  // The constant is read instead of `id`, by the nodes that are computed as well.
  ValueId add(ValueId id, const RefTensor& tensor) {
    const ValueId constant = intern_constant(module_, graph_, tensor, name_of(id));
    uses_.resize(graph_.values.size(), 0);
    uses_[at(constant)] += uses_[at(id)];
    return constant;
  }

  bool can_compute(const Node& node) const {
    if (node.op->reference == nullptr) return false;
    for (const ValueId id : node.inputs)
      if (id != kNoValue && !known_[at(id)]) return false;
    for (const ValueId id : node.outputs)
      if (graph_.type(id).bytes() > kMostBytes) return false;
    return true;
  }

  void mark() {
    for (const ir::Input& input : graph_.inputs)
      known_[at(input.value)] = find_constant(module_, graph_, mutated_, input.value) != nullptr;
    for (const Node& node : graph_.nodes) {
      const bool computed = can_compute(node);
      for (const ValueId id : node.outputs) known_[at(id)] = computed;
      for (const ValueId id : node.inputs) {
        if (id == kNoValue || !known_[at(id)]) continue;
        if (computed) ++uses_[at(id)];
        if (!computed) wanted_[at(id)] = true;
      }
    }
    for (const ir::Output& output : graph_.outputs) wanted_[at(output.value)] = true;
  }

  const RefTensor& value(ValueId id) {
    const auto found = values_.find(id);
    if (found != values_.end()) return found->second;
    const ir::Input& input = *find_input(graph_, id);
    const ir::LogicalTensor& tensor = module_.tensors[static_cast<size_t>(input.ref.tensor)];
    return values_[id] = ir::read_ref(tensor, input.ref, graph_.type(id));
  }

  std::vector<RefTensor> compute(const Node& node) {
    std::vector<const RefTensor*> operands;
    for (const ValueId id : node.inputs) operands.push_back(id == kNoValue ? nullptr : &value(id));
    std::vector<RefTensor> results = ir::interpret_node(graph_, node, operands);
    for (RefTensor& result : results)
      for (double& element : result.data) element = round_to(result.type.dtype, element);
    for (const ValueId id : node.inputs)
      if (id != kNoValue && --uses_[at(id)] == 0) values_.erase(id);
    return results;
  }

  Module& module_;
  Graph& graph_;
  std::vector<bool> mutated_;
  std::vector<bool> known_;   // can be computed now
  std::vector<bool> wanted_;  // read by a node that can't
  std::vector<int> uses_;     // by nodes that are computed
  std::map<ValueId, RefTensor> values_;
};

}  // namespace

void fold_constants(Module& module, Graph& graph) { Folder(module, graph).run(); }

}  // namespace shardwright::passes
