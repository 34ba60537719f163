// The modes as hard constraints on strategies (design: sharding.md, "Constraints, all hard").
#include "shard/constraints.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/error.h"
#include "shard/cost.h"

namespace shardwright::shard {
namespace {

using ops::Rule;

// Any colour flag over all dimensions that a factor is the major part of.
bool any_colour(const ConstraintView& view, int factor, bool Colours::Colour::*flag) {
  const auto flagged = [&](ir::ValueId value, const ops::Words& words) {
    const int dim = value == ir::kNoValue ? -1 : Rule::dim_of(words, factor);
    const Colours::Colour* colour = dim < 0 ? nullptr : view.colours.find(value, dim);
    return colour != nullptr && colour->*flag;
  };
  for (size_t i = 0; i < view.node.inputs.size(); ++i)
    if (flagged(view.node.inputs[i], view.rule.operands[i])) return true;
  for (size_t i = 0; i < view.node.outputs.size(); ++i)
    if (flagged(view.node.outputs[i], view.rule.results[i])) return true;
  return false;
}

const std::string& factor_name(const ConstraintView& view, int factor) {
  return view.rule.factors[static_cast<size_t>(factor)].name;
}

template <typename Predicate>
std::vector<int> indices_where(const ConstraintView& view, Predicate&& keep) {
  std::vector<int> indices;
  for (size_t i = 0; i < view.strategies.size(); ++i)
    if (keep(view.strategies[i])) indices.push_back(static_cast<int>(i));
  return indices;
}

Allowed only_none(std::string who, std::string text) {
  return {{0}, {std::move(who), std::move(text)}, ""};
}

bool holds_batch(const ConstraintView& view) {
  const auto holds = [&](ir::ValueId value) {
    if (value == ir::kNoValue) return false;
    for (int d = 0; d < view.graph.type(value).ndim(); ++d) {
      const Colours::Colour* colour = view.colours.find(value, d);
      if (colour != nullptr && colour->batch) return true;
    }
    return false;
  };
  return std::any_of(view.node.inputs.begin(), view.node.inputs.end(), holds) ||
         std::any_of(view.node.outputs.begin(), view.node.outputs.end(), holds);
}

// A node that holds the batch splits it; all others run whole on every chip.
Allowed in_batch_mode(const ConstraintView& view) {
  std::vector<int> split = indices_where(view, [&](const Strategy& s) {
    return s.factor >= 0 && any_colour(view, s.factor, &Colours::Colour::batch);
  });
  if (!split.empty()) {
    const std::string factor =
        factor_name(view, view.strategies[static_cast<size_t>(split[0])].factor);
    return {std::move(split), {"mode batch", "splits the batch (" + factor + ")"}, ""};
  }
  Allowed none = only_none("mode batch", "holds no batch");
  if (holds_batch(view)) {
    none.reason.text = "needs the whole batch";
    none.note = "needs the whole batch on every chip: it is gathered first";
  }
  return none;
}

// Rows that several chips need (a shared KV head) are computed by each of them: computing them once
// and exchanging them would win fractions of a percent in the model and cost a transfer.
bool computes_rows_once(const ConstraintView& view, const Strategy& strategy) {
  return strategy.variant == Variant::kOwn &&
         view.rule.factors[static_cast<size_t>(strategy.factor)].kind == ops::FactorKind::kPlain;
}

// A factor that could be split in weight mode.
struct Choice {
  int factor;
  int pieces;
  bool clean;
};

Choice choice_of(const ConstraintView& view, int factor) {
  const std::optional<Cuts> cuts =
      factor_cuts(view.graph, view.node, view.rule, factor, view.colours);
  return {factor, cuts ? count_pieces(*cuts) : 0,
          !any_colour(view, factor, &Colours::Colour::dirty)};
}

// The candidates that split one of `choices` for which `keep` holds.
template <typename Predicate>
Allowed keep_splits(const ConstraintView& view, const std::vector<int>& candidates,
                    const std::vector<Choice>& choices, const char* reason, Predicate&& keep) {
  Allowed allowed;
  for (const int i : candidates) {
    const Strategy& strategy = view.strategies[static_cast<size_t>(i)];
    if (strategy.factor < 0 || computes_rows_once(view, strategy)) continue;
    // Once, even if two weights (an int8 one and its scale) hold the factor.
    if (std::any_of(choices.begin(), choices.end(), [&](const Choice& choice) {
          return choice.factor == strategy.factor && keep(choice);
        }))
      allowed.strategies.push_back(i);
  }
  if (allowed.strategies.empty()) return allowed;
  const int first = view.strategies[static_cast<size_t>(allowed.strategies[0])].factor;
  allowed.reason = {"mode weight", fmt::format(fmt::runtime(reason), factor_name(view, first),
                                               view.colours.n_chips)};
  return allowed;
}

// Splits of a gemm's weight, the best kind first: a clean dimension with a piece for every chip;
// any with a piece for every chip; any.
Allowed weight_splits(const ConstraintView& view, const std::vector<Choice>& choices,
                      const std::vector<int>& candidates) {
  const int n = view.colours.n_chips;
  const auto keep = [&](const char* reason, auto&& predicate) {
    return keep_splits(view, candidates, choices, reason, predicate);
  };
  Allowed allowed =
      keep("clean dimension {0}", [&](const Choice& c) { return c.clean && c.pieces == n; });
  if (!allowed.strategies.empty()) return allowed;
  allowed = keep("no clean dimension has a piece for each of {1} chips",
                 [&](const Choice& c) { return c.pieces == n; });
  if (allowed.strategies.empty())
    allowed =
        keep("no dimension has a piece for each of {1} chips", [](const Choice&) { return true; });
  for (const Choice& c : choices)
    if (c.clean && c.pieces < n && !allowed.strategies.empty())
      allowed.note = fmt::format("{} divides into only {} pieces for {} chips",
                                 factor_name(view, c.factor), c.pieces, n);
  return allowed;
}

// Between two gemms a clean dimension stays split: nothing needs it whole. What is left to cost is
// how the others (the residual stream) are kept: whole or split by tokens.
Allowed in_weight_mode(const ConstraintView& view, const std::vector<int>& candidates) {
  std::vector<Choice> of_weight, all;
  bool has_weight = false;
  for (int f = 0; f < static_cast<int>(view.rule.factors.size()); ++f)
    if (view.rule.splittable(f)) all.push_back(choice_of(view, f));
  for (size_t i = 0; i < view.node.inputs.size() && is_gemm(view.node, view.rule); ++i) {
    if (!view.is_weight[i]) continue;
    has_weight = true;
    for (const Choice& choice : all)
      if (Rule::dim_of(view.rule.operands[i], choice.factor) >= 0) of_weight.push_back(choice);
  }
  if (has_weight) {
    Allowed allowed = weight_splits(view, of_weight, candidates);
    if (!allowed.strategies.empty()) return allowed;
    return {candidates, {}, "has a weight that can't be split: it is whole on every chip"};
  }
  const int n = view.colours.n_chips;
  Allowed allowed = keep_splits(view, candidates, all, "clean dimension {0}",
                                [&](const Choice& c) { return c.clean && c.pieces == n; });
  return allowed.strategies.empty() ? Allowed{candidates, {}, ""} : allowed;
}

Allowed as_fixed(const ConstraintView& view, const std::vector<int>& candidates) {
  const SolveOptions::Fixed& fixed = *view.fixed;
  Allowed allowed;
  allowed.reason = {fixed.reason, "splits " + fixed.factor};
  std::string names;
  for (const int i : candidates) {
    const Strategy& s = view.strategies[static_cast<size_t>(i)];
    if (s.factor < 0) continue;
    if (factor_name(view, s.factor) == fixed.factor) allowed.strategies.push_back(i);
    names += (names.empty() ? "" : ", ") + factor_name(view, s.factor);
  }
  if (allowed.strategies.empty())
    throw Error(ErrorCode::kUsage,
                fmt::format("{}: {} can't be split by {} over {} chips; {}", fixed.reason,
                            view.graph.describe(view.node), fixed.factor, view.colours.n_chips,
                            names.empty() ? "it can't be split at all" : "possible: " + names));
  return allowed;
}

Allowed what_if(const ConstraintView& view) {
  if (view.what_if->factor < 0) return only_none("what if", "runs whole");
  const auto splits = [&](const Strategy& s) { return s.factor == view.what_if->factor; };
  std::vector<int> strategies = indices_where(
      view, [&](const Strategy& s) { return splits(s) && !computes_rows_once(view, s); });
  if (strategies.empty()) strategies = indices_where(view, splits);
  return {
      std::move(strategies), {"what if", "splits " + factor_name(view, view.what_if->factor)}, ""};
}

}  // namespace

Allowed allowed_strategies(const ConstraintView& view, const SolveOptions& options) {
  if (view.what_if != nullptr) return what_if(view);
  switch (options.mode) {
    case Mode::kNone:
      return only_none("mode none", "every chip runs it whole");
    case Mode::kBatch:
      return in_batch_mode(view);
    case Mode::kWeight:
    case Mode::kAuto:
      break;
  }
  const bool weight = options.mode == Mode::kWeight;
  const std::vector<int> candidates = indices_where(view, [&](const Strategy& s) {
    return !weight || s.factor < 0 || !any_colour(view, s.factor, &Colours::Colour::batch);
  });
  if (view.fixed != nullptr) return as_fixed(view, candidates);
  return weight ? in_weight_mode(view, candidates) : Allowed{candidates, {}, ""};
}

void check_batch(const ir::Graph& graph, int n_chips) {
  const int input = batch_input(graph);
  if (input < 0)
    throw Error(ErrorCode::kUsage,
                fmt::format("graph {} has no input with a batch dimension to split over {} chips: "
                            "use --tensor-parallel weight, or --n-chips 1",
                            graph.name, n_chips));
  const int64_t batch = graph.type(graph.inputs[static_cast<size_t>(input)].value).shape[0];
  if (batch < n_chips)
    throw Error(
        ErrorCode::kUsage,
        fmt::format("batch {} is smaller than {} chips: give -b {} or more, or --n-chips {}", batch,
                    n_chips, n_chips, std::max<int64_t>(batch, 1)));
}

}  // namespace shardwright::shard
