// Reasons and notes, read off the problem and its solution.
#include "shard/explain.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <map>

namespace shardwright::shard {
namespace {

// Below this the largest piece costs no more than what the model is off by anyway.
constexpr double kImbalanceWorthANote = 0.05;

Reason cost_reason(const NodeKind& kind, int next, Cost more) {
  const std::string& name = kind.strategies[static_cast<size_t>(next)].name;
  if (more / kCostPerPicosecond == 0)
    return {"cost", fmt::format("as fast as the next best ({}), with fewer transfers or first in "
                                "order",
                                name)};
  return {"cost", fmt::format("{:.3g} us less than the next best ({}), all else as it is",
                              seconds_of(more) * 1e6, name)};
}

int64_t nearest_divisor(int64_t size, int64_t n) {
  int64_t best = 1;
  for (int64_t d = 1; d <= size; ++d)
    if (size % d == 0 && std::abs(d - n) <= std::abs(best - n)) best = d;
  return best;
}

std::string pieces_text(const Cuts& cuts) {
  std::string text;
  for (const Range& cut : cuts) text += (text.empty() ? "" : " + ") + std::to_string(cut.size());
  return text;
}

std::string with_more(const std::string& first, size_t count) {
  return count == 1 ? first : fmt::format("{} and {} more", first, count - 1);
}

// Notes of constraints, each once with the nodes that it is about.
class Notes {
 public:
  void add(const std::string& text, const std::string& node) {
    auto [it, added] = at_.try_emplace(text, entries_.size());
    if (added) entries_.push_back({text, node, 0});
    ++entries_[it->second].count;
  }
  std::vector<std::string> all() const {
    std::vector<std::string> notes;
    for (const Entry& e : entries_) notes.push_back(with_more(e.node, e.count) + ": " + e.text);
    return notes;
  }

 private:
  struct Entry {
    std::string text;
    std::string node;
    size_t count;
  };
  std::map<std::string, size_t> at_;
  std::vector<Entry> entries_;
};

// Weight mode: work that stays whole because its dimension has fewer rows than there are chips; ""
// for other nodes.
std::string why_whole(const Formulation& f, size_t g, size_t n) {
  const ir::Node& node = f.facts[g].graph->nodes[n];
  const ops::Rule& rule = *f.facts[g].rules[n];
  if (f.mode() != Mode::kWeight || node.op->elementwise || node.op->view != nullptr) return {};
  for (int factor = 0; factor < static_cast<int>(rule.factors.size()); ++factor) {
    if (!rule.splittable(factor)) continue;
    const int colour = factor_colour(node, rule, factor, f.colours[g]);
    if (colour < 0) continue;
    const Colours::Colour& c = f.colours[g].colours[static_cast<size_t>(colour)];
    if (c.batch || c.dirty || c.follows >= 0 || c.grains >= f.colours[g].n_chips) continue;
    return fmt::format("runs whole on every chip: {} is {}, fewer than {} chips",
                       rule.factors[static_cast<size_t>(factor)].name, c.grains,
                       f.colours[g].n_chips);
  }
  return {};
}

}  // namespace

std::vector<Reason> reasons_of(const Formulation& f, size_t g, const std::vector<int>& choice) {
  const auto chosen = [&](int v) { return static_cast<size_t>(choice[static_cast<size_t>(v)]); };
  // What each value of each variable costs with all others as chosen.
  std::vector<std::vector<Cost>> costs;
  costs.reserve(f.problem.variables.size());
  for (const Problem::Variable& variable : f.problem.variables) costs.push_back(variable.costs);
  for (const Problem::Table& table : f.problem.tables) {
    std::vector<Cost>& of_a = costs[static_cast<size_t>(table.a)];
    std::vector<Cost>& of_b = costs[static_cast<size_t>(table.b)];
    for (size_t i = 0; i < of_a.size(); ++i)
      of_a[i] += (*table.costs)[i * of_b.size() + chosen(table.b)];
    for (size_t j = 0; j < of_b.size(); ++j)
      of_b[j] += (*table.costs)[chosen(table.a) * of_b.size() + j];
  }

  std::vector<Reason> reasons;
  for (size_t n = 0; n < f.graphs[g].nodes.size(); ++n) {
    const NodeKind& kind = f.kind(g, n);
    const int variable = f.graphs[g].nodes[n];
    const size_t mine = chosen(variable);
    const std::vector<Cost>& of = costs[static_cast<size_t>(variable)];
    int next = -1;
    for (size_t i = 0; i < of.size(); ++i)
      if (i != mine && (next < 0 || of[i] < of[static_cast<size_t>(next)]))
        next = static_cast<int>(i);
    Reason reason = kind.reason;
    if (reason.who.empty() && next < 0) reason = {"rule", "nothing else is possible"};
    if (reason.who.empty())
      reason = cost_reason(kind, next, of[static_cast<size_t>(next)] - of[mine]);
    reason.fell_back = kind.note;
    if (kind.strategies[mine].factor < 0 && kind.note.empty())
      reason.fell_back = why_whole(f, g, n);
    reasons.push_back(std::move(reason));
  }
  return reasons;
}

namespace {

// A colour that is split unevenly or with overlap, named by the operator that does most with it and
// its smallest dimension (the heads of attention, not the rows of a projection).
struct Uneven {
  bool by_work = false;  // named by an operator that multiplies and adds
  int64_t size = std::numeric_limits<int64_t>::max();
  std::string name;
  Cuts cuts;

  double above_mean() const {
    return static_cast<double>(largest_piece(cuts)) * static_cast<double>(cuts.size()) /
               static_cast<double>(size) -
           1;
  }
};

std::string uneven_note(const Uneven& uneven) {
  const auto n = static_cast<int64_t>(uneven.cuts.size());
  const std::string split = fmt::format("{}: {} over {} chips is {}", uneven.name, uneven.size, n,
                                        pieces_text(uneven.cuts));
  if (overlaps(uneven.cuts)) return split + ": what two chips need is held and computed by both";
  return fmt::format(
      "{}: the largest piece is {:.0f} % above the mean; nearest number of chips that divides it: "
      "{}",
      split, uneven.above_mean() * 100, nearest_divisor(uneven.size, n));
}

void add_uneven(const Formulation& f, size_t g, size_t n, int factor,
                std::map<int, Uneven>* found) {
  const ir::Graph& graph = *f.facts[g].graph;
  const ir::Node& node = graph.nodes[n];
  const ops::Rule& rule = *f.facts[g].rules[n];
  const int colour = factor_colour(node, rule, factor, f.colours[g]);
  const int64_t size = rule.factors[static_cast<size_t>(factor)].size;
  const bool by_work = node.op->flops != nullptr;
  Uneven& uneven = (*found)[colour];
  if (uneven.by_work > by_work || (uneven.by_work == by_work && size >= uneven.size)) return;
  uneven = {
      by_work, size,
      fmt::format("{} of {}", rule.factors[static_cast<size_t>(factor)].name, graph.describe(node)),
      f.colours[g].cuts_of(colour, size)};
}

}  // namespace

std::vector<std::string> notes_of(const Formulation& f, size_t g, const Solution& solution) {
  const ir::Graph& graph = *f.facts[g].graph;
  Notes notes;
  std::map<int, Uneven> uneven;
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    const Strategy& strategy = solution.strategies[n];
    const std::string& note = f.kind(g, n).note;
    if (!note.empty()) {
      const std::string instead =
          strategy.factor < 0
              ? ""
              : fmt::format(
                    ": split {} instead",
                    f.facts[g].rules[n]->factors[static_cast<size_t>(strategy.factor)].name);
      notes.add(note + instead, graph.describe(graph.nodes[n]));
    }
    if (strategy.factor >= 0 && strategy.variant != Variant::kEven)
      add_uneven(f, g, n, strategy.factor, &uneven);
    else if (const std::string why = why_whole(f, g, n); strategy.factor < 0 && !why.empty())
      notes.add(why, graph.describe(graph.nodes[n]));
  }
  std::vector<std::string> texts = notes.all();
  std::map<std::string, bool> said;  // layers have colours of their own that are cut alike
  for (const auto& [colour, u] : uneven) {
    if (!overlaps(u.cuts) && u.above_mean() < kImbalanceWorthANote) continue;
    if (said.try_emplace(fmt::format("{}: {}", u.size, pieces_text(u.cuts)), true).second)
      texts.push_back(uneven_note(u));
  }
  return texts;
}

}  // namespace shardwright::shard
