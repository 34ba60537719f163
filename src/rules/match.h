// Matching rules on an imported graph: exact subgraph matching, overlaps, and marks.
//
// A match assigns a node of the graph to every required node of a pattern (no node twice), and to
// as many optional ones as fit. For every edge A -> B of the pattern, B's node reads the result of
// A's, directly or through casts and copies that the pattern has no place for (rules/op_types.h).
// An absent node's parents are linked to its children instead. A match is the set of its included
// nodes: assignments that differ in the order of symmetric nodes (q, k, v) are one match.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "ir/graph.h"
#include "rules/file.h"

namespace shardwright::rules {

struct Match {
  int rule = 0;                    // index into RuleFile::rules
  std::vector<ir::NodeId> at;      // of each node of the pattern; -1: absent
  std::vector<ir::NodeId> nodes;   // the included ones, ascending
  std::vector<ir::NodeId> passed;  // casts and copies that its edges went through, ascending
  int lost_to = -1;                // index of the match that took one of `nodes`; -1: it stands
};

// How far the best attempt of a rule without a match came.
struct Miss {
  int node = 0;        // of the pattern: nothing was found for it
  int matched = 0;     // nodes of the pattern that had been found
  int beside = -1;     // the node of the pattern that it is linked to; -1: it was the first
  ir::NodeId at = -1;  // what that node had matched
  bool reads = true;   // it should have read the result of `beside` (else be read by it)
  bool fits = false;   // the op type was there, but its other edges were not
  std::vector<ir::NodeId> found;  // what stood there
};

struct Matches {
  std::vector<Match> all;                   // by rule, then by their nodes
  std::vector<std::optional<Miss>> misses;  // of each rule: set if it has no match
  std::vector<std::string> notes;  // a rule whose search was cut off: it has too many ways to match
};

// Deterministic; time grows with the number of nodes that can stand for the rarest node of each
// pattern. Overlaps are resolved: higher priority first, then the order of the file, then of the
// graph (F1).
Matches match_rules(const ir::Graph& graph, const RuleFile& file);

// A group for each match that stands; its nodes, and what its edges passed through, are marked.
void mark(ir::Graph& graph, const RuleFile& file, const Matches& matches);

}  // namespace shardwright::rules
