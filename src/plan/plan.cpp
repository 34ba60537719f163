// One chip's program: where each value lies, the steps, barriers.
#include "plan/plan.h"

#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "base/check.h"
#include "base/checked.h"
#include "ops/exchange.h"
#include "ops/table.h"
#include "plan/arena.h"
#include "plan/layout.h"
#include "plan/pieces.h"

namespace shardwright::plan {
namespace {

int64_t first_element(const std::vector<Range>& piece, const Shape& whole) {
  const Strides strides = contiguous_strides(whole);
  int64_t at = 0;
  for (size_t d = 0; d < piece.size(); ++d) at += piece[d].begin * strides[d];
  return at;
}

// Builds the program of one graph on one chip.
class Builder {
 public:
  // `writes[i]`: this chip writes output i (of copies only the first chip's is written).
  Builder(const ir::Graph& global, const ir::Graph& graph, const Pieces& pieces, size_t graph_index,
          std::vector<bool> writes)
      : global_(global),
        graph_(graph),
        pieces_(pieces),
        graph_index_(graph_index),
        writes_(std::move(writes)),
        wanted_(wanted_layouts(graph)),
        places_(graph.values.size()),
        consumers_(graph.consumers()) {}

  pef::Program build() {
    place_inputs();
    reserve_outputs();
    for (const ir::Node& node : graph_.nodes) add_node(node);
    for (size_t i = 0; i < graph_.outputs.size(); ++i) add_output(i);
    lay_out_arena();
    set_barriers();
    return std::move(program_);
  }
  int64_t transfer_bytes() const { return transfer_bytes_; }

 private:
  void place_inputs();
  void reserve_outputs();
  void add_node(const ir::Node& node);
  void add_output(size_t output);
  void lay_out_arena();
  void set_barriers();

  pef::Buffer new_block(const TensorType& type, const Strides& strides);
  pef::Buffer readable(const pef::Buffer& buffer, ops::Strided mode, const std::string& source);
  void add_copy(const pef::Buffer& from, const pef::Buffer& to, const std::string& source);
  void reuse_operand(const ir::Node& node, pef::Step& step);
  pef::Buffer output_buffer(size_t output) const;
  void touch(const pef::Buffer& buffer);
  std::string source_of(const ir::Node& node) const;

  const ir::Graph& global_;
  const ir::Graph& graph_;
  const Pieces& pieces_;
  size_t graph_index_;
  std::vector<bool> writes_;
  std::vector<Strides> wanted_;
  std::vector<pef::Buffer>
      places_;  // of each value; arena buffers hold their block in `index` until lay_out_arena
  std::vector<std::vector<ir::NodeId>> consumers_;
  std::map<ir::ValueId, size_t> straight_;  // values that are produced right into a user output
  std::vector<Lifetime> blocks_;
  pef::Program program_;
  int64_t transfer_bytes_ = 0;
};

void Builder::place_inputs() {
  int user = 0;
  for (size_t i = 0; i < graph_.inputs.size(); ++i) {
    const ir::Input& input = graph_.inputs[i];
    pef::Buffer& place = places_[static_cast<size_t>(input.value)];
    place.type = graph_.type(input.value);
    place.strides = contiguous_strides(place.type.shape);
    if (input.role != ir::InputRole::kUserInput) {
      place.space = pef::Space::kParameter;
      place.index = pieces_.index(graph_index_, i);
      continue;
    }
    const Shape& whole = global_.type(global_.inputs[i].value).shape;
    CHECK(global_.inputs[i].name == input.name, "local inputs are those of the whole graph");
    place.space = pef::Space::kInput;
    place.index = user++;
    place.strides = contiguous_strides(whole);
    place.offset_bytes = place.type.count() == 0
                             ? 0
                             : first_element(input.piece, whole) * dtype_bytes(place.type.dtype);
  }
}

// A value that is one user output and nothing else reads is produced in the user's array, if its
// kernel can write there.
void Builder::reserve_outputs() {
  const auto producers = graph_.producers();
  for (size_t i = 0; i < graph_.outputs.size(); ++i) {
    const ir::ValueId value = graph_.outputs[i].value;
    const ir::NodeId producer = producers[static_cast<size_t>(value)];
    if (!writes_[i] || graph_.outputs[i].role == ir::OutputRole::kBufferMutation || producer < 0)
      continue;
    const ir::Node& node = graph_.nodes[static_cast<size_t>(producer)];
    const auto uses = std::count_if(graph_.outputs.begin(), graph_.outputs.end(),
                                    [&](const ir::Output& o) { return o.value == value; });
    const bool alone = consumers_[static_cast<size_t>(value)].empty() && uses == 1;
    const bool makes = node.op != &ops::exchange && node.op->view == nullptr;
    if (alone && makes &&
        accepts(node.op->result_strides, graph_.type(value).shape, output_buffer(i).strides))
      straight_[value] = i;
  }
}

pef::Buffer Builder::output_buffer(size_t output) const {
  const Shape& whole = global_.type(global_.outputs[output].value).shape;
  pef::Buffer buffer;
  buffer.space = pef::Space::kOutput;
  buffer.index = static_cast<int>(
      std::count_if(graph_.outputs.begin(), graph_.outputs.begin() + static_cast<ptrdiff_t>(output),
                    [](const ir::Output& o) { return o.role != ir::OutputRole::kBufferMutation; }));
  buffer.type = graph_.type(graph_.outputs[output].value);
  buffer.strides = contiguous_strides(whole);
  buffer.offset_bytes =
      buffer.type.count() == 0
          ? 0
          : first_element(graph_.outputs[output].piece, whole) * dtype_bytes(buffer.type.dtype);
  return buffer;
}

pef::Buffer Builder::new_block(const TensorType& type, const Strides& strides) {
  const int now = static_cast<int>(program_.steps.size());
  blocks_.push_back({type.bytes(), now, now});
  pef::Buffer buffer;
  buffer.space = pef::Space::kArena;
  buffer.index = static_cast<int>(blocks_.size()) - 1;
  buffer.type = type;
  buffer.strides = strides;
  return buffer;
}

// The step that is added next uses the buffer.
void Builder::touch(const pef::Buffer& buffer) {
  if (buffer.space == pef::Space::kArena)
    blocks_[static_cast<size_t>(buffer.index)].last = static_cast<int>(program_.steps.size());
}

void Builder::add_copy(const pef::Buffer& from, const pef::Buffer& to, const std::string& source) {
  touch(from);
  touch(to);
  pef::Step step;
  step.op = ops::clone.name;
  step.operands = {from};
  step.results = {to};
  step.source = source;
  program_.steps.push_back(std::move(step));
}

// The buffer itself, or a contiguous copy if a kernel that takes `mode` can't read it.
pef::Buffer Builder::readable(const pef::Buffer& buffer, ops::Strided mode,
                              const std::string& source) {
  if (buffer.space == pef::Space::kNone || accepts(mode, buffer.type.shape, buffer.strides))
    return buffer;
  const pef::Buffer copy = new_block(buffer.type, contiguous_strides(buffer.type.shape));
  add_copy(buffer, copy, source);
  return copy;
}

std::string Builder::source_of(const ir::Node& node) const {
  if (node.source < 0) return {};
  const ir::Source& source = graph_.sources[static_cast<size_t>(node.source)];
  const std::string line =
      source.file.empty() ? "" : fmt::format("{}:{}", source.file, source.line);
  return source.path + (source.path.empty() || line.empty() ? "" : " ") + line;
}

void Builder::add_node(const ir::Node& node) {
  const std::string source = source_of(node);
  if (node.op->view != nullptr) {
    const pef::Buffer& from = places_[static_cast<size_t>(node.inputs[0])];
    const bool panels = from.space == pef::Space::kParameter &&
                        pieces_.piece(from.index).layout == ops::Layout::kPanels;
    CHECK(!panels, "a view reads a packed parameter");
    if (const auto view = view_of(graph_, node, from.strides)) {
      pef::Buffer alias = from;
      alias.type = graph_.type(node.outputs[0]);
      alias.strides = view->strides;
      alias.offset_bytes += view->offset * dtype_bytes(alias.type.dtype);
      if (alias.type.count() == 0) alias.offset_bytes = 0;
      places_[static_cast<size_t>(node.outputs[0])] = alias;
      return;
    }
  }
  pef::Step step;
  step.op = node.op->name;
  step.attrs = node.attrs;
  step.begins = node.begins;
  step.source = source;
  for (ir::ValueId id : node.inputs)
    step.operands.push_back(id == ir::kNoValue ? pef::Buffer()
                                               : readable(places_[static_cast<size_t>(id)],
                                                          node.op->operand_strides, source));
  for (const pef::Buffer& operand : step.operands) touch(operand);
  for (ir::ValueId id : node.outputs) {
    const auto straight = straight_.find(id);
    step.results.push_back(straight != straight_.end()
                               ? output_buffer(straight->second)
                               : new_block(graph_.type(id), wanted_[static_cast<size_t>(id)]));
  }
  reuse_operand(node, step);
  for (size_t i = 0; i < node.outputs.size(); ++i)
    places_[static_cast<size_t>(node.outputs[i])] = step.results[i];
  if (node.op == &ops::exchange)
    transfer_bytes_ =
        std::max(transfer_bytes_, step.operands[0].type.bytes() + step.results[0].type.bytes());
  program_.steps.push_back(std::move(step));
}

// In place: the result takes the block of an operand of the same type and layout whose value nobody
// reads after this step.
void Builder::reuse_operand(const ir::Node& node, pef::Step& step) {
  pef::Buffer& result = step.results[0];
  if (!node.op->in_place || result.space != pef::Space::kArena || result.type.count() == 0) return;
  const auto now = static_cast<ir::NodeId>(&node - graph_.nodes.data());
  for (size_t i = 0; i < (node.op->elementwise ? node.inputs.size() : 1); ++i) {
    const pef::Buffer& operand = step.operands[i];
    if (operand.space != pef::Space::kArena || operand.type != result.type ||
        operand.strides != result.strides || operand.offset_bytes != 0)
      continue;
    if (blocks_[static_cast<size_t>(operand.index)].bytes != result.type.bytes()) continue;
    const auto others =
        std::count_if(step.operands.begin(), step.operands.end(), [&](const pef::Buffer& b) {
          return b.space == pef::Space::kArena && b.index == operand.index;
        });
    // Every value in that block must be dead after this node.
    bool dies = others == 1;
    for (size_t v = 0; v < places_.size() && dies; ++v) {
      if (places_[v].space != pef::Space::kArena || places_[v].index != operand.index) continue;
      const auto& readers = consumers_[v];
      dies = readers.empty() || readers.back() <= now;
      for (const ir::Output& output : graph_.outputs)
        dies = dies && output.value != static_cast<ir::ValueId>(v);
    }
    if (!dies) continue;
    blocks_.pop_back();  // that of the result
    result.index = operand.index;
    return;
  }
}

void Builder::add_output(size_t i) {
  const ir::Output& output = graph_.outputs[i];
  const pef::Buffer& from = places_[static_cast<size_t>(output.value)];
  if (output.role == ir::OutputRole::kBufferMutation) {
    for (size_t k = 0; k < graph_.inputs.size(); ++k) {
      if (graph_.inputs[k].name != output.name) continue;
      const pef::Buffer& to = places_[static_cast<size_t>(graph_.inputs[k].value)];
      add_copy(from, to, output.name);
    }
    return;
  }
  if (writes_[i] && !straight_.contains(output.value))
    add_copy(from, output_buffer(i), output.name);
}

void Builder::lay_out_arena() {
  const ArenaLayout layout = lay_out(blocks_);
  program_.arena_bytes = layout.bytes;
  const auto settle = [&](pef::Buffer& buffer) {
    if (buffer.space != pef::Space::kArena) return;
    buffer.offset_bytes += layout.offsets[static_cast<size_t>(buffer.index)];
    buffer.index = -1;
    if (buffer.type.count() == 0) buffer.offset_bytes = 0;
  };
  for (pef::Step& step : program_.steps) {
    for (pef::Buffer& buffer : step.operands) settle(buffer);
    for (pef::Buffer& buffer : step.results) settle(buffer);
  }
}

// A step needs a barrier before it if it touches what a step since the last barrier wrote, or
// writes what one read.
void Builder::set_barriers() {
  struct Access {
    pef::Space space;
    int index;
    Range range;
    bool write;
  };
  std::vector<Access> since;
  for (pef::Step& step : program_.steps) {
    std::vector<Access> mine;
    for (const pef::Buffer& b : step.operands)
      mine.push_back({b.space, b.index, pef::byte_range(b), false});
    for (const pef::Buffer& b : step.results)
      mine.push_back({b.space, b.index, pef::byte_range(b), true});
    const auto conflicts = [&](const Access& a) {
      return std::any_of(since.begin(), since.end(), [&](const Access& b) {
        return (a.write || b.write) && a.space == b.space && a.index == b.index &&
               a.range.begin < b.range.end && b.range.begin < a.range.end;
      });
    };
    const bool exchange = step.op == ops::exchange.name;
    step.barrier_before = exchange || std::any_of(mine.begin(), mine.end(), conflicts);
    if (step.barrier_before) since.clear();
    since.insert(since.end(), mine.begin(), mine.end());
  }
}

// Of outputs that several chips hold whole and equal, the first one's is written.
std::vector<bool> writers(const std::vector<ir::Graph>& chips, size_t chip) {
  std::vector<bool> writes;
  for (size_t i = 0; i < chips[chip].outputs.size(); ++i) {
    bool first = true;
    for (size_t other = 0; other < chip; ++other) {
      const auto &a = chips[other].outputs[i].piece, &b = chips[chip].outputs[i].piece;
      first = first && !std::equal(a.begin(), a.end(), b.begin(), b.end(), [](Range x, Range y) {
                return x.begin == y.begin && x.end == y.end;
              });
    }
    writes.push_back(first);
  }
  return writes;
}

}  // namespace

pef::Plan make_plan(const ir::Module& module, const std::vector<std::vector<ir::Graph>>& local) {
  pef::Plan plan;
  CHECK(local.size() == module.graphs.size() && !local.empty());
  plan.n_chips = static_cast<int>(local[0].size());
  for (size_t chip = 0; chip < local[0].size(); ++chip) {
    std::vector<const ir::Graph*> graphs;
    for (const auto& chips : local) graphs.push_back(&chips[chip]);
    const Pieces pieces(graphs);
    pef::ChipPlan& out = plan.chips.emplace_back();
    out.pieces = pieces.pieces();
    out.parameter_bytes = pieces.bytes();
    for (size_t g = 0; g < local.size(); ++g) {
      Builder builder(module.graphs[g], local[g][chip], pieces, g, writers(local[g], chip));
      out.programs.push_back(builder.build());
      out.arena_bytes = std::max(out.arena_bytes, out.programs.back().arena_bytes);
      out.transfer_bytes = std::max(out.transfer_bytes, builder.transfer_bytes());
    }
  }
  return plan;
}

std::vector<pef::Tensor> tensors_of(const ir::Module& module) {
  std::vector<pef::Tensor> tensors;
  for (const ir::LogicalTensor& tensor : module.tensors) {
    pef::Tensor& out = tensors.emplace_back();
    out.name = tensor.name;
    out.other_names = tensor.other_names;
    out.type = tensor.type;
    out.trainable = tensor.trainable;
    out.constant = tensor.role == ir::InputRole::kConstant;
  }
  return tensors;
}

pef::GraphSignature signature_of(const ir::Graph& global) {
  pef::GraphSignature signature;
  signature.name = global.name;
  for (const ir::Input& input : global.inputs)
    if (input.role == ir::InputRole::kUserInput)
      signature.inputs.push_back({input.name, global.type(input.value)});
  for (const ir::Output& output : global.outputs)
    if (output.role != ir::OutputRole::kBufferMutation)
      signature.outputs.push_back({output.name, global.type(output.value)});
  return signature;
}

}  // namespace shardwright::plan
