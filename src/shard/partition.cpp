// Partition: the same walk for every chip; what differs are shapes, begins and slices.
#include "shard/partition.h"

#include <algorithm>
#include <map>
#include <unordered_set>

#include "base/check.h"
#include "shard/cost.h"
#include "shard/merge_exchanges.h"

namespace shardwright::shard {
namespace {

const ops::OpDef& conversion_op(const char* name) {
  const ops::OpDef* op = ops::find_op(name);
  CHECK(op != nullptr, std::string("no operator ") + name);
  return *op;
}

// "whole", "split1", "split1_sum", "partial": part of a value's name.
std::string suffix_of(const State& state) {
  if (state == kWhole) return "whole";
  if (state == kPartialSum) return "partial";
  if (state == kPartialMax) return "partial_max";
  std::string text = "split" + std::to_string(state.dim);
  if (state.variant == Variant::kSum) text += "_sum";
  if (state.variant == Variant::kOwn) text += "_own";
  if (state.variant == Variant::kEven) text += "_even";
  return text;
}

ops::Combine combine_of(const State& from) {
  if (from.kind == StateKind::kPartialMax) return ops::Combine::kMax;
  const bool sum =
      from.kind == StateKind::kPartialSum || (from.is_split() && from.variant == Variant::kSum);
  return sum ? ops::Combine::kSum : ops::Combine::kCopy;
}

// Builds the graph of one chip.
class ChipBuilder {
 public:
  ChipBuilder(const ir::Graph& graph, const Solution& solution, int chip)
      : graph_(graph),
        solution_(solution),
        producers_(graph.producers()),
        consumers_(graph.consumers()),
        chip_(chip),
        at_hand_(graph.values.size()) {
    local_.name = graph.name;
    local_.sources = graph.sources;
    local_.groups = graph.groups;
  }

  ir::Graph build() {
    for (size_t i = 0; i < graph_.inputs.size(); ++i) add_input(i);
    for (size_t n = 0; n < graph_.nodes.size(); ++n) add_node(n);
    for (size_t i = 0; i < graph_.outputs.size(); ++i) add_output(i);
    return std::move(local_);
  }

 private:
  struct AtHand {
    State state;
    ir::ValueId local;
  };
  // What asks for a conversion, for its name in explanations.
  struct Demand {
    std::string who;
    ir::NodeId node = -1;
    int source = -1;
  };

  const Colours& colours() const { return solution_.colours; }
  TensorType type_in(ir::ValueId value, const State& state) const {
    return local_type(graph_, value, state, colours(), chip_);
  }
  std::vector<Range> piece_in(ir::ValueId value, const State& state) const {
    return piece_of(graph_, value, state, colours(), chip_);
  }
  const std::string& name(ir::ValueId value) const {
    return graph_.values[static_cast<size_t>(value)].name;
  }

  ir::ValueId add_value(TensorType type, std::string base) {
    std::string unique = base;
    for (int i = 2; !names_.insert(unique).second; ++i) unique = base + "_" + std::to_string(i);
    local_.values.push_back({std::move(unique), std::move(type)});
    return static_cast<ir::ValueId>(local_.values.size()) - 1;
  }

  ir::ValueId make(ir::ValueId value, const State& state, const std::string& suffix) {
    const ir::ValueId local =
        add_value(type_in(value, state), suffix.empty() ? name(value) : name(value) + suffix);
    at_hand_[static_cast<size_t>(value)].push_back({state, local});
    return local;
  }

  void add_input(size_t i) {
    ir::Input input = graph_.inputs[i];
    const State state = solution_.inputs[i];
    CHECK(!state.is_partial(), "input " + input.name + " can't be partial");
    input.piece = piece_in(input.value, state);
    if (input.role != ir::InputRole::kUserInput)
      for (size_t d = 0; d < input.piece.size(); ++d)
        input.ref.offset += input.piece[d].begin * input.ref.strides[d];
    input.value = make(input.value, state, "");
    local_.inputs.push_back(std::move(input));
  }

  void add_node(size_t n) {
    const ir::Node& node = graph_.nodes[n];
    const Strategy& strategy = solution_.strategies[n];
    ir::Node local{.op = node.op,
                   .attrs = node.attrs,
                   .inputs = {},
                   .outputs = {},
                   .source = node.source,
                   .group = node.group};
    for (size_t i = 0; i < node.inputs.size(); ++i)
      local.inputs.push_back(
          node.inputs[i] == ir::kNoValue
              ? ir::kNoValue
              : wanted(node.inputs[i], strategy.operands[i],
                       demand_of(static_cast<ir::NodeId>(n), strategy.operands[i])));
    for (size_t i = 0; i < node.outputs.size(); ++i)
      local.outputs.push_back(make(node.outputs[i], strategy.results[i], ""));
    local.begins = begins_of(graph_, node, *solution_.rules[n], strategy, colours(), chip_);
    local_.nodes.push_back(std::move(local));
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      const auto hub = solution_.hubs.find(node.outputs[i]);
      if (hub != solution_.hubs.end())
        wanted(node.outputs[i], hub->second,
               demand_of_readers(static_cast<ir::NodeId>(n), node.outputs[i], hub->second));
    }
  }

  // "whole for split m of layers.0.q_proj (linear), model.py:3"
  Demand demand_of(ir::NodeId id, const State& state) const {
    const ir::Node& node = graph_.nodes[static_cast<size_t>(id)];
    const Strategy& strategy = solution_.strategies[static_cast<size_t>(id)];
    return {to_string(state) + " for " + (strategy.factor < 0 ? "" : strategy.name + " of ") +
                graph_.describe(node),
            id, node.source};
  }

  // Of those that read a value in the state that it is kept in, the first.
  Demand demand_of_readers(ir::NodeId id, ir::ValueId value, const State& state) const {
    std::vector<ir::NodeId> readers;
    for (const ir::NodeId reader : consumers_[static_cast<size_t>(value)]) {
      const ir::Node& node = graph_.nodes[static_cast<size_t>(reader)];
      const Strategy& strategy = solution_.strategies[static_cast<size_t>(reader)];
      for (size_t i = 0; i < node.inputs.size(); ++i)
        if (node.inputs[i] == value && strategy.operands[i] == state) {
          readers.push_back(reader);
          break;
        }
    }
    if (readers.empty()) {
      const ir::Node& node = graph_.nodes[static_cast<size_t>(id)];
      return {to_string(state) + " after " + graph_.describe(node), id, node.source};
    }
    Demand demand = demand_of(readers[0], state);
    if (readers.size() > 1) demand.who += " and " + std::to_string(readers.size() - 1) + " more";
    return demand;
  }

  void add_output(size_t i) {
    ir::Output output = graph_.outputs[i];
    const State state = solution_.outputs[i];
    output.piece = piece_in(output.value, state);
    output.value = wanted(output.value, state, {"output " + output.name});
    local_.outputs.push_back(std::move(output));
  }

  // The value in that state: as it is, or converted from the cheapest state at hand. The choice is
  // the same on all chips: costs are those of the largest piece.
  ir::ValueId wanted(ir::ValueId value, const State& state, const Demand& demand) {
    const std::vector<AtHand>& have = at_hand_[static_cast<size_t>(value)];
    CHECK(!have.empty(), "%" + name(value) + " is read before it is made");
    size_t best = 0;
    Cost least = -1;
    for (size_t i = 0; i < have.size(); ++i) {
      if (have[i].state == state) return have[i].local;
      const Cost cost = cost_of_seconds(conversion_seconds(graph_, value, have[i].state, state,
                                                           colours(), solution_.options.machine));
      if (least < 0 || cost < least) {
        least = cost;
        best = i;
      }
    }
    const AtHand from = have[best];
    const Conversion c = conversion(from.state, state);
    ir::ValueId local = from.local;
    if (c.transfer != Transfer::kNone) local = add_exchange(value, from, c, demand);
    if (c.reached == state) return local;
    return convert_locally(value, {c.reached, local}, state, demand.source);
  }

  // Of a value that is partial: whose split made it so, through operators that pass partial sums
  // on (of several, the last: the others may have been added up for other readers already); -1 if
  // nobody's did.
  ir::NodeId who_left_partial(ir::ValueId value) const {
    for (ir::NodeId node = producers_[static_cast<size_t>(value)]; node >= 0;) {
      const auto n = static_cast<size_t>(node);
      const Strategy& strategy = solution_.strategies[n];
      if (strategy.factor >= 0) return node;
      ir::NodeId next = -1;
      for (size_t i = 0; i < strategy.operands.size(); ++i)
        if (strategy.operands[i].is_partial() && is_kept_partial(graph_.nodes[n].inputs[i]))
          next = std::max(next, producers_[static_cast<size_t>(graph_.nodes[n].inputs[i])]);
      node = next;
    }
    return -1;
  }

  // Not a value that became partial for this reader alone (whole on one chip, zero on the others).
  bool is_kept_partial(ir::ValueId value) const {
    const auto hub = solution_.hubs.find(value);
    if (hub != solution_.hubs.end()) return hub->second.is_partial();
    const ir::NodeId producer = producers_[static_cast<size_t>(value)];
    if (producer < 0) return false;
    const ir::Node& node = graph_.nodes[static_cast<size_t>(producer)];
    const auto result = std::find(node.outputs.begin(), node.outputs.end(), value);
    return solution_.strategies[static_cast<size_t>(producer)]
        .results[static_cast<size_t>(result - node.outputs.begin())]
        .is_partial();
  }

  // Partial sums must be added up because of the split that left them, whoever asks first.
  Demand cause_of(ir::ValueId value, const AtHand& from, const Demand& demand) const {
    const ir::NodeId node = from.state.is_partial() ? who_left_partial(value) : -1;
    if (node < 0) return demand;
    const ir::Node& n = graph_.nodes[static_cast<size_t>(node)];
    return {solution_.strategies[static_cast<size_t>(node)].name + " of " + graph_.describe(n),
            node, demand.source};
  }

  ir::ValueId add_exchange(ir::ValueId value, const AtHand& from, const Conversion& c,
                           const Demand& demand) {
    ops::Exchange e{.kind = transfer_name(c.transfer),
                    .combine = combine_of(from.state),
                    .from_cuts = {},
                    .to_cuts = {},
                    .shape = graph_.type(value).shape,
                    .n = colours().n_chips};
    if (from.state.is_split()) {
      e.from_dim = from.state.dim;
      e.from_cuts = state_cuts(graph_, value, from.state, colours());
    }
    if (c.reached.is_split()) {
      e.to_dim = c.reached.dim;
      e.to_cuts = state_cuts(graph_, value, c.reached, colours());
    }
    ir::Node node{.op = &ops::exchange,
                  .attrs = ops::to_attrs(e),
                  .inputs = {from.local},
                  .outputs = {make(value, c.reached, "." + suffix_of(c.reached))},
                  .source = demand.source};
    const Demand cause = cause_of(value, from, demand);
    node.attrs.set("forced", cause.who);
    node.attrs.set("forced_by", int64_t{cause.node});
    local_.nodes.push_back(std::move(node));
    return local_.nodes.back().outputs[0];
  }

  ir::ValueId add_local(const char* op, ops::Attrs attrs, ir::ValueId from, ir::ValueId to,
                        int source) {
    local_.nodes.push_back({.op = &conversion_op(op),
                            .attrs = std::move(attrs),
                            .inputs = {from},
                            .outputs = {to},
                            .source = source});
    return to;
  }

  // The free conversions: cut out the rows that count here, and put zeros around them.
  ir::ValueId convert_locally(ir::ValueId value, const AtHand& from, const State& to, int source) {
    const std::string suffix = "." + suffix_of(to);
    if (to == kPartialMax) {  // the maximum of equal copies
      at_hand_[static_cast<size_t>(value)].push_back({to, from.local});
      return from.local;
    }
    if (to == kPartialSum && from.state == kWhole)
      return add_local("keep", {{"keep", chip_ == 0}}, from.local, make(value, to, suffix), source);

    const int dim = to.is_split() ? to.dim : from.state.dim;
    const auto d = static_cast<size_t>(dim);
    const Range held = piece_in(value, from.state)[d];
    const Range target = piece_in(value, to)[d];
    if (to.is_split() && to.variant != Variant::kSum)
      return add_slice(dim, held, target, from.local, make(value, to, suffix), source);

    // The pieces will be added up: of equal copies one counts, that of the first chip.
    Range rows = held;
    ir::ValueId local = from.local;
    const Cuts cuts = state_cuts(graph_, value, split(dim), colours());
    const bool has_copies =
        from.state == kWhole || (from.state.variant == Variant::kSame && overlaps(cuts));
    if (has_copies) {
      rows = own_cuts(cuts)[static_cast<size_t>(chip_)];
      TensorType type = graph_.type(value);
      type.shape[d] = rows.size();
      local = add_slice(dim, held, rows, local, add_value(type, name(value) + ".rows"), source);
    }
    return add_local("zero_pad",
                     {{"dim", int64_t{dim}},
                      {"before", rows.begin - target.begin},
                      {"after", target.end - rows.end}},
                     local, make(value, to, suffix), source);
  }

  // `rows` of a piece that holds the rows `held`.
  ir::ValueId add_slice(int dim, const Range& held, const Range& rows, ir::ValueId from,
                        ir::ValueId to, int source) {
    return add_local("slice",
                     {{"dim", int64_t{dim}},
                      {"start", rows.begin - held.begin},
                      {"end", rows.end - held.begin},
                      {"step", int64_t{1}}},
                     from, to, source);
  }

  const ir::Graph& graph_;
  const Solution& solution_;
  const std::vector<ir::NodeId> producers_;  // of each global value
  const std::vector<std::vector<ir::NodeId>> consumers_;
  const int chip_;
  ir::Graph local_;
  std::vector<std::vector<AtHand>> at_hand_;  // of each global value
  std::unordered_set<std::string> names_;
};

}  // namespace

std::vector<ir::Graph> partition(const ir::Module&, const ir::Graph& graph,
                                 const Solution& solution) {
  CHECK(solution.strategies.size() == graph.nodes.size());
  std::vector<ir::Graph> chips;
  for (int chip = 0; chip < solution.options.n_chips; ++chip)
    chips.push_back(ChipBuilder(graph, solution, chip).build());
  merge_exchanges(&chips);
  return chips;
}

std::vector<ExchangeInfo> exchanges_of(const ir::Graph& local, const Machine& machine) {
  std::vector<ExchangeInfo> result;
  for (const ir::Node& node : local.nodes) {
    if (node.op != &ops::exchange) continue;
    ExchangeInfo info{.exchange = ops::exchange_of(node.attrs),
                      .dtype = local.type(node.inputs[0]).dtype,
                      .value = local.values[static_cast<size_t>(node.inputs[0])].name};
    if (node.attrs.has("forced")) info.forced = node.attrs.text("forced");
    if (node.attrs.has("forced_by"))
      info.forced_by = static_cast<ir::NodeId>(node.attrs.integer("forced_by"));
    info.seconds = exchange_seconds(info.exchange, info.dtype, machine);
    for (int chip = 0; chip < info.exchange.n; ++chip)
      info.received_bytes.push_back(ops::received_bytes(info.exchange, info.dtype, chip));
    result.push_back(std::move(info));
  }
  return result;
}

}  // namespace shardwright::shard
