// The search for all matches of one variant of a rule.
#pragma once

#include <set>
#include <vector>

#include "ir/graph.h"
#include "rules/match.h"

namespace shardwright::rules {

// What all searches in a graph need, made once.
struct GraphIndex {
  explicit GraphIndex(const ir::Graph& of);

  const ir::Graph& graph;
  // The nodes that read a node's results, and those whose results it reads, through casts and
  // copies too; ascending.
  std::vector<std::vector<ir::NodeId>> readers;
  std::vector<std::vector<ir::NodeId>> sources;
  std::vector<ir::NodeId> producers;  // of each value
};

struct Found {
  std::vector<ir::NodeId> at;  // of each node of the rule; -1: absent
  std::vector<ir::NodeId> passed;
};

class Search {
 public:
  Search(const GraphIndex& index, const Rule& rule, const Variant& variant);

  // All assignments that can't be completed further.
  std::vector<Found> run();
  // The best attempt, if there was no match.
  const std::optional<Miss>& miss() const { return miss_; }
  // There were too many ways to go on.
  bool cut_off() const { return steps_ >= kMostSteps; }

 private:
  // About a second. Rules that people write need thousands; one with many optional nodes that can
  // stand for each other would take for ever.
  static constexpr int64_t kMostSteps = 500'000;
  static constexpr int kUnset = -2;
  static constexpr int kAbsent = -1;

  struct Neighbour {
    int node = 0;        // of the pattern, assigned
    bool above = false;  // its result is read
  };

  // What an assignment is, whichever node of the pattern is which: sorted.
  struct Nodes {
    std::vector<ir::NodeId> required, all;
    auto operator<=>(const Nodes&) const = default;
  };

  const PatternNode& node(int p) const { return rule_.nodes[static_cast<size_t>(p)]; }
  ir::NodeId& at(int p) { return at_[static_cast<size_t>(p)]; }
  ir::NodeId at(int p) const { return at_[static_cast<size_t>(p)]; }

  bool accepts(int p, ir::NodeId id) const;
  int choose_anchor();
  void find_neighbours(int p, bool above, std::vector<Neighbour>* found) const;
  std::vector<Neighbour> neighbours(int p) const;
  bool has_edge(int above, int below, std::vector<ir::NodeId>* passed) const;
  bool edges_hold(int p) const;
  bool edges_from_above_hold(int p) const;
  bool could_stand(int p) const;
  bool twins_ordered(int p) const;
  int choose_next(std::vector<Neighbour>* links) const;
  void step();
  void complete();
  void missed(int p, const Neighbour& link, const std::vector<ir::NodeId>& there, bool fits);
  Nodes nodes_of(const Found& found) const;
  void drop_incomplete();

  const GraphIndex& index_;
  const Rule& rule_;
  const Variant& variant_;
  std::vector<std::vector<int>> parents_, children_;  // in the variant
  std::vector<int> twin_;       // a node before it with the same edges and op types, or -1
  std::vector<ir::NodeId> at_;  // kUnset, kAbsent, or a node
  std::vector<int> used_;       // of each graph node: the pattern node that it is, or -1
  int n_matched_ = 0;
  int64_t steps_ = 0;
  std::vector<Found> found_;
  std::set<Nodes> seen_;
  std::optional<Miss> miss_;
};

}  // namespace shardwright::rules
