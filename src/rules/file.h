// A fusion rule file: its language as data, and the parser (docs/rules.md has the language).
//
//   qkv:                          a rule's name
//     priority: 4                 where matches overlap, the higher wins; default 0
//     heuristic: SAFE_GEMM        or {name: SAFE_GEMM, tp_dim: M|K|Auto}
//     pattern:                    node name -> node
//       norm: {op_type: rms_norm, children: [q, k, v]}
//       q: {op_type: linear}
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rules/op_types.h"
#include "rules/yaml.h"

namespace shardwright::rules {

// A node of a pattern. Either it has op types, or options.
struct PatternNode {
  std::string name;
  Place place;
  std::vector<std::string> op_types;   // as the file names them: any of them
  std::vector<const ops::OpDef*> ops;  // what they mean; empty: nothing in any graph
  std::vector<int> children;           // indices of nodes that read this node's result
  std::vector<int> options;            // match_first_option: nodes that may stand here instead
  bool required = true;                // false: may be absent, its parents then feed its children
  bool included = true;                // false: must be there, but is not fused
};

// One way to take every match_first_option of a rule: the nodes that are left, and their edges.
struct Variant {
  std::vector<int> nodes;                  // ascending
  std::vector<std::pair<int, int>> edges;  // (node, node that reads its result)
};

struct Rule {
  std::string name;
  Place place;
  int priority = 0;
  std::string heuristic;  // "" if there is none
  std::string split;      // of tp_dim: "m", "k"; "" for Auto
  std::vector<PatternNode> nodes;
  std::vector<Variant> variants;  // one if there is no match_first_option; the first wins
};

struct RuleFile {
  std::string path;                // as given
  std::vector<Rule> rules;         // in the order of the file; of two with one name the later
  std::vector<std::string> notes;  // "rules.yaml:3:5: ...": accepted, but worth knowing

  // "rules.yaml:12": file name and line, for reasons and explanations.
  std::string origin(const Rule& rule) const { return origin(rule.place); }
  std::string origin(const Place& place) const;
};

inline constexpr size_t kMostRules = 1000;
inline constexpr size_t kMostPatternNodes = 200;  // of a rule
inline constexpr size_t kMostVariants = 64;       // of a rule

// Throws Error(kUsage) with all problems of the file, each with line and column.
RuleFile parse_rules(std::string_view text, const std::string& path);
// Reads the file first. Throws Error(kUsage) where there is none.
RuleFile read_rules(const std::string& path);

// The rule file that -o1 uses where the user gives none (src/rules/builtin.yaml).
std::string_view builtin_rules_text();
RuleFile builtin_rules();

}  // namespace shardwright::rules
