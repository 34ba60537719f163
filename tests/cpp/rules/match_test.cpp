// Matching on small graphs: what each word of the language means.
#include "rules/match.h"

#include <gtest/gtest.h>

#include "rules/describe.h"
#include "rules/graphs.h"

namespace shardwright::rules {
namespace {

using Names = std::vector<std::string>;

const char* const kChain =
    "%a: f32[4, 4] = linear(%x, %w, -)\n"
    "%b: f32[4, 4] = relu(%a)\n"
    "%c: f32[4, 4] = linear(%b, %w, -)\n"
    "%d: f32[4, 4] = neg(%c)\n";

TEST(Match, EdgesDecide) {
  const ir::Graph graph = small_graph(kChain, "d");
  EXPECT_EQ(matched(graph, "    l: {op_type: linear}\n"), (Names{"a", "c"}));
  EXPECT_EQ(matched(graph, "    l: {op_type: linear, child: r}\n    r: {op_type: [neg, relu]}\n"),
            (Names{"a b", "c d"}));
  EXPECT_EQ(matched(graph, "    l: {op_type: linear, child: r}\n    r: {op_type: neg}\n"),
            (Names{"c d"}));
  EXPECT_EQ(matched(graph, "    l: {op_type: neg, child: r}\n    r: {op_type: linear}\n"), Names{});
  EXPECT_EQ(matched(graph, "    l: {op_type: linear, child: r}\n    r: {op_type: linear}\n"),
            Names{});
}

TEST(Match, OptionalNodesMayBeAbsentAndAreTakenWhereTheyAre) {
  const ir::Graph graph = small_graph(kChain, "d");
  // A root, a leaf, one between.
  EXPECT_EQ(matched(graph,
                    "    r: {op_type: relu, required: false, child: l}\n"
                    "    l: {op_type: linear}\n"),
            (Names{"a", "b c"}));
  EXPECT_EQ(matched(graph,
                    "    l: {op_type: linear, child: n}\n"
                    "    n: {op_type: neg, required: false}\n"),
            (Names{"a", "c d"}));
  const ir::Graph two = small_graph(
      "%a: f32[4, 4] = neg(%x)\n"
      "%b: f32[4, 4] = relu(%a)\n"
      "%c: f32[4, 4] = exp(%b)\n"
      "%d: f32[4, 4] = neg(%c)\n"
      "%e: f32[4, 4] = exp(%d)\n",
      "e");
  EXPECT_EQ(matched(two,
                    "    n: {op_type: neg, child: r}\n"
                    "    r: {op_type: relu, required: false, child: e}\n"
                    "    e: {op_type: exp}\n"),
            (Names{"a b c", "d e"}));
  // Two of one type in a row: as many as there are.
  EXPECT_EQ(matched(two,
                    "    n: {op_type: neg, child: r}\n"
                    "    r: {op_type: relu, required: false, child: s}\n"
                    "    s: {op_type: relu, required: false, child: e}\n"
                    "    e: {op_type: exp}\n"),
            (Names{"a b c", "d e"}));
}

TEST(Match, AnAbsentNodesParentsFeedItsChildren) {
  const ir::Graph graph = small_graph(
      "%a: f32[4, 4] = neg(%x)\n"
      "%b: f32[4, 4] = relu(%a)\n"
      "%c: f32[4, 4] = exp(%a)\n"
      "%d: f32[4, 4] = exp(%b)\n"
      "%e: f32[4, 4] = add(%c, %d) {alpha=1}\n",
      "e");
  // The optional node has two children; both must be fed by its parent where it is absent.
  const std::string pattern =
      "    n: {op_type: neg, child: o}\n"
      "    o: {op_type: sqrt, required: false, children: [r, s]}\n"
      "    r: {op_type: relu}\n"
      "    s: {op_type: exp}\n";
  EXPECT_EQ(matched(graph, pattern), (Names{"a b c"}));
}

TEST(Match, EdgesPassThroughCastsAndCopies) {
  const ir::Graph graph = small_graph(
      "%a: f32[4, 4] = linear(%x, %w, -)\n"
      "%b: bf16[4, 4] = cast(%a) {dtype=bf16}\n"
      "%c: bf16[4, 4] = clone(%b)\n"
      "%d: bf16[4, 4] = relu(%c)\n",
      "d");
  const Names both{"a d"};
  EXPECT_EQ(matched(graph, "    l: {op_type: linear, child: r}\n    r: {op_type: relu}\n"), both);
  // Named, the cast is part of it; the copy is still passed.
  EXPECT_EQ(matched(graph,
                    "    l: {op_type: linear, child: c}\n"
                    "    c: {op_type: to, required: false, child: r}\n"
                    "    r: {op_type: relu}\n"),
            (Names{"a b d"}));
  // A cast alone reads the linear; relu does not read the linear beside it.
  EXPECT_EQ(matched(graph,
                    "    l: {op_type: linear, children: [c, r]}\n"
                    "    c: {op_type: to, child: r}\n"
                    "    r: {op_type: relu}\n"),
            Names{});
  // No other operator is passed.
  EXPECT_EQ(matched(small_graph(kChain, "d"),
                    "    l: {op_type: relu, child: r}\n    r: {op_type: neg}\n"),
            Names{});
}

TEST(Match, WhatIsPassedIsMarkedToo) {
  ir::Graph graph = small_graph(
      "%a: f32[4, 4] = linear(%x, %w, -)\n"
      "%b: bf16[4, 4] = cast(%a) {dtype=bf16}\n"
      "%c: bf16[4, 4] = relu(%b)\n",
      "c");
  const RuleFile file = parse_rules(
      "r:\n  heuristic: {name: GEMM, tp_dim: K}\n"
      "  pattern: {l: {op_type: linear, child: r}, r: {op_type: relu}}\n",
      "dir/rules.yaml");
  mark(graph, file, match_rules(graph, file));
  ASSERT_EQ(graph.groups.size(), 1u);
  EXPECT_EQ(graph.groups[0], (ir::FusionGroup{"r", "rules.yaml:1", "k"}));
  for (const ir::Node& node : graph.nodes) EXPECT_EQ(node.group, 0);
}

TEST(Match, SymmetricNodesCountOnce) {
  const ir::Graph graph = small_graph(
      "%n: f32[4, 4] = neg(%x)\n"
      "%q: f32[4, 4] = linear(%n, %w, -)\n"
      "%k: f32[4, 4] = linear(%n, %w, -)\n"
      "%v: f32[4, 4] = linear(%n, %w, -)\n"
      "%s: f32[4, 4] = add(%q, %k) {alpha=1}\n"
      "%t: f32[4, 4] = add(%s, %v) {alpha=1}\n",
      "t");
  EXPECT_EQ(matched(graph,
                    "    n: {op_type: neg, children: [a, b, c]}\n    a: {op_type: linear}\n"
                    "    b: {op_type: linear}\n    c: {op_type: linear}\n"),
            (Names{"n q k v"}));
  // Two of three: three sets, each once, of which one stands.
  EXPECT_EQ(matched(graph,
                    "    n: {op_type: neg, children: [a, b]}\n    a: {op_type: linear}\n"
                    "    b: {op_type: linear}\n"),
            (Names{"n q k", "-n q v", "-n k v"}));
  // A node reads a value with both operands: one edge.
  EXPECT_EQ(matched(small_graph("%a: f32[4, 4] = neg(%x)\n%b: f32[4, 4] = mul(%a, %a)\n", "b"),
                    "    n: {op_type: neg, child: m}\n    m: {op_type: mul}\n"),
            (Names{"a b"}));
}

TEST(Match, ContextIsNotFusedAndMayBeClaimed) {
  const ir::Graph graph = small_graph(kChain, "d");
  const RuleFile file = parse_rules(
      "one:\n  priority: 2\n  pattern:\n"
      "    l: {op_type: linear, included: false, child: r}\n    r: {op_type: relu}\n"
      "two:\n  priority: 1\n  pattern: {l: {op_type: linear}}\n",
      "rules.yaml");
  EXPECT_EQ(matched(graph, file), (Names{"b", "a", "c"}));
}

TEST(Match, PrioritiesThenTheOrderOfTheFile) {
  const ir::Graph graph = small_graph(kChain, "d");
  const std::string pair = "  pattern: {l: {op_type: linear, child: r}, r: {op_type: relu}}\n";
  const std::string single = "  pattern: {l: {op_type: linear}}\n";
  const auto result = [&](int of_pair, int of_single, bool pair_first) {
    const std::string p = "pair:\n  priority: " + std::to_string(of_pair) + "\n" + pair;
    const std::string s = "single:\n  priority: " + std::to_string(of_single) + "\n" + single;
    return matched(graph, parse_rules(pair_first ? p + s : s + p, "rules.yaml"));
  };
  EXPECT_EQ(result(2, 1, true), (Names{"a b", "-a", "c"}));
  EXPECT_EQ(result(1, 2, true), (Names{"-a b", "a", "c"}));
  EXPECT_EQ(result(1, 1, true), (Names{"a b", "-a", "c"}));
  EXPECT_EQ(result(1, 1, false), (Names{"a", "c", "-a b"}));
}

TEST(Match, TheFirstOptionThatMatches) {
  const std::string pattern =
      "    l: {op_type: linear, child: way}\n"
      "    way: {match_first_option: [e, r]}\n"
      "    e: {op_type: exp, child: n}\n"
      "    r: {op_type: relu, child: m}\n"
      "    n: {op_type: neg}\n"
      "    m: {op_type: linear}\n";
  EXPECT_EQ(matched(small_graph(kChain, "d"), pattern), (Names{"a b c"}));
  const ir::Graph both = small_graph(
      "%a: f32[4, 4] = linear(%x, %w, -)\n"
      "%b: f32[4, 4] = relu(%a)\n"
      "%c: f32[4, 4] = linear(%b, %w, -)\n"
      "%d: f32[4, 4] = exp(%a)\n"
      "%e: f32[4, 4] = neg(%d)\n"
      "%f: f32[4, 4] = add(%c, %e) {alpha=1}\n",
      "f");
  EXPECT_EQ(matched(both, pattern), (Names{"a d e"}));  // `a` is taken: the second counts not
}

TEST(Match, PiecesOfASplitNeedNoGetitem) {
  const ir::Graph graph = small_graph(
      "%a: f32[4, 4] = linear(%x, %w, -)\n"
      "%b: f32[4, 2], %c: f32[4, 2] = split(%a) {split_size=2, dim=1}\n"
      "%d: f32[4, 2] = silu(%b)\n"
      "%e: f32[4, 2] = mul(%d, %c)\n",
      "e");
  EXPECT_EQ(matched(graph,
                    "    s: {op_type: chunk, children: [g, h]}\n"
                    "    g: {op_type: getitem, child: silu}\n"
                    "    h: {op_type: getitem, child: mul}\n"
                    "    silu: {op_type: silu, child: mul}\n"
                    "    mul: {op_type: mul}\n"),
            (Names{"b d e"}));
}

TEST(Match, SaysWhereTheBestAttemptFailed) {
  const ir::Graph graph = small_graph(kChain, "d");
  const auto miss = [&](const std::string& nodes) {
    const RuleFile file = parse_rules("r:\n  pattern:\n" + nodes, "rules.yaml");
    const Matches matches = match_rules(graph, file);
    return matches.misses[0] ? describe_miss(graph, file, 0, *matches.misses[0]) : "matched";
  };
  EXPECT_EQ(miss("    l: {op_type: linear}\n"), "matched");
  EXPECT_EQ(miss("    l: {op_type: linear, child: s}\n    s: {op_type: [silu, gelu]}\n"),
            "nothing in the graph can be s (silu or gelu, rules.yaml:4)");
  EXPECT_EQ(miss("    r: {op_type: relu, child: l}\n    l: {op_type: linear, child: s}\n"
                 "    s: {op_type: relu}\n"),
            "the best attempt matched 2 of 3 nodes; s (relu, rules.yaml:5) should read the result "
            "of l = linear, where it is read by neg");
  EXPECT_EQ(miss("    l: {op_type: neg, child: r}\n    r: {op_type: relu}\n"),
            "the best attempt matched 1 of 2 nodes; r (relu, rules.yaml:4) should read the result "
            "of l = neg, where it is read by nothing");
  EXPECT_EQ(miss("    a: {op_type: relu, child: n}\n    n: {op_type: neg}\n"),
            "the best attempt matched 1 of 2 nodes; n (neg, rules.yaml:4) should read the result "
            "of a = relu, where it is read by linear");
}

TEST(Match, RangesOfLayers) {
  EXPECT_EQ(ranges_text({3, 0, 1, 2, 7, 9, 8, 8}), "0-3, 7-9");
  EXPECT_EQ(ranges_text({5}), "5");
  EXPECT_EQ(ranges_text({}), "");
}

TEST(Match, FoldsLayers) {
  const ir::Graph graph = captured("llama_f32");
  const RuleFile file = parse_rules(
      "r:\n  pattern: {o: {op_type: linear, child: a}, a: {op_type: add, child: p}, p: {op_type: "
      "pow}}\n",
      "rules.yaml");
  const Matches matches = match_rules(graph, file);
  std::vector<const Match*> all;
  for (const Match& match : matches.all) all.push_back(&match);
  const std::vector<Places> places = fold_places(graph, all);
  ASSERT_EQ(places.size(), 3u);
  EXPECT_EQ(places[0].paths,
            "model.layers.*.self_attn.o_proj, model.layers.*, "
            "model.layers.*.post_attention_layernorm");
  EXPECT_EQ(places[0].layers, "layers 0-1");
  EXPECT_EQ(places[0].count, 2);
  EXPECT_EQ(places[1].paths,
            "model.layers.*.mlp.down_proj, model.layers.*, model.layers.(*+1).input_layernorm");
  EXPECT_EQ(places[1].layers, "layer 0");
  EXPECT_EQ(places[2].paths, "model.layers.*.mlp.down_proj, model.layers.*, model.norm");
  EXPECT_EQ(places[2].layers, "layer 1");
}

TEST(Match, EndlessWaysAreCutOffAndSaid) {
  // Every subset of 30 equal nodes can stand for the optional ones.
  std::string nodes, pattern = "    top: {op_type: neg, children: [";
  for (int i = 0; i < 30; ++i) nodes += "%e" + std::to_string(i) + ": f32[4, 4] = exp(%a)\n";
  for (int i = 0; i < 20; ++i) pattern += (i ? ", o" : "o") + std::to_string(i);
  pattern += "]}\n";
  for (int i = 0; i < 20; ++i)
    pattern += "    o" + std::to_string(i) + ": {op_type: exp, required: false}\n";
  const ir::Graph graph = small_graph("%a: f32[4, 4] = neg(%x)\n" + nodes, "a");
  const RuleFile file = parse_rules("r:\n  pattern:\n" + pattern, "rules.yaml");
  const Matches matches = match_rules(graph, file);
  EXPECT_EQ(
      matches.notes,
      Names{"rules.yaml:1 r: too many ways to match; the search was cut off, some matches may "
            "be missing. Make optional nodes required, or name more of what is between"});
}

}  // namespace
}  // namespace shardwright::rules
