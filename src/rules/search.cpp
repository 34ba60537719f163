// Backtracking from the rarest node of the pattern along its edges.
#include "rules/search.h"

#include <algorithm>
#include <map>

#include "base/check.h"

namespace shardwright::rules {

using ir::NodeId;

namespace {

void sort_unique(std::vector<NodeId>* ids) {
  std::sort(ids->begin(), ids->end());
  ids->erase(std::unique(ids->begin(), ids->end()), ids->end());
}

}  // namespace

GraphIndex::GraphIndex(const ir::Graph& of)
    : graph(of), readers(of.nodes.size()), sources(of.nodes.size()), producers(of.producers()) {
  const auto producer = [&](ir::ValueId id) {
    return id == ir::kNoValue ? -1 : producers[static_cast<size_t>(id)];
  };
  for (size_t n = 0; n < of.nodes.size(); ++n) {
    for (const ir::ValueId id : of.nodes[n].inputs) {
      // Upwards while it passes through.
      for (NodeId above = producer(id); above >= 0;) {
        const auto a = static_cast<size_t>(above);
        sources[n].push_back(above);
        readers[a].push_back(static_cast<NodeId>(n));
        above = passes_through(*of.nodes[a].op) ? producer(of.nodes[a].inputs[0]) : -1;
      }
    }
    sort_unique(&sources[n]);
  }
  for (std::vector<NodeId>& ids : readers) sort_unique(&ids);
}

Search::Search(const GraphIndex& index, const Rule& rule, const Variant& variant)
    : index_(index),
      rule_(rule),
      variant_(variant),
      parents_(rule.nodes.size()),
      children_(rule.nodes.size()),
      twin_(rule.nodes.size(), -1),
      at_(rule.nodes.size(), kUnset),
      used_(index.graph.nodes.size(), -1) {
  for (const auto& [above, below] : variant.edges) {
    children_[static_cast<size_t>(above)].push_back(below);
    parents_[static_cast<size_t>(below)].push_back(above);
  }
  for (const int p : variant.nodes)
    for (const int q : variant.nodes) {
      const auto i = static_cast<size_t>(p), j = static_cast<size_t>(q);
      const bool equal = q < p && node(p).required && node(q).required &&
                         node(p).included == node(q).included && node(p).ops == node(q).ops &&
                         parents_[i] == parents_[j] && children_[i] == children_[j];
      if (equal) twin_[i] = q;
    }
}

std::vector<Found> Search::run() {
  const int anchor = choose_anchor();
  if (anchor < 0) return {};
  for (size_t n = 0; n < index_.graph.nodes.size(); ++n) {
    const auto id = static_cast<NodeId>(n);
    if (!accepts(anchor, id)) continue;
    at(anchor) = id;
    used_[n] = anchor;
    n_matched_ = 1;
    step();
    at(anchor) = kUnset;
    used_[n] = -1;
  }
  drop_incomplete();
  if (!found_.empty()) miss_.reset();
  return std::move(found_);
}

bool Search::accepts(int p, NodeId id) const {
  const std::vector<const ops::OpDef*>& ops = node(p).ops;
  return std::find(ops.begin(), ops.end(), index_.graph.nodes[static_cast<size_t>(id)].op) !=
         ops.end();
}

// The required node for which the fewest nodes of the graph can stand; -1 where some required node
// has none.
int Search::choose_anchor() {
  std::map<const ops::OpDef*, int64_t> count;
  for (const ir::Node& n : index_.graph.nodes) ++count[n.op];
  int best = -1;
  int64_t least = 0;
  for (const int p : variant_.nodes) {
    if (!node(p).required) continue;
    int64_t mine = 0;
    for (const ops::OpDef* op : node(p).ops)
      if (const auto found = count.find(op); found != count.end()) mine += found->second;
    if (mine == 0) {
      miss_ = Miss{p, 0, -1, -1, true, false, {}};
      return -1;
    }
    if (best >= 0 && mine >= least) continue;
    best = p;
    least = mine;
  }
  return best;
}

// The assigned nodes above or below `p`, through absent ones.
void Search::find_neighbours(int p, bool above, std::vector<Neighbour>* found) const {
  for (const int q : (above ? parents_ : children_)[static_cast<size_t>(p)]) {
    if (at(q) == kAbsent)
      find_neighbours(q, above, found);
    else if (at(q) != kUnset)
      found->push_back({q, above});
  }
}

std::vector<Search::Neighbour> Search::neighbours(int p) const {
  std::vector<Neighbour> found;
  find_neighbours(p, true, &found);
  find_neighbours(p, false, &found);
  return found;
}

// The node of `below` reads the result of that of `above`, by a way that passes through no other
// node that `below` is linked to: of A -> cast -> B, with A -> B in the pattern too, both need an
// operand.
bool Search::has_edge(int above, int below, std::vector<NodeId>* passed) const {
  const ir::Graph& graph = index_.graph;
  std::vector<Neighbour> others;
  for (const ir::ValueId operand : graph.nodes[static_cast<size_t>(at(below))].inputs) {
    std::vector<NodeId> way;
    ir::ValueId id = operand;
    while (id != ir::kNoValue) {
      const NodeId n = index_.producers[static_cast<size_t>(id)];
      if (n < 0) break;
      if (n == at(above)) {
        if (passed != nullptr) passed->insert(passed->end(), way.begin(), way.end());
        return true;
      }
      const ir::Node& between = graph.nodes[static_cast<size_t>(n)];
      if (!passes_through(*between.op)) break;
      if (others.empty()) find_neighbours(below, true, &others);
      if (std::any_of(others.begin(), others.end(),
                      [&](const Neighbour& other) { return at(other.node) == n; }))
        break;
      way.push_back(n);
      id = between.inputs[0];
    }
  }
  return false;
}

// The edges to `p` from all that is above it.
bool Search::edges_from_above_hold(int p) const {
  std::vector<Neighbour> above;
  find_neighbours(p, true, &above);
  return std::all_of(above.begin(), above.end(),
                     [&](const Neighbour& link) { return has_edge(link.node, p, nullptr); });
}

// After `p` was assigned or is absent: its own edges, and all to what is below it, whose ways may
// pass through fewer nodes now.
bool Search::edges_hold(int p) const {
  if (at(p) != kAbsent && !edges_from_above_hold(p)) return false;
  std::vector<Neighbour> below;
  find_neighbours(p, false, &below);
  return std::all_of(below.begin(), below.end(),
                     [&](const Neighbour& link) { return edges_from_above_hold(link.node); });
}

// An optional node on the only edges from its one parent to its one child was left out, though a
// node stands between these two that no required node accepts: the assignment with it is found as
// well.
bool Search::could_stand(int p) const {
  const auto i = static_cast<size_t>(p);
  if (parents_[i].size() != 1 || children_[i].size() != 1) return false;
  const int above = parents_[i][0], below = children_[i][0];
  if (at(above) < 0 || at(below) < 0 || parents_[static_cast<size_t>(below)].size() != 1)
    return false;
  std::vector<NodeId> passed;
  has_edge(above, below, &passed);
  return std::any_of(passed.begin(), passed.end(), [&](NodeId id) {
    if (used_[static_cast<size_t>(id)] >= 0 || !accepts(p, id)) return false;
    return std::none_of(variant_.nodes.begin(), variant_.nodes.end(), [&](int other) {
      return other != p && node(other).required && accepts(other, id);
    });
  });
}

// Nodes that can be exchanged are taken in the order of the graph.
bool Search::twins_ordered(int p) const {
  const int twin = twin_[static_cast<size_t>(p)];
  return twin < 0 || at(twin) < 0 || at(twin) < at(p);
}

// The next node to assign: one that is linked to an assigned node, required ones first. -1: none.
int Search::choose_next(std::vector<Neighbour>* links) const {
  int optional = -1;
  for (const int p : variant_.nodes) {
    if (at(p) != kUnset || (!node(p).required && optional >= 0)) continue;
    std::vector<Neighbour> found = neighbours(p);
    if (found.empty()) continue;
    if (!node(p).required) optional = p;
    *links = std::move(found);
    if (node(p).required) return p;
  }
  return optional;
}

void Search::step() {
  if (steps_ >= kMostSteps) return;
  ++steps_;
  std::vector<Neighbour> links;
  const int p = choose_next(&links);
  if (p < 0) return complete();
  const Neighbour link = links[0];
  const auto beside = static_cast<size_t>(at(link.node));
  const std::vector<NodeId>& there = link.above ? index_.readers[beside] : index_.sources[beside];
  bool fits = false, taken = false;
  for (const NodeId id : there) {
    int& user = used_[static_cast<size_t>(id)];
    if (user >= 0 || !accepts(p, id)) continue;
    fits = true;
    at(p) = id;
    user = p;
    ++n_matched_;
    if (twins_ordered(p) && edges_hold(p)) {
      taken = true;
      bool complete_without = false;
      for (const int q : variant_.nodes)
        complete_without = complete_without || (at(q) == kAbsent && could_stand(q));
      if (!complete_without) step();
    }
    --n_matched_;
    user = -1;
    at(p) = kUnset;
  }
  if (node(p).required) {
    if (!taken) missed(p, link, there, fits);
    return;
  }
  at(p) = kAbsent;
  if (edges_hold(p) && !could_stand(p)) step();
  at(p) = kUnset;
}

void Search::missed(int p, const Neighbour& link, const std::vector<NodeId>& there, bool fits) {
  if (miss_ && miss_->matched >= n_matched_) return;
  miss_ = Miss{p, n_matched_, link.node, at(link.node), link.above, fits, there};
}

// Whatever is unset has no link to what is assigned: it is absent, if it may be.
void Search::complete() {
  Found found;
  for (const int p : variant_.nodes)
    if (at(p) == kUnset && node(p).required) return;
  found.at = at_;
  for (NodeId& id : found.at)
    if (id == kUnset) id = kAbsent;
  if (!seen_.insert(nodes_of(found)).second) return;
  for (const int p : variant_.nodes) {
    if (at(p) < 0) continue;
    for (const Neighbour& link : neighbours(p))
      if (link.above) CHECK(has_edge(link.node, p, &found.passed), "an edge of a match");
  }
  sort_unique(&found.passed);
  std::erase_if(found.passed, [&](NodeId id) { return used_[static_cast<size_t>(id)] >= 0; });
  found_.push_back(std::move(found));
}

Search::Nodes Search::nodes_of(const Found& found) const {
  Nodes nodes;
  for (const int p : variant_.nodes) {
    const NodeId id = found.at[static_cast<size_t>(p)];
    if (id >= 0) nodes.all.push_back(id);
    if (node(p).required) nodes.required.push_back(id);
  }
  std::sort(nodes.all.begin(), nodes.all.end());
  std::sort(nodes.required.begin(), nodes.required.end());
  return nodes;
}

// Of assignments with the same required nodes, those whose nodes another one has and more.
void Search::drop_incomplete() {
  std::map<std::vector<NodeId>, std::vector<size_t>> same;
  std::vector<Nodes> nodes;
  for (size_t f = 0; f < found_.size(); ++f) {
    nodes.push_back(nodes_of(found_[f]));
    same[nodes[f].required].push_back(f);
  }
  std::vector<bool> dropped(found_.size(), false);
  for (const auto& [required, which] : same)
    for (const size_t f : which)
      for (const size_t g : which)
        if (!dropped[f] && nodes[f].all.size() < nodes[g].all.size())
          dropped[f] = std::includes(nodes[g].all.begin(), nodes[g].all.end(), nodes[f].all.begin(),
                                     nodes[f].all.end());
  size_t kept = 0;
  for (size_t f = 0; f < found_.size(); ++f) {
    if (dropped[f]) continue;
    if (kept != f) found_[kept] = std::move(found_[f]);
    ++kept;
  }
  found_.resize(kept);
}

}  // namespace shardwright::rules
