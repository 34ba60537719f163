// Union-find over (value, dimension) pairs, and the cuts that follow from it.
#include "shard/colours.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "base/check.h"
#include "base/checked.h"

namespace shardwright::shard {
namespace {

using ops::Rule;
using ops::Words;

// A dimension that holds `share` rows of a factor of `size` in each of its own rows.
struct Follow {
  int slot;
  int base;
  int64_t size;
  int64_t share;
};

class Joiner {
 public:
  explicit Joiner(const ir::Module& module) : module_(module) {
    for (const ir::Graph& graph : module.graphs) {
      std::vector<int>& first = first_slot_.emplace_back();
      for (const ir::Value& value : graph.values) {
        first.push_back(static_cast<int>(parent_.size()));
        for (const int64_t size : value.type.shape) {
          parent_.push_back(static_cast<int>(parent_.size()));
          grains_.push_back(size);
          dirty_.push_back(false);
        }
      }
    }
    share_tensors();
  }

  void add(size_t graph, const ir::Node& node, const Rule& rule) {
    holder_.assign(rule.factors.size(), -1);
    shared_.clear();
    for (size_t i = 0; i < node.inputs.size(); ++i)
      if (node.inputs[i] != ir::kNoValue) add_words(graph, node.inputs[i], rule, rule.operands[i]);
    for (size_t i = 0; i < node.outputs.size(); ++i)
      add_words(graph, node.outputs[i], rule, rule.results[i]);
    for (const auto& [factor, slot, share] : shared_) {
      const int base = holder_[static_cast<size_t>(factor)];
      if (base >= 0)
        follows_.push_back({slot, base, rule.factors[static_cast<size_t>(factor)].size, share});
    }
  }

  std::vector<Colours> finish(int n_chips) {
    std::vector<Colours> result(module_.graphs.size());
    std::vector<int> number(parent_.size(), -1);
    std::vector<Colours::Colour> colours;
    for (size_t g = 0; g < result.size(); ++g) {
      const ir::Graph& graph = module_.graphs[g];
      result[g].n_chips = n_chips;
      for (size_t v = 0; v < graph.values.size(); ++v) {
        std::vector<int>& of = result[g].of.emplace_back();
        const Shape& shape = graph.values[v].type.shape;
        for (size_t d = 0; d < shape.size(); ++d) {
          const auto root = static_cast<size_t>(find(first_slot_[g][v] + static_cast<int>(d)));
          if (shape[d] > 1 && number[root] < 0) {
            number[root] = static_cast<int>(colours.size());
            colours.push_back({.grains = grains_[root], .dirty = dirty_[root]});
          }
          of.push_back(shape[d] > 1 ? number[root] : -1);
        }
      }
    }
    for (const Follow& follow : follows_) link(follow, number, &colours);
    for (Colours& c : result) c.colours = colours;
    return result;
  }

 private:
  struct Shared {
    int factor;
    int slot;
    int64_t share;
  };

  int find(int slot) {
    while (parent_[static_cast<size_t>(slot)] != slot) {
      int& parent = parent_[static_cast<size_t>(slot)];
      parent = parent_[static_cast<size_t>(parent)];
      slot = parent;
    }
    return slot;
  }

  void join(int a, int b) {
    a = find(a);
    b = find(b);
    if (a == b) return;
    const auto [low, high] = std::minmax(a, b);
    const auto l = static_cast<size_t>(low), h = static_cast<size_t>(high);
    parent_[h] = low;
    grains_[l] = std::gcd(grains_[l], grains_[h]);
    dirty_[l] = dirty_[l] || dirty_[h];
  }

  // The dimensions of an input that two graphs share are one.
  void share_tensors() {
    std::map<std::tuple<int, int64_t, Strides, Shape>, int> seen;
    for (size_t g = 0; g < module_.graphs.size(); ++g) {
      const ir::Graph& graph = module_.graphs[g];
      for (const ir::Input& input : graph.inputs) {
        if (input.role == ir::InputRole::kUserInput || input.ref.tensor < 0) continue;
        const Shape& shape = graph.type(input.value).shape;
        const int slot = first_slot_[g][static_cast<size_t>(input.value)];
        const auto [it, added] = seen.try_emplace(
            std::tuple(input.ref.tensor, input.ref.offset, input.ref.strides, shape), slot);
        for (int d = 0; !added && d < static_cast<int>(shape.size()); ++d)
          join(it->second + d, slot + d);
      }
    }
  }

  void add_words(size_t graph, ir::ValueId value, const Rule& rule, const Words& words) {
    for (size_t d = 0; d < words.size(); ++d) {
      const ops::Word& word = words[d];
      if (word.factors.empty()) continue;
      const int factor = word.factors[0];
      const int64_t size = rule.factors[static_cast<size_t>(factor)].size;
      const int slot = first_slot_[graph][static_cast<size_t>(value)] + static_cast<int>(d);
      const auto root = static_cast<size_t>(find(slot));
      if (!rule.splittable(factor)) {
        dirty_[root] = true;
        continue;
      }
      // Cuts of a compound lie between rows of its major factor.
      const int64_t rows = ceil_div(size, word.share);
      grains_[root] = std::gcd(grains_[root], rows);
      if (word.share == 1) {
        int& holder = holder_[static_cast<size_t>(factor)];
        if (holder < 0)
          holder = slot;
        else
          join(holder, slot);
        continue;
      }
      for (const Shared& other : shared_)
        if (other.factor == factor && other.share == word.share) join(other.slot, slot);
      shared_.push_back({factor, slot, word.share});
    }
  }

  // Where a colour would follow two others, it follows the first: strategies whose operands are not
  // cut consistently are not offered.
  void link(const Follow& follow, const std::vector<int>& number,
            std::vector<Colours::Colour>* colours) {
    const int slot = number[static_cast<size_t>(find(follow.slot))];
    const int base = number[static_cast<size_t>(find(follow.base))];
    if (slot < 0 || base < 0) return;
    Colours::Colour& colour = (*colours)[static_cast<size_t>(slot)];
    if (colour.follows >= 0) return;
    for (int c = base; c >= 0; c = (*colours)[static_cast<size_t>(c)].follows)
      if (c == slot) return;
    colour.follows = base;
    colour.follows_size = follow.size;
    colour.share = follow.share * (ceil_div(follow.size, follow.share) / colour.grains);
  }

  const ir::Module& module_;
  std::vector<std::vector<int>> first_slot_;  // of each graph's values; a slot a dimension
  std::vector<int> parent_;
  std::vector<int64_t> grains_;
  std::vector<bool> dirty_;
  std::vector<Follow> follows_;
  std::vector<int> holder_;  // of the node at hand: a slot that holds each factor
  std::vector<Shared> shared_;
};

}  // namespace

const Colours::Colour* Colours::find(ir::ValueId value, int dim) const {
  const int colour = at(value, dim);
  return colour < 0 ? nullptr : &colours[static_cast<size_t>(colour)];
}

Cuts Colours::cuts_of(int colour, int64_t size) const {
  CHECK(colour >= 0, "a dimension without a colour can't be cut");
  const Colour& c = colours[static_cast<size_t>(colour)];
  CHECK(size % c.grains == 0);
  const int64_t rows = size / c.grains;
  Cuts cuts;
  cuts.reserve(static_cast<size_t>(n_chips));
  if (c.follows >= 0) {
    for (const Range& base : cuts_of(c.follows, c.follows_size)) {
      const int64_t begin = std::min(base.begin / c.share, c.grains);
      const int64_t end = base.empty() ? begin : std::min(ceil_div(base.end, c.share), c.grains);
      cuts.push_back({begin * rows, end * rows});
    }
    return cuts;
  }
  int64_t begin = 0;
  for (int chip = 0; chip < n_chips; ++chip) {
    const int64_t end = begin + c.grains / n_chips + (chip < c.grains % n_chips ? 1 : 0);
    cuts.push_back({begin * rows, end * rows});
    begin = end;
  }
  return cuts;
}

Cuts Colours::cuts(ir::ValueId value, int dim, int64_t size) const {
  return cuts_of(at(value, dim), size);
}

std::vector<Colours> colour(const ir::Module& module,
                            const std::vector<std::vector<const Rule*>>& rules, int n_chips) {
  Joiner joiner(module);
  for (size_t g = 0; g < module.graphs.size(); ++g)
    for (size_t i = 0; i < module.graphs[g].nodes.size(); ++i)
      joiner.add(g, module.graphs[g].nodes[i], *rules[g][i]);
  std::vector<Colours> result = joiner.finish(n_chips);
  for (size_t g = 0; g < result.size(); ++g) {
    mark_batch(module.graphs[g], &result[g]);
    // One table of colours for all graphs: what one graph marks, the others see.
    if (g + 1 < result.size()) result[g + 1].colours = result[g].colours;
  }
  for (Colours& c : result) c.colours = result.back().colours;
  return result;
}

Colours colour(const ir::Graph& graph, const std::vector<Rule>& rules, int n_chips) {
  ir::Module module;
  module.graphs.push_back(graph);
  std::vector<const Rule*> pointers;
  for (const Rule& rule : rules) pointers.push_back(&rule);
  std::vector<Colours> all = colour(module, {std::move(pointers)}, n_chips);
  return std::move(all[0]);
}

namespace {

// Whether `cuts` is what splitting `factor` at `base` gives this dimension.
bool agrees(const Cuts& base, const Cuts& cuts, int64_t share, int64_t rest) {
  for (size_t chip = 0; chip < base.size(); ++chip) {
    const Range want = base[chip].empty() ? Range{}
                                          : Range{base[chip].begin / share * rest,
                                                  ceil_div(base[chip].end, share) * rest};
    if (want.empty() ? !cuts[chip].empty()
                     : (cuts[chip].begin != want.begin || cuts[chip].end != want.end))
      return false;
  }
  return true;
}

}  // namespace

namespace {

// A dimension of a node's operand or result that holds a factor as its major one.
struct Holder {
  ir::ValueId value;
  int dim;
  int64_t share;
};

std::vector<Holder> holders_of(const ir::Node& node, const Rule& rule, int factor) {
  std::vector<Holder> holders;
  const auto collect = [&](ir::ValueId value, const Words& words) {
    const int dim = value == ir::kNoValue ? -1 : Rule::dim_of(words, factor);
    if (dim >= 0) holders.push_back({value, dim, words[static_cast<size_t>(dim)].share});
  };
  for (size_t i = 0; i < node.inputs.size(); ++i) collect(node.inputs[i], rule.operands[i]);
  for (size_t i = 0; i < node.outputs.size(); ++i) collect(node.outputs[i], rule.results[i]);
  return holders;
}

}  // namespace

int factor_colour(const ir::Node& node, const Rule& rule, int factor, const Colours& colours) {
  for (const Holder& h : holders_of(node, rule, factor))
    if (h.share == 1) return colours.at(h.value, h.dim);
  return -1;
}

std::optional<Cuts> factor_cuts(const ir::Graph& graph, const ir::Node& node, const Rule& rule,
                                int factor, const Colours& colours) {
  const int colour = factor_colour(node, rule, factor, colours);
  if (colour < 0) return std::nullopt;  // or present as f/k alone
  const int64_t factor_size = rule.factors[static_cast<size_t>(factor)].size;
  Cuts base = colours.cuts_of(colour, factor_size);
  for (const Holder& h : holders_of(node, rule, factor)) {
    const int64_t size = graph.type(h.value).shape[static_cast<size_t>(h.dim)];
    const int64_t rows = ceil_div(factor_size, h.share);
    if (rows == 1 && size == 1) continue;  // one KV head: every chip holds it
    if (colours.at(h.value, h.dim) < 0) return std::nullopt;
    if (!agrees(base, colours.cuts(h.value, h.dim, size), h.share, size / rows))
      return std::nullopt;
  }
  return base;
}

int batch_input(const ir::Graph& graph) {
  int first = -1;
  for (size_t i = 0; i < graph.inputs.size(); ++i) {
    if (graph.inputs[i].role != ir::InputRole::kUserInput) continue;
    const int ndim = graph.type(graph.inputs[i].value).ndim();
    if (ndim >= 2) return static_cast<int>(i);
    if (ndim == 1 && first < 0) first = static_cast<int>(i);
  }
  return first;
}

void mark_batch(const ir::Graph& graph, Colours* colours) {
  const int batch = batch_input(graph);
  if (batch < 0) return;
  const int64_t size = graph.type(graph.inputs[static_cast<size_t>(batch)].value).shape[0];
  for (size_t i = 0; i < graph.inputs.size(); ++i) {
    const ir::Input& input = graph.inputs[i];
    const Shape& shape = graph.type(input.value).shape;
    const bool same =
        input.role == ir::InputRole::kUserInput && shape.size() >= 2 && shape[0] == size;
    const int colour = (same || static_cast<int>(i) == batch) ? colours->at(input.value, 0) : -1;
    if (colour >= 0) colours->colours[static_cast<size_t>(colour)].batch = true;
  }
}

}  // namespace shardwright::shard
