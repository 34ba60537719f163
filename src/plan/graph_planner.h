// Plans one graph: the steps of every chip, in one order, over storages that have no offsets yet.
#pragma once

#include <optional>
#include <unordered_map>
#include <vector>

#include "ir/graph.h"
#include "plan/arena.h"
#include "plan/layout.h"
#include "plan/outputs.h"

namespace shardwright::plan {

struct GraphPlan {
  std::vector<std::vector<pef::Step>> steps;  // [chip]; arena buffers have a storage's index
  std::vector<int> groups;                    // of each step: its fusion group, or -1
  std::vector<Storage> storages;              // without lifetimes yet
};

// The chips hold the same nodes in the same order; every choice is made for all of them together,
// so step i is the same work everywhere.
//
// A choice is where the result of a node lies. Each way costs the bytes that must be copied because
// of it: by views that don't fit it, and into the user's array. The cheapest is taken; what a
// reader can't take costs more than anything.
class GraphPlanner {
 public:
  // `pieces[i]`: of input i, see Pieces::of_graph.
  GraphPlanner(const ir::Graph& global, const std::vector<ir::Graph>& chips,
               const std::vector<int>& pieces);
  GraphPlan plan();

 private:
  using Cost = int64_t;  // bytes copied
  static constexpr Cost kCantRead = int64_t{1} << 60;

  const ir::Graph& structure() const { return chips_[0]; }
  size_t n_chips() const { return chips_.size(); }
  const TensorType& type(size_t chip, ir::ValueId value) const { return chips_[chip].type(value); }
  Places& places(ir::ValueId value) { return places_[static_cast<size_t>(value)]; }
  Cost bytes(ir::ValueId value) const;  // of all chips

  void place_inputs(const ir::Graph& global, const std::vector<int>& pieces);
  Places in_users_array(size_t input, int user_index, const Shape& whole) const;
  void plan_node(size_t n);
  bool stay_view(size_t n);
  void place_results(size_t n);
  void emit(size_t n);
  void copy_outputs();
  void write_back();

  // What places of a value cost its readers.
  Cost cost(ir::ValueId value, const Places& places);
  Cost contiguous_cost(ir::ValueId value);
  Cost view_cost(size_t node, const Places& operand);
  Cost output_cost(ir::ValueId value, const Places& places) const;
  bool all_accept(ops::Strided strided, ir::ValueId value, const Places& places) const;
  std::optional<Places> through_view(size_t node, const Places& operand) const;

  // Places that a new value could have, the plain one first.
  std::vector<Places> candidates(ir::ValueId value);
  void add_candidates(ir::ValueId value, ir::ValueId seen, const Places& seen_at,
                      std::vector<Places>& found);
  std::optional<Places> backwards(ir::ValueId value, ir::ValueId seen, const Places& seen_at,
                                  const OutputTarget* target) const;
  Places contiguous(ir::ValueId value) const;
  // Takes the places, with a new storage where they are in the arena.
  void settle(ir::ValueId value, Places places);
  bool settle_in_buffer(size_t n, size_t result);

  // A step that copies tensors of these types (one a chip), which `value` is or is part of.
  void emit_copy(ir::ValueId value, const std::vector<TensorType>& types, const Places& from,
                 const Places& to, const std::string& source);
  int n_steps() const { return static_cast<int>(plan_.steps[0].size()); }
  std::vector<TensorType> types(ir::ValueId value) const;

  const std::vector<ir::Graph>& chips_;
  std::vector<std::vector<ir::NodeId>> readers_;  // of each value
  std::vector<OutputTarget> targets_;
  std::vector<std::vector<size_t>> targets_of_;  // of each value: indices of targets_
  std::vector<int64_t> last_read_;               // of each value: node
  std::vector<Places> places_;                   // of each value
  std::vector<int> written_by_;                  // of each value: the step that made it, or -1
  std::unordered_map<ir::ValueId, Cost> contiguous_costs_;
  std::unordered_map<int, ir::ValueId> buffers_;  // piece -> input that holds it
  GraphPlan plan_;
};

}  // namespace shardwright::plan
