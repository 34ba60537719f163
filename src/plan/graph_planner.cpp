// Plans one graph: inputs, nodes in order, copies to the outputs.
#include "plan/graph_planner.h"

#include <algorithm>

#include "base/check.h"
#include "base/error.h"
#include "ops/exchange.h"

namespace shardwright::plan {
namespace {

constexpr int64_t kNever = INT64_MAX;

const ops::OpDef& copy_op() {
  static const ops::OpDef* op = ops::find_op("clone");
  CHECK(op != nullptr);
  return *op;
}

pef::Buffer buffer_at(const TensorType& type, const Place& place, int written_by = -1) {
  return {place.space, place.index,   place.offset * dtype_bytes(type.dtype),
          type,        place.strides, written_by};
}

// "model.layers.0.mlp.up_proj model.py:41"
std::string source_of(const ir::Graph& graph, const ir::Node& node) {
  if (node.source < 0) return "";
  const ir::Source& source = graph.sources[static_cast<size_t>(node.source)];
  if (source.file.empty()) return source.path;
  return source.path + (source.path.empty() ? "" : " ") + source.file + ":" +
         std::to_string(source.line);
}

}  // namespace

GraphPlanner::GraphPlanner(const ir::Graph& global, const std::vector<ir::Graph>& chips,
                           const std::vector<int>& pieces)
    : chips_(chips),
      readers_(chips[0].consumers()),
      targets_(output_targets(global, chips)),
      targets_of_(chips[0].values.size()),
      last_read_(chips[0].values.size(), -1),
      places_(chips[0].values.size()),
      written_by_(chips[0].values.size(), -1) {
  for (const ir::Graph& graph : chips_) {
    CHECK(graph.nodes.size() == structure().nodes.size());
    CHECK(graph.inputs.size() == global.inputs.size());
    CHECK(graph.outputs.size() == global.outputs.size());
  }
  for (size_t t = 0; t < targets_.size(); ++t)
    targets_of_[static_cast<size_t>(targets_[t].value)].push_back(t);
  for (size_t v = 0; v < readers_.size(); ++v)
    for (ir::NodeId node : readers_[v]) last_read_[v] = std::max<int64_t>(last_read_[v], node);
  for (const ir::Output& output : structure().outputs)
    last_read_[static_cast<size_t>(output.value)] = kNever;
  plan_.steps.resize(n_chips());
  place_inputs(global, pieces);
}

GraphPlan GraphPlanner::plan() {
  for (size_t n = 0; n < structure().nodes.size(); ++n) plan_node(n);
  copy_outputs();
  write_back();
  return std::move(plan_);
}

Places GraphPlanner::in_users_array(size_t input, int user_index, const Shape& whole) const {
  const Strides strides = contiguous_strides(whole);
  Places at;
  for (const ir::Graph& graph : chips_) {
    const Shape& shape = graph.type(graph.inputs[input].value).shape;
    const std::vector<Range> piece = piece_or_whole(graph.inputs[input].piece, shape);
    Place place{pef::Space::kInput, user_index, 0, normal_strides(shape, strides)};
    for (size_t d = 0; d < shape.size() && element_count(shape) > 0; ++d)
      place.offset += piece[d].begin * strides[d];
    at.push_back(std::move(place));
  }
  return at;
}

void GraphPlanner::place_inputs(const ir::Graph& global, const std::vector<int>& pieces) {
  int user_index = 0;
  for (size_t i = 0; i < structure().inputs.size(); ++i) {
    const ir::Input& input = structure().inputs[i];
    if (input.role != ir::InputRole::kUserInput) {
      places(input.value) = contiguous(input.value);
      for (Place& place : places(input.value)) {
        place.space = pef::Space::kParameter;
        place.index = pieces[i];
      }
      if (pieces[i] >= 0) buffers_.emplace(pieces[i], input.value);
      continue;
    }
    Places at = in_users_array(i, user_index++, global.type(global.inputs[i].value).shape);
    if (cost(input.value, at) <= bytes(input.value) + contiguous_cost(input.value)) {
      places(input.value) = std::move(at);
      continue;
    }
    settle(input.value, contiguous(input.value));
    emit_copy(input.value, types(input.value), at, places(input.value), "input " + input.name);
    written_by_[static_cast<size_t>(input.value)] = n_steps() - 1;
  }
}

void GraphPlanner::plan_node(size_t n) {
  if (stay_view(n)) return;
  const ir::Node& node = structure().nodes[n];
  if (node.op->make_kernel == nullptr && node.op != &ops::exchange)
    throw Error(ErrorCode::kUnsupported,
                structure().describe(node) + ": operator '" + node.op->name + "' has no kernel");
  place_results(n);
  emit(n);
}

// The result of a view is seen in the operand's memory unless copying it is cheaper.
bool GraphPlanner::stay_view(size_t n) {
  const ir::Node& node = structure().nodes[n];
  if (node.op->view == nullptr) return false;
  const std::optional<Places> seen = through_view(n, places(node.inputs[0]));
  if (!seen) return false;
  const ir::ValueId result = node.outputs[0];
  Cost copied = kCantRead;
  for (const Places& places : candidates(result))
    if (all_accept(node.op->result_strides, result, places))
      copied = std::min(copied, bytes(result) + cost(result, places));
  if (cost(result, *seen) > copied) return false;
  settle(result, *seen);
  written_by_[static_cast<size_t>(result)] = written_by_[static_cast<size_t>(node.inputs[0])];
  return true;
}

void GraphPlanner::place_results(size_t n) {
  const ir::Node& node = structure().nodes[n];
  for (size_t r = 0; r < node.outputs.size(); ++r) {
    const ir::ValueId result = node.outputs[r];
    if (settle_in_buffer(n, r)) continue;
    std::optional<Places> best;
    Cost least = 0;
    for (Places& places : candidates(result)) {
      if (!all_accept(node.op->result_strides, result, places)) continue;
      const Cost copied = cost(result, places);
      if (best && copied >= least) continue;
      least = copied;
      best = std::move(places);
    }
    CHECK(best && least < kCantRead, "no place for the result of " + structure().describe(node));
    settle(result, std::move(*best));
  }
}

void GraphPlanner::emit(size_t n) {
  for (size_t c = 0; c < n_chips(); ++c) {
    const ir::Node& node = chips_[c].nodes[n];
    pef::Step step;
    step.op = node.op->name;
    // What else an exchange's attributes say is for the report.
    step.attrs =
        node.op == &ops::exchange ? ops::to_attrs(ops::exchange_of(node.attrs)) : node.attrs;
    for (ir::ValueId id : node.inputs)
      step.operands.push_back(id == ir::kNoValue ? pef::Buffer{}
                                                 : buffer_at(type(c, id), places(id)[c],
                                                             written_by_[static_cast<size_t>(id)]));
    for (ir::ValueId id : node.outputs)
      step.results.push_back(buffer_at(type(c, id), places(id)[c]));
    step.begins = node.begins;
    step.source = source_of(chips_[c], node);
    plan_.steps[c].push_back(std::move(step));
  }
  for (ir::ValueId id : structure().nodes[n].outputs)
    written_by_[static_cast<size_t>(id)] = n_steps() - 1;
  plan_.groups.push_back(structure().nodes[n].group);
}

void GraphPlanner::emit_copy(ir::ValueId value, const std::vector<TensorType>& types,
                             const Places& from, const Places& to, const std::string& source) {
  for (size_t c = 0; c < n_chips(); ++c) {
    pef::Step step;
    step.op = copy_op().name;
    step.operands.push_back(buffer_at(types[c], from[c], written_by_[static_cast<size_t>(value)]));
    step.results.push_back(buffer_at(types[c], to[c]));
    step.source = source;
    plan_.steps[c].push_back(std::move(step));
  }
  plan_.groups.push_back(-1);
}

// What does not lie in the user's array yet is copied there.
void GraphPlanner::copy_outputs() {
  for (size_t t = 0; t < targets_.size(); ++t) {
    const OutputTarget& target = targets_[t];
    std::vector<TensorType> parts;
    Places from;
    Places to;
    bool there = true;
    for (size_t c = 0; c < n_chips(); ++c) {
      const OutputPart& part = target.parts[c];
      const Place& place = places(target.value)[c];
      const DType dtype = type(c, target.value).dtype;
      there = there && (part.none || (part.all && place == part.place));
      from.push_back(place);
      to.push_back(part.place);
      if (part.none) {
        parts.push_back({dtype, {0}});
        from.back() = {place.space, place.index, 0, {1}};
        to.back() = {pef::Space::kOutput, part.place.index, 0, {1}};
        continue;
      }
      Shape shape;
      for (size_t d = 0; d < part.rows.size(); ++d) {
        shape.push_back(part.rows[d].size());
        from.back().offset += part.rows[d].begin * place.strides[d];
      }
      from.back().strides = normal_strides(shape, place.strides);
      if (element_count(shape) == 0) from.back().offset = 0;
      parts.push_back({dtype, std::move(shape)});
    }
    if (!there) emit_copy(target.value, parts, from, to, "output");
  }
}

// Buffers that the graph changes, unless they were changed in place. A value that lies in another
// buffer is saved before any is overwritten.
void GraphPlanner::write_back() {
  std::vector<std::pair<ir::ValueId, Places>> copies;
  for (const ir::Output& output : structure().outputs) {
    if (is_users(output)) continue;
    const auto input = std::find_if(structure().inputs.begin(), structure().inputs.end(),
                                    [&](const ir::Input& i) { return i.name == output.name; });
    CHECK(input != structure().inputs.end(), "no buffer " + output.name);
    const Places& to = places(input->value);
    if (places(output.value) == to) continue;
    if (places(output.value)[0].space == pef::Space::kParameter) {
      const Places held = places(output.value);
      settle(output.value, contiguous(output.value));
      emit_copy(output.value, types(output.value), held, places(output.value),
                "buffer " + output.name);
      written_by_[static_cast<size_t>(output.value)] = n_steps() - 1;
    }
    copies.emplace_back(output.value, to);
  }
  for (const auto& [value, to] : copies) {
    emit_copy(value, types(value), places(value), to, "buffer");
  }
}

}  // namespace shardwright::plan
