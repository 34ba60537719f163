// Reads the strategies of a node off its rule: one for each factor that can be split, one for each
// group of operands in which the operator is linear, and their variants where pieces overlap.
#include "shard/strategies.h"

#include <algorithm>

#include "base/check.h"
#include "base/checked.h"
#include "shard/cost.h"

namespace shardwright::shard {
namespace {

using ops::FactorKind;
using ops::Rule;
using ops::Words;

// The operands of each group of OpDef::linear, by index.
std::vector<std::vector<size_t>> linear_groups(const ir::Node& node) {
  std::vector<std::vector<size_t>> groups;
  const std::vector<ops::Argument>& arguments = ops::arguments_of(*node.op);
  for (std::string_view names : node.op->linear) {
    std::vector<size_t>& group = groups.emplace_back();
    while (!names.empty()) {
      const std::string_view name = names.substr(0, names.find(' '));
      names.remove_prefix(std::min(names.size(), name.size() + 1));
      const auto it = std::find_if(arguments.begin(), arguments.end(),
                                   [&](const ops::Argument& a) { return a.name == name; });
      CHECK(it != arguments.end() && it->is_tensor(),
            std::string(node.op->name) + ": linear in no operand named " + std::string(name));
      const auto first = static_cast<size_t>(it - arguments.begin());
      const bool list = it->kind == ops::Argument::Kind::kTensors;
      for (size_t i = first; i < (list ? node.inputs.size() : first + 1); ++i)
        if (i < node.inputs.size() && node.inputs[i] != ir::kNoValue) group.push_back(i);
    }
    if (group.empty()) groups.pop_back();
  }
  return groups;
}

class Enumerator {
 public:
  Enumerator(const ir::Graph& graph, const ir::Node& node, const Rule& rule, const Colours& colours)
      : graph_(graph), node_(node), rule_(rule), colours_(colours), groups_(linear_groups(node)) {}

  std::vector<Strategy> all() {
    add(blank("none"));
    for (int f = 0; f < static_cast<int>(rule_.factors.size()); ++f)
      if (rule_.splittable(f)) add_splits(f);
    for (const std::vector<size_t>& group : groups_) add_linear(group);
    return std::move(strategies_);
  }

 private:
  Strategy blank(std::string name) const {
    return {.name = std::move(name),
            .operands = std::vector<State>(node_.inputs.size()),
            .results = std::vector<State>(node_.outputs.size())};
  }

  DType dtype(ir::ValueId value) const { return graph_.type(value).dtype; }

  // Only floating-point values may be partial: integers and booleans may mean "all" or "none", and
  // a cast that narrows rounds each piece.
  bool group_may_be_partial(const std::vector<size_t>& group) const {
    return std::all_of(node_.outputs.begin(), node_.outputs.end(), [&](ir::ValueId result) {
      return is_floating(dtype(result)) && std::all_of(group.begin(), group.end(), [&](size_t i) {
               const DType operand = dtype(node_.inputs[i]);
               return is_floating(operand) && promote(operand, dtype(result)) == dtype(result);
             });
    });
  }

  std::string group_name(const std::vector<size_t>& group) const {
    const std::vector<ops::Argument>& arguments = ops::arguments_of(*node_.op);
    std::string name;
    for (const size_t i : group) {
      const bool named = i < arguments.size() && arguments[i].is_tensor() &&
                         arguments[i].kind != ops::Argument::Kind::kTensors;
      name += " " + (named ? arguments[i].name : std::to_string(i));
    }
    return name;
  }

  void add_linear(const std::vector<size_t>& group) {
    if (!group_may_be_partial(group)) return;
    Strategy strategy = blank("linear" + group_name(group));
    for (const size_t i : group) strategy.operands[i] = kPartialSum;
    for (State& state : strategy.results) state = kPartialSum;
    add(std::move(strategy));
  }

  void add_splits(int f) {
    const std::optional<Cuts> cuts = factor_cuts(graph_, node_, rule_, f, colours_);
    if (!cuts) return;
    if (is_better_even(f, *cuts)) add_split(f, Variant::kEven, {});
    if (!overlaps(*cuts)) {
      add_split(f, Variant::kSame, {});
      return;
    }
    // Overlapping rows and a dimension that shares rows of them: the covering of owned rows is not
    // what the colours give, so such a factor stays together.
    if (shares(f)) return;
    // Adding up a dimension would count the shared rows twice: they need one owner.
    if (rule_.factors[static_cast<size_t>(f)].kind != FactorKind::kSum)
      add_split(f, Variant::kSame, {});
    add_split(f, Variant::kOwn, {});
    for (const std::vector<size_t>& group : groups_) {
      const bool all_hold = std::all_of(group.begin(), group.end(), [&](size_t i) {
        return Rule::dim_of(rule_.operands[i], f) >= 0;
      });
      if (all_hold && group_may_be_partial(group) &&
          rule_.factors[static_cast<size_t>(f)].kind != FactorKind::kMax)
        add_split(f, Variant::kSum, group);
    }
  }

  // Where a colour's grains are coarse (heads), a gemm may cut its rows anywhere else: the pieces
  // then go to where the colour wants them.
  bool is_better_even(int f, const Cuts& cuts) const {
    const int64_t size = rule_.factors[static_cast<size_t>(f)].size;
    if (!is_gemm(node_, rule_) || count_pieces(cuts) < colours_.n_chips ||
        largest_piece(even_cuts(size, colours_.n_chips)) >= largest_piece(cuts))
      return false;
    const auto is_simple = [&](const Words& words) {
      const int dim = Rule::dim_of(words, f);
      if (dim < 0) return !rule_.contains(words, f);
      const ops::Word& word = words[static_cast<size_t>(dim)];
      return word.factors.size() == 1 && word.share == 1;
    };
    return std::all_of(rule_.operands.begin(), rule_.operands.end(), is_simple) &&
           std::all_of(rule_.results.begin(), rule_.results.end(), is_simple);
  }

  bool shares(int f) const {
    const auto shared = [&](const Words& words) {
      const int dim = Rule::dim_of(words, f);
      return dim >= 0 && words[static_cast<size_t>(dim)].share > 1;
    };
    return std::any_of(rule_.operands.begin(), rule_.operands.end(), shared) ||
           std::any_of(rule_.results.begin(), rule_.results.end(), shared);
  }

  // Operands and results that hold `f` are split; results that don't are partial. Where pieces
  // overlap: `variant`; for kSum that of the operands in `group`, the others same.
  void add_split(int f, Variant variant, const std::vector<size_t>& group) {
    Strategy strategy = blank("split " + rule_.factors[static_cast<size_t>(f)].name);
    strategy.factor = f;
    strategy.variant = variant;
    if (variant == Variant::kOwn) strategy.name += " own";
    if (variant == Variant::kEven) strategy.name += " even";
    if (variant == Variant::kSum) strategy.name += " sum" + group_name(group);
    for (size_t i = 0; i < node_.inputs.size(); ++i) {
      const int dim = node_.inputs[i] == ir::kNoValue ? -1 : Rule::dim_of(rule_.operands[i], f);
      if (dim < 0 || is_one_row(node_.inputs[i], rule_.operands[i], dim)) continue;
      const bool in_group = std::find(group.begin(), group.end(), i) != group.end();
      const Variant own = variant == Variant::kSum && !in_group ? Variant::kSame : variant;
      strategy.operands[i] = split(dim, own);
    }
    for (size_t i = 0; i < node_.outputs.size(); ++i) {
      const std::optional<State> state = result_state(f, variant, i);
      if (!state) return;
      strategy.results[i] = *state;
    }
    add(std::move(strategy));
  }

  // A shared dimension of one row (one KV head): every chip holds it.
  bool is_one_row(ir::ValueId value, const Words& words, int dim) const {
    return words[static_cast<size_t>(dim)].share > 1 &&
           graph_.type(value).shape[static_cast<size_t>(dim)] == 1;
  }

  std::optional<State> result_state(int f, Variant variant, size_t i) const {
    const ir::ValueId value = node_.outputs[i];
    const Words& words = rule_.results[i];
    const int dim = Rule::dim_of(words, f);
    const FactorKind kind = rule_.factors[static_cast<size_t>(f)].kind;
    const bool shared = dim >= 0 && words[static_cast<size_t>(dim)].share > 1;
    if (dim >= 0 && !shared) return split(dim, variant);

    // Each chip has a piece of the result: of all rows, or of those rows that it shares.
    if (!is_floating(dtype(value))) return std::nullopt;
    const bool partial = !shared || is_one_row(value, words, dim);
    if (kind == FactorKind::kMax && partial && variant != Variant::kSum) return kPartialMax;
    if (kind != FactorKind::kSum) return std::nullopt;
    if (partial) return kPartialSum;
    const int64_t size = graph_.type(value).shape[static_cast<size_t>(dim)];
    const bool overlap = overlaps(colours_.cuts(value, dim, size));
    return split(dim, overlap ? Variant::kSum : Variant::kSame);
  }

  void add(Strategy strategy) { strategies_.push_back(std::move(strategy)); }

  const ir::Graph& graph_;
  const ir::Node& node_;
  const Rule& rule_;
  const Colours& colours_;
  const std::vector<std::vector<size_t>> groups_;
  std::vector<Strategy> strategies_;
};

}  // namespace

std::vector<Strategy> strategies_of(const ir::Graph& graph, const ir::Node& node, const Rule& rule,
                                    const Colours& colours) {
  return Enumerator(graph, node, rule, colours).all();
}

Cuts state_cuts(const ir::Graph& graph, ir::ValueId value, const State& state,
                const Colours& colours) {
  CHECK(state.is_split());
  const int64_t size = graph.type(value).shape[static_cast<size_t>(state.dim)];
  if (state.variant == Variant::kEven) return even_cuts(size, colours.n_chips);
  Cuts cuts = colours.cuts(value, state.dim, size);
  return state.variant == Variant::kOwn ? own_cuts(cuts) : cuts;
}

Cuts strategy_cuts(const ir::Graph& graph, const ir::Node& node, const Rule& rule,
                   const Strategy& strategy, const Colours& colours) {
  CHECK(strategy.factor >= 0);
  if (strategy.variant == Variant::kEven)
    return even_cuts(rule.factors[static_cast<size_t>(strategy.factor)].size, colours.n_chips);
  const std::optional<Cuts> cuts = factor_cuts(graph, node, rule, strategy.factor, colours);
  CHECK(cuts.has_value(), "a strategy splits a factor that can't be cut");
  return strategy.variant == Variant::kOwn ? own_cuts(*cuts) : *cuts;
}

std::vector<Range> piece_of(const ir::Graph& graph, ir::ValueId value, const State& state,
                            const Colours& colours, int chip) {
  std::vector<Range> piece;
  for (const int64_t size : graph.type(value).shape) piece.push_back({0, size});
  if (state.is_split())
    piece[static_cast<size_t>(state.dim)] =
        state_cuts(graph, value, state, colours)[static_cast<size_t>(chip)];
  return piece;
}

TensorType local_type(const ir::Graph& graph, ir::ValueId value, const State& state,
                      const Colours& colours, int chip) {
  TensorType type = graph.type(value);
  if (state.is_split())
    type.shape[static_cast<size_t>(state.dim)] =
        state_cuts(graph, value, state, colours)[static_cast<size_t>(chip)].size();
  return type;
}

std::vector<std::pair<std::string, int64_t>> begins_of(const ir::Graph& graph, const ir::Node& node,
                                                       const Rule& rule, const Strategy& strategy,
                                                       const Colours& colours, int chip) {
  if (strategy.factor < 0) return {};
  const Cuts cuts = strategy_cuts(graph, node, rule, strategy, colours);
  return {{rule.factors[static_cast<size_t>(strategy.factor)].name,
           cuts[static_cast<size_t>(chip)].begin}};
}

}  // namespace shardwright::shard
