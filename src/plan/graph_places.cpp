// Plans one graph: where values lie, and what that costs.
#include <algorithm>

#include "base/check.h"
#include "plan/graph_planner.h"

namespace shardwright::plan {

int64_t GraphPlanner::bytes(ir::ValueId value) const {
  int64_t total = 0;
  for (const ir::Graph& graph : chips_) total += graph.type(value).bytes();
  return total;
}

std::vector<TensorType> GraphPlanner::types(ir::ValueId value) const {
  std::vector<TensorType> result;
  for (const ir::Graph& graph : chips_) result.push_back(graph.type(value));
  return result;
}

Places GraphPlanner::contiguous(ir::ValueId value) const {
  Places result;
  for (const ir::Graph& graph : chips_)
    result.push_back({pef::Space::kArena, -1, 0, contiguous_strides(graph.type(value).shape)});
  return result;
}

bool GraphPlanner::all_accept(ops::Strided strided, ir::ValueId value, const Places& places) const {
  for (size_t c = 0; c < n_chips(); ++c)
    if (!ops::accepts(strided, type(c, value).shape, places[c].strides)) return false;
  return true;
}

std::optional<Places> GraphPlanner::through_view(size_t node, const Places& operand) const {
  Places seen;
  for (size_t c = 0; c < n_chips(); ++c) {
    const ir::Node& n = chips_[c].nodes[node];
    ops::KernelSpec spec{
        .op = n.op, .attrs = &n.attrs, .operands = {}, .results = {}, .begins = n.begins};
    for (ir::ValueId id : n.inputs)
      spec.operands.push_back({.present = id != ir::kNoValue,
                               .type = id == ir::kNoValue ? TensorType() : type(c, id),
                               .strides = {}});
    spec.operands[0].strides = operand[c].strides;
    const TensorType& result = type(c, n.outputs[0]);
    spec.results.push_back({.type = result, .strides = contiguous_strides(result.shape)});
    Place place = operand[c];
    int64_t offset = 0;
    if (result.count() == 0) {
      place.offset = 0;
      place.strides = contiguous_strides(result.shape);
    } else {
      if (!n.op->view(spec, operand[c].strides, &place.strides, &offset)) return std::nullopt;
      place.offset += offset;
      place.strides = normal_strides(result.shape, std::move(place.strides));
    }
    seen.push_back(std::move(place));
  }
  return seen;
}

GraphPlanner::Cost GraphPlanner::output_cost(ir::ValueId value, const Places& places) const {
  Cost total = 0;
  for (size_t t : targets_of_[static_cast<size_t>(value)])
    for (size_t c = 0; c < n_chips(); ++c) {
      const OutputPart& part = targets_[t].parts[c];
      if (!part.none && !(part.all && places[c] == part.place)) total += type(c, value).bytes();
    }
  return total;
}

GraphPlanner::Cost GraphPlanner::cost(ir::ValueId value, const Places& places) {
  Cost total = output_cost(value, places);
  for (ir::NodeId reader : readers_[static_cast<size_t>(value)]) {
    const ir::Node& node = structure().nodes[static_cast<size_t>(reader)];
    if (node.op->view != nullptr)
      total += view_cost(static_cast<size_t>(reader), places);
    else if (!all_accept(node.op->operand_strides, value, places))
      return kCantRead;
    if (total >= kCantRead) return kCantRead;
  }
  return total;
}

// Chains of views would be walked twice at each view but for this.
GraphPlanner::Cost GraphPlanner::contiguous_cost(ir::ValueId value) {
  const auto known = contiguous_costs_.find(value);
  if (known != contiguous_costs_.end()) return known->second;
  const Cost result = cost(value, contiguous(value));
  contiguous_costs_[value] = result;
  return result;
}

GraphPlanner::Cost GraphPlanner::view_cost(size_t node, const Places& operand) {
  const ir::ValueId result = structure().nodes[node].outputs[0];
  const std::optional<Places> seen = through_view(node, operand);
  const Cost copied = bytes(result) + contiguous_cost(result);
  return seen ? std::min(cost(result, *seen), copied) : copied;
}

std::vector<Places> GraphPlanner::candidates(ir::ValueId value) {
  const Places plain = contiguous(value);
  std::vector<Places> found{plain};
  add_candidates(value, value, plain, found);
  return found;
}

// Of the values that are seen through views of `value`: places that make them contiguous, or let
// them lie in the user's array.
void GraphPlanner::add_candidates(ir::ValueId value, ir::ValueId seen, const Places& seen_at,
                                  std::vector<Places>& found) {
  const auto add = [&](const OutputTarget* target) {
    if (auto places = backwards(value, seen, seen_at, target))
      if (std::find(found.begin(), found.end(), *places) == found.end())
        found.push_back(std::move(*places));
  };
  for (size_t t : targets_of_[static_cast<size_t>(seen)])
    if (targets_[t].direct()) add(&targets_[t]);
  if (seen != value) add(nullptr);
  for (ir::NodeId reader : readers_[static_cast<size_t>(seen)]) {
    const ir::Node& node = structure().nodes[static_cast<size_t>(reader)];
    if (node.op->view == nullptr) continue;
    if (const auto next = through_view(static_cast<size_t>(reader), seen_at))
      add_candidates(value, node.outputs[0], *next, found);
  }
}

std::optional<Places> GraphPlanner::backwards(ir::ValueId value, ir::ValueId seen,
                                              const Places& seen_at,
                                              const OutputTarget* target) const {
  Places result = contiguous(value);
  for (size_t c = 0; c < n_chips(); ++c) {
    const Shape& shape = type(c, value).shape;
    const Shape& seen_shape = type(c, seen).shape;
    if (seen_at[c].offset != 0) return std::nullopt;
    const bool in_output = target != nullptr && target->parts[c].all;
    const auto strides = strides_before_views(
        shape, seen_shape, seen_at[c].strides,
        in_output ? target->parts[c].place.strides : contiguous_strides(seen_shape));
    if (!strides) return std::nullopt;
    if (in_output) result[c] = target->parts[c].place;
    result[c].strides = *strides;
  }
  return result;
}

void GraphPlanner::settle(ir::ValueId value, Places settled) {
  const auto fresh = static_cast<int>(plan_.storages.size());
  Storage storage;
  bool in_arena = false;
  for (size_t c = 0; c < n_chips(); ++c) {
    const bool new_here = settled[c].space == pef::Space::kArena && settled[c].index < 0;
    storage.bytes.push_back(new_here ? type(c, value).bytes() : 0);
    if (new_here) settled[c].index = fresh;
    in_arena |= new_here;
  }
  if (in_arena) plan_.storages.push_back(std::move(storage));
  places(value) = std::move(settled);
}

// A buffer's new value is made right in the buffer where nobody reads the old one any more.
bool GraphPlanner::settle_in_buffer(size_t n, size_t result) {
  const ir::Node& node = structure().nodes[n];
  if (!node.op->in_place || result >= node.inputs.size() || node.inputs[result] == ir::kNoValue)
    return false;
  const ir::ValueId old = node.inputs[result];
  const ir::ValueId value = node.outputs[result];
  const Places& held = places(old);
  if (held[0].space != pef::Space::kParameter || types(old) != types(value)) return false;
  const auto buffer = buffers_.find(held[0].index);
  bool written_back = false;
  for (const ir::Output& output : structure().outputs)
    for (const ir::Input& input : structure().inputs)
      written_back |= output.role == ir::OutputRole::kBufferMutation && output.value == value &&
                      input.name == output.name && input.value == old;
  if (!written_back || buffer == buffers_.end() || buffer->second != old) return false;
  // Any value that is seen in the buffer, the buffer itself included.
  for (size_t v = 0; v < places_.size(); ++v)
    for (const Place& place : places_[v])
      if (place.space == pef::Space::kParameter && place.index == held[0].index &&
          (last_read_[v] > static_cast<int64_t>(n) ||
           (static_cast<ir::ValueId>(v) != old && last_read_[v] == static_cast<int64_t>(n))))
        return false;
  const Places taken = held;
  settle(value, taken);
  return true;
}

}  // namespace shardwright::plan
