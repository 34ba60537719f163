// Matching against what its definition says, at random: pieces of captured graphs, printed as
// rules, and small graphs, where every assignment can be tried.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <random>
#include <set>

#include "base/error.h"
#include "rules/graphs.h"
#include "rules/op_types.h"

namespace shardwright::rules {
namespace {

using ir::NodeId;
using Random = std::mt19937;

int below(Random& random, size_t count) {
  return static_cast<int>(std::uniform_int_distribution<size_t>(0, count - 1)(random));
}
bool chance(Random& random, double p) { return std::bernoulli_distribution(p)(random); }

// The nodes that read a node's results, and those whose results it reads.
struct Links {
  std::vector<std::set<NodeId>> readers, sources;
  explicit Links(const ir::Graph& graph)
      : readers(graph.nodes.size()), sources(graph.nodes.size()) {
    const std::vector<NodeId> producers = graph.producers();
    for (size_t n = 0; n < graph.nodes.size(); ++n)
      for (const ir::ValueId id : graph.nodes[n].inputs) {
        const NodeId from = id == ir::kNoValue ? -1 : producers[static_cast<size_t>(id)];
        if (from < 0) continue;
        readers[static_cast<size_t>(from)].insert(static_cast<NodeId>(n));
        sources[n].insert(from);
      }
  }
};

// A random connected piece of at most `size` nodes, in random order.
std::vector<NodeId> cut_piece(const Links& links, size_t size, Random& random) {
  std::vector<NodeId> piece{below(random, links.readers.size())};
  while (piece.size() < size) {
    std::set<NodeId> around;
    for (const NodeId id : piece) {
      const auto n = static_cast<size_t>(id);
      around.insert(links.readers[n].begin(), links.readers[n].end());
      around.insert(links.sources[n].begin(), links.sources[n].end());
    }
    for (const NodeId id : piece) around.erase(id);
    if (around.empty()) break;
    piece.push_back(*std::next(around.begin(), below(random, around.size())));
  }
  std::shuffle(piece.begin(), piece.end(), random);
  return piece;
}

// The piece as a rule. `mutated`: index of the node that gets `op_type` instead of its own; -1
// none.
std::string as_rule(const ir::Graph& graph, const Links& links, const std::vector<NodeId>& piece,
                    int mutated, const std::string& op_type, uint32_t flags) {
  Random random(flags);
  std::string text = "piece:\n  pattern:\n";
  const int anchor = below(random, piece.size());  // stays required
  for (size_t i = 0; i < piece.size(); ++i) {
    const bool own = static_cast<int>(i) != mutated;
    const std::string type = own ? graph.nodes[static_cast<size_t>(piece[i])].op->name : op_type;
    text += "    n" + std::to_string(i) + ":\n      op_type: " + type + "\n";
    std::string children;
    for (size_t j = 0; j < piece.size(); ++j)
      if (links.readers[static_cast<size_t>(piece[i])].contains(piece[j]))
        children += (children.empty() ? "n" : ", n") + std::to_string(j);
    if (!children.empty()) text += "      children: [" + children + "]\n";
    if (static_cast<int>(i) != anchor && chance(random, 0.2)) text += "      required: false\n";
  }
  return text;
}

bool matches_there(const ir::Graph& graph, const std::string& rule, std::vector<NodeId> piece) {
  std::sort(piece.begin(), piece.end());
  const RuleFile file = parse_rules(rule, "piece.yaml");
  for (const Match& match : match_rules(graph, file).all)
    if (match.nodes == piece) return true;
  return false;
}

TEST(RandomPattern, APieceOfAGraphMatchesThereAndAChangedOneDoesNot) {
  const uint32_t seed = std::random_device()();
  Random random(seed);
  for (const char* name : {"llama_f32", "llama_bf16", "gemma_bf16", "gpt2_f32", "gpt_neox_f32"}) {
    const ir::Graph graph = captured(name);
    const Links links(graph);
    for (int round = 0; round < 60; ++round) {
      const auto size = static_cast<size_t>(2 + below(random, 11));
      const std::vector<NodeId> piece = cut_piece(links, size, random);
      const uint32_t flags = random();
      const std::string rule = as_rule(graph, links, piece, -1, "", flags);
      ASSERT_TRUE(matches_there(graph, rule, piece)) << name << ", seed " << seed << "\n" << rule;
      // Another operator in one place.
      const int mutated = below(random, piece.size());
      const ops::OpDef* own = graph.nodes[static_cast<size_t>(piece[mutated])].op;
      const ops::OpDef* other = own;
      while (find_op_type(other->name).ops == find_op_type(own->name).ops)
        other = graph.nodes[static_cast<size_t>(below(random, graph.nodes.size()))].op;
      const std::string changed = as_rule(graph, links, piece, mutated, other->name, flags);
      ASSERT_FALSE(matches_there(graph, changed, piece)) << name << ", seed " << seed << "\n"
                                                         << changed;
    }
  }
}

// --- every assignment, by the words of match.h
// ----------------------------------------------------

class Definition {
 public:
  Definition(const ir::Graph& graph, const Rule& rule)
      : graph_(graph), rule_(rule), producers_(graph.producers()), at_(rule.nodes.size(), -1) {}

  // The sets of nodes of all matches.
  std::set<std::set<NodeId>> matches() {
    assign(0);
    std::set<std::set<NodeId>> sets;
    for (const auto& [required, all] : found_) {
      const bool more = std::any_of(found_.begin(), found_.end(), [&](const auto& other) {
        return other.first == required && other.second.size() > all.size() &&
               std::includes(other.second.begin(), other.second.end(), all.begin(), all.end());
      });
      if (!more) sets.insert(all);
    }
    return sets;
  }

 private:
  void assign(size_t p) {
    if (p == rule_.nodes.size()) return check();
    for (size_t n = 0; n < graph_.nodes.size(); ++n) {
      const auto& ops = rule_.nodes[p].ops;
      const auto id = static_cast<NodeId>(n);
      if (std::find(ops.begin(), ops.end(), graph_.nodes[n].op) == ops.end() ||
          std::find(at_.begin(), at_.begin() + static_cast<std::ptrdiff_t>(p), id) !=
              at_.begin() + static_cast<std::ptrdiff_t>(p))
        continue;
      at_[p] = id;
      assign(p + 1);
    }
    at_[p] = -1;
    if (!rule_.nodes[p].required) assign(p + 1);
  }

  // The nodes that are there above p.
  void parents(int p, std::set<int>* found) const {
    for (const auto& [above, below] : rule_.variants[0].edges) {
      if (below != p) continue;
      if (at_[static_cast<size_t>(above)] >= 0)
        found->insert(above);
      else
        parents(above, found);
    }
  }

  bool reads(NodeId reader, NodeId source, const std::set<NodeId>& others) const {
    for (ir::ValueId id : graph_.nodes[static_cast<size_t>(reader)].inputs) {
      NodeId n = id == ir::kNoValue ? -1 : producers_[static_cast<size_t>(id)];
      while (n >= 0 && n != source && !others.contains(n) &&
             passes_through(*graph_.nodes[static_cast<size_t>(n)].op))
        n = producers_[static_cast<size_t>(graph_.nodes[static_cast<size_t>(n)].inputs[0])];
      if (n == source) return true;
    }
    return false;
  }

  void check() {
    std::map<int, std::set<int>> linked;
    std::set<NodeId> required, all;
    for (size_t p = 0; p < at_.size(); ++p) {
      if (at_[p] < 0) continue;
      all.insert(at_[p]);
      if (rule_.nodes[p].required) required.insert(at_[p]);
      std::set<int> above;
      parents(static_cast<int>(p), &above);
      for (const int a : above) {
        std::set<NodeId> others;
        for (const int other : above)
          if (other != a) others.insert(at_[static_cast<size_t>(other)]);
        if (!reads(at_[p], at_[static_cast<size_t>(a)], others)) return;
        linked[a].insert(static_cast<int>(p));
        linked[static_cast<int>(p)].insert(a);
      }
      linked[static_cast<int>(p)];
    }
    // What is there hangs together.
    std::set<int> reached;
    const std::function<void(int)> walk = [&](int p) {
      if (!reached.insert(p).second) return;
      for (const int next : linked[p]) walk(next);
    };
    walk(linked.begin()->first);
    if (reached.size() == all.size()) found_.emplace(std::move(required), std::move(all));
  }

  const ir::Graph& graph_;
  const Rule& rule_;
  std::vector<NodeId> producers_;
  std::vector<NodeId> at_;
  std::set<std::pair<std::set<NodeId>, std::set<NodeId>>> found_;
};

ir::Graph random_graph(Random& random) {
  static const char* const kOps[] = {"neg", "relu", "cast", "cast", "add", "mul"};
  std::string lines;
  std::vector<std::string> values{"x"};
  for (int i = 0; i < 8; ++i) {
    const std::string op = kOps[below(random, std::size(kOps))];
    const auto pick = [&] {  // late values more often
      const size_t window = std::min<size_t>(values.size(), 3);
      return "%" + values[values.size() - 1 - static_cast<size_t>(below(random, window))];
    };
    const std::string a = pick(), b = pick();
    const std::string name = "v" + std::to_string(i);
    lines += "%" + name + ": f32[4, 4] = " + op + "(" + a;
    if (op == "add" || op == "mul") lines += ", " + b;
    lines += op == "cast" ? ") {dtype=f32}\n" : op == "add" ? ") {alpha=1}\n" : ")\n";
    values.push_back(name);
  }
  return small_graph(lines, values.back());
}

std::string random_rule(Random& random) {
  static const char* const kTypes[] = {"neg", "[neg, relu]", "to", "to", "add", "mul", "relu"};
  const int count = 2 + below(random, 4);
  std::string text = "r:\n  pattern:\n";
  for (int i = 0; i < count; ++i) {
    text += "    n" + std::to_string(i) + ": {op_type: " + kTypes[below(random, std::size(kTypes))];
    std::string children;
    for (int j = i + 1; j < count; ++j)
      if (chance(random, 0.5)) children += (children.empty() ? "n" : ", n") + std::to_string(j);
    if (!children.empty()) text += ", children: [" + children + "]";
    text += chance(random, 0.35) ? ", required: false}\n" : "}\n";
  }
  return text;
}

TEST(RandomPattern, EqualsTheDefinitionOnSmallGraphs) {
  const uint32_t seed = std::random_device()();
  Random random(seed);
  int compared = 0, with_matches = 0;
  while (compared < 1500) {
    const std::string rule = random_rule(random);
    RuleFile file;
    try {
      file = parse_rules(rule, "rules.yaml");
    } catch (const Error&) {
      continue;  // not connected, or nothing is required
    }
    const ir::Graph graph = random_graph(random);
    std::set<std::set<NodeId>> got;
    for (const Match& match : match_rules(graph, file).all)
      got.insert({match.nodes.begin(), match.nodes.end()});
    const std::set<std::set<NodeId>> want = Definition(graph, file.rules[0]).matches();
    ASSERT_EQ(got, want) << "seed " << seed << "\n" << rule << ir::print(graph);
    ++compared;
    with_matches += !want.empty();
  }
  EXPECT_GT(with_matches, 200);
}

}  // namespace
}  // namespace shardwright::rules
