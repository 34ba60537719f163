// Rule files: what is read, and each mistake with its whole message.
#include "rules/file.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace shardwright::rules {
namespace {

std::string message_of(const std::string& text) {
  try {
    parse_rules(text, "rules.yaml");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    return error.what();
  }
  return "no error";
}

// A rule with this heuristic, or this pattern below `pattern:`.
std::string with_heuristic(const std::string& heuristic) {
  return "r:\n  heuristic: " + heuristic + "\n  pattern: {a: {op_type: linear}}\n";
}
std::string with_pattern(const std::string& nodes) { return "r:\n  pattern:\n" + nodes; }

TEST(RuleFile, ReadsAll) {
  const RuleFile file = parse_rules(R"(
qkv:
  priority: -4
  heuristic: {name: SAFE_GEMM, tp_dim: M}
  pattern:
    cast 1: {op_type: type_, required: false, child: gemm}
    gemm: {op_type: [linear, addmm], children: [b, c]}
    b: {op_type: add_, included: false}
    c: {op_type: mul}
plain:
  heuristic: MHA
  pattern: {a: {op_type: softmax}}
)",
                                    "some/rules.yaml");
  ASSERT_EQ(file.rules.size(), 2u);
  const Rule& qkv = file.rules[0];
  EXPECT_EQ(qkv.name, "qkv");
  EXPECT_EQ(qkv.priority, -4);
  EXPECT_EQ(qkv.heuristic, "SAFE_GEMM");
  EXPECT_EQ(qkv.split, "m");
  EXPECT_EQ(file.origin(qkv), "rules.yaml:2");
  ASSERT_EQ(qkv.nodes.size(), 4u);
  EXPECT_EQ(qkv.nodes[0].name, "cast 1");
  EXPECT_FALSE(qkv.nodes[0].required);
  EXPECT_EQ(qkv.nodes[1].children, (std::vector<int>{2, 3}));
  EXPECT_EQ(qkv.nodes[1].place, (Place{7, 5}));
  EXPECT_EQ(qkv.nodes[2].ops, std::vector<const ops::OpDef*>{ops::find_op("add")});
  EXPECT_FALSE(qkv.nodes[2].included);
  EXPECT_EQ(file.rules[1].heuristic, "MHA");
  EXPECT_EQ(file.rules[1].split, "");
  EXPECT_EQ(file.rules[1].priority, 0);
  EXPECT_TRUE(file.notes.empty());
}

TEST(RuleFile, EverySpellingOfTpDim) {
  for (const char* key : {"tp_dim", "tensor_parallel_dim", "tensor parallel_dim"})
    for (const auto& [value, split] : {std::pair{"M", "m"}, {"K", "k"}, {"Auto", ""}}) {
      const std::string text = std::string("{name: GEMM, ") + key + ": " + value + "}";
      EXPECT_EQ(parse_rules(with_heuristic(text), "r").rules[0].split, split) << text;
    }
}

TEST(RuleFile, EveryHeuristic) {
  for (const char* name :
       {"SAFE_GEMM", "GEMM", "SAFE_INFERENCE_GEMM", "MHA", "SDPA", "GPT2_QKV", "DEFAULT"})
    EXPECT_EQ(parse_rules(with_heuristic(name), "r").rules[0].heuristic, name);
}

TEST(RuleFile, Aliases) {
  for (const char* name : {"to", "type_", "type", "_to_copy", "type_as", "float"})
    EXPECT_EQ(find_op_type(name).ops, find_op_type("to").ops) << name;
  EXPECT_EQ(find_op_type("view").ops, find_op_type("reshape").ops);
  for (const char* name : {"getitem", "slice", "select"})
    EXPECT_EQ(find_op_type(name).ops, find_op_type("slice").ops) << name;
  EXPECT_EQ(find_op_type("split").ops, find_op_type("chunk").ops);
  EXPECT_EQ(find_op_type("mul_").ops, find_op_type("mul").ops);
  EXPECT_EQ(find_op_type("scaled_dot_product_attention").ops, find_op_type("attention").ops);
  for (const ops::OpDef* op : ops::all_ops())
    EXPECT_EQ(find_op_type(op->name).kind, OpTypeKind::kOperator) << op->name;
}

TEST(RuleFile, LaterRuleOfTheSameNameReplaces) {
  const RuleFile file = parse_rules(
      "sdpa:\n  priority: 1\n  pattern: {a: {op_type: linear}}\n"
      "other:\n  pattern: {a: {op_type: add}}\n"
      "sdpa:\n  priority: 2\n  pattern: {a: {op_type: mul}}\n",
      "rules.yaml");
  ASSERT_EQ(file.rules.size(), 2u);
  EXPECT_EQ(file.rules[0].name, "other");
  EXPECT_EQ(file.rules[1].priority, 2);
  EXPECT_EQ(file.notes, std::vector<std::string>{"rules.yaml:6:1: rule 'sdpa' replaces the rule of "
                                                 "the same name in line 1"});
}

TEST(RuleFile, Notes) {
  const RuleFile file = parse_rules(
      "a:\n  heuristic: {name: SDPA, head_dim_sharding_degree: 4, fwd_num_sections: 2}\n"
      "  pattern:\n"
      "    x: {op_type: zipmapreduce, child: y}\n"
      "    y: {op_type: [triufill, scatter]}\n"
      "b:\n  heuristic: {name: GEMM, spatial_split_degree: 1}\n"
      "  pattern: {x: {op_type: [zipmapreduce, softmax]}}\n",
      "rules.yaml");
  EXPECT_EQ(
      file.notes,
      (std::vector<std::string>{
          "rules.yaml:2:27: head_dim_sharding_degree means nothing here: it is a knob of the "
          "original hardware",
          "rules.yaml:2:56: fwd_num_sections means nothing here: it is a knob of the "
          "original hardware",
          "rules.yaml:2:14: SDPA is about attention, but rule 'a' has no "
          "scaled_dot_product_attention, softmax or matmul",
          "rules.yaml:7:27: spatial_split_degree means nothing here: it is a knob of the "
          "original hardware",
          "rules.yaml:7:14: GEMM is about gemms, but rule 'b' has no linear, addmm, matmul or "
          "other gemm",
          "rules.yaml:5:29: op_type scatter matches nothing: no graph that Shardwright reads "
          "holds it",
          "rules.yaml:5:19: op_type triufill matches nothing: it is the original vendor's own "
          "operator",
          "rules.yaml:4:18: op_type zipmapreduce (lines 4, 8) matches nothing: it is the "
          "original vendor's own operator"}));
}

TEST(RuleFile, ParsesOptionsIntoVariants) {
  const RuleFile file = parse_rules(with_pattern("    top: {op_type: view, child: way}\n"
                                                 "    way: {match_first_option: [a, b]}\n"
                                                 "    a: {op_type: transpose, children: [c, end]}\n"
                                                 "    b: {op_type: permute, child: end}\n"
                                                 "    c: {op_type: neg}\n"
                                                 "    end: {op_type: add}\n"),
                                    "r");
  ASSERT_EQ(file.rules[0].variants.size(), 2u);
  const Variant& first = file.rules[0].variants[0];
  EXPECT_EQ(first.nodes, (std::vector<int>{0, 2, 4, 5}));
  EXPECT_EQ(first.edges, (std::vector<std::pair<int, int>>{{0, 2}, {2, 4}, {2, 5}}));
  const Variant& second = file.rules[0].variants[1];  // c is reached through a alone
  EXPECT_EQ(second.nodes, (std::vector<int>{0, 3, 5}));
  EXPECT_EQ(second.edges, (std::vector<std::pair<int, int>>{{0, 3}, {3, 5}}));
}

struct Mistake {
  std::string text;
  std::string message;
};

TEST(RuleFile, EachMistakeInARule) {
  const Mistake mistakes[] = {
      {"",
       "rules.yaml: nothing where rules should be; a rule file is a mapping, `name: {priority: "
       "1, pattern: ...}`"},
      {"- a\n",
       "rules.yaml: a list where rules should be; a rule file is a mapping, `name: "
       "{priority: 1, pattern: ...}`"},
      {"a: 3\n",
       "rules.yaml:1:4: rule 'a' is '3'; give a mapping with pattern and, if you like, "
       "priority and heuristic"},
      {"a:\n  priority: 2\n", "rules.yaml:1:1: rule 'a' has no pattern"},
      {"a:\n  prioritty: 2\n  pattern: {x: {op_type: add}}\n",
       "rules.yaml:2:3: unknown key 'prioritty' of a rule; the nearest is priority"},
      {"a:\n  priority: high\n  pattern: {x: {op_type: add}}\n",
       "rules.yaml:2:13: priority is 'high'; give a whole number, as in 4"},
      {"a:\n  priority: \"2\"\n  pattern: {x: {op_type: add}}\n",
       "rules.yaml:2:13: priority is the text '2'; give a whole number, as in 4"},
      {"a:\n  priority: 99999999999\n  pattern: {x: {op_type: add}}\n",
       "rules.yaml:2:13: priority is '99999999999'; give a whole number, as in 4"},
      {"a:\n  priority: 1\n  priority: 2\n  pattern: {x: {op_type: add}}\n",
       "rules.yaml:3:3: 'priority' stands in line 2 already; leave one out"},
      {with_heuristic("FAST"),
       "rules.yaml:2:14: the heuristic is 'FAST'; there are SAFE_GEMM, GEMM, SAFE_INFERENCE_GEMM, "
       "MHA, SDPA, GPT2_QKV, DEFAULT"},
      {with_heuristic(""),
       "rules.yaml:2:3: the heuristic is nothing; there are SAFE_GEMM, GEMM, SAFE_INFERENCE_GEMM, "
       "MHA, SDPA, GPT2_QKV, DEFAULT"},
      {with_heuristic("{tp_dim: K}"),
       "rules.yaml:2:14: a heuristic needs a name: SAFE_GEMM, GEMM, SAFE_INFERENCE_GEMM, MHA, "
       "SDPA, "
       "GPT2_QKV, DEFAULT"},
      {with_heuristic("{name: GEMM, tp_dims: K}"),
       "rules.yaml:2:27: unknown key 'tp_dims' of a heuristic; the nearest is tp_dim"},
      {with_heuristic("{name: GEMM, tensor parallel_dim: [M|K]}"),
       "rules.yaml:2:48: tensor parallel_dim: [M|K] is the placeholder of the documentation; write "
       "M, K or Auto"},
      {with_heuristic("{name: GEMM, tp_dim: N}"),
       "rules.yaml:2:35: tp_dim is 'N'; give M (output features), K (contracted dimension) or "
       "Auto"},
      {with_heuristic("{name: GEMM, tp_dim: [M, K]}"),
       "rules.yaml:2:35: tp_dim is a list; give M (output features), K (contracted dimension) or "
       "Auto"},
      {with_heuristic("{name: GEMM, tp_dim: M, tensor_parallel_dim: M}"),
       "rules.yaml:2:38: 'tp_dim' and 'tensor_parallel_dim' are the same key; give one of them"},
      {"a:\n  heuristic: {name: SDPA, tp_dim: K}\n  pattern: {x: {op_type: softmax}}\n",
       "rules.yaml:2:35: tp_dim K with SDPA: attention has no weight to split; give it to a rule "
       "with SAFE_GEMM, or Auto"},
  };
  for (const Mistake& mistake : mistakes)
    EXPECT_EQ(message_of(mistake.text), mistake.message) << mistake.text;
}

TEST(RuleFile, EachMistakeInAPattern) {
  const Mistake mistakes[] = {
      {"r: {pattern: []}\n",
       "rules.yaml:1:14: the pattern of 'r' is an empty list; give a mapping, `node: {op_type: "
       "linear, child: other_node}`"},
      {with_pattern("    a: linear\n"),
       "rules.yaml:3:8: node 'a' is 'linear'; give a mapping with op_type"},
      {with_pattern("    a: {}\n"), "rules.yaml:3:5: node 'a' has no op_type"},
      {with_pattern("    a: {op_type: linaer}\n"),
       "rules.yaml:3:18: unknown op_type 'linaer'; the nearest are linear, index, alias"},
      {with_pattern("    a: {op_type: [linear, maen]}\n"),
       "rules.yaml:3:27: unknown op_type 'maen'; the nearest are mean, abs, add"},
      {with_pattern("    a: {op_type: {linear: 1}}\n"),
       "rules.yaml:3:18: op_type is a mapping; give a name, or a list of names"},
      {with_pattern("    a: {op_type: []}\n"),
       "rules.yaml:3:18: op_type is an empty list; give a name, or a list of names"},
      {with_pattern("    a: {op_type: add, childs: a}\n"),
       "rules.yaml:3:23: unknown key 'childs' of a node; the nearest is child"},
      {with_pattern("    a: {op_type: add, child: bb}\n    b: {op_type: mul}\n"),
       "rules.yaml:3:30: no node of this pattern is called 'bb'; the nearest is b"},
      {with_pattern("    a: {op_type: add, child: [b]}\n    b: {op_type: mul}\n"),
       "rules.yaml:3:30: child is a list; give the name of one node (children takes a list)"},
      {with_pattern("    a: {op_type: add, children: b}\n    b: {op_type: mul}\n"),
       "rules.yaml:3:33: children is 'b'; give a list of nodes, as in [a, b]"},
      {with_pattern("    a: {op_type: add, children: [b, b]}\n    b: {op_type: mul}\n"),
       "rules.yaml:3:37: 'b' stands twice in children"},
      {with_pattern("    a: {op_type: add, child: b, children: [b]}\n    b: {op_type: mul}\n"),
       "rules.yaml:3:5: node 'a' has child and children; list all in children"},
      {with_pattern("    a: {op_type: add, required: no}\n"),
       "rules.yaml:3:33: required is 'no'; give true or false"},
      {with_pattern("    a: {op_type: add, included: \"true\"}\n"),
       "rules.yaml:3:33: included is the text 'true'; give true or false"},
      {with_pattern("    a: {op_type: add, child: b}\n    b: {op_type: mul, child: c}\n"
                    "    c: {op_type: mul, child: b}\n"),
       "rules.yaml:4:5: a cycle: b -> c -> b"},
      {with_pattern("    a: {op_type: add}\n    a: {op_type: mul}\n"),
       "rules.yaml:4:5: 'a' stands in line 3 already; leave one out"},
      {with_pattern("    a: {op_type: add}\n    b: {op_type: mul}\n"),
       "rules.yaml:4:5: no edges link node 'b' to 'a': a pattern must hang together; add child or "
       "children"},
      {with_pattern("    a: {op_type: add, required: false}\n"),
       "rules.yaml:1:1: rule 'r' matches everywhere: no node is required"},
      {with_pattern("    a: {op_type: add, included: false}\n"),
       "rules.yaml:1:1: rule 'r' fuses nothing: no node is included"},
      {with_pattern("    a: {match_first_option: [b], child: b}\n    b: {op_type: mul}\n"),
       "rules.yaml:3:5: node 'a' has match_first_option and other keys; it must be the only one "
       "(the options have the rest)"},
      {with_pattern("    a: {match_first_option: b}\n    b: {op_type: mul}\n"),
       "rules.yaml:3:29: match_first_option is 'b'; give a list of nodes, as in [a, b]"},
      {with_pattern("    a: {match_first_option: [a]}\n"), "rules.yaml:3:5: a cycle: a -> a"},
  };
  for (const Mistake& mistake : mistakes)
    EXPECT_EQ(message_of(mistake.text), mistake.message) << mistake.text;
}

TEST(RuleFile, EachMistakeInYaml) {
  std::string deep = "a: ";
  for (int i = 0; i < 20; ++i) deep += "{x: ";
  deep += "1" + std::string(20, '}') + "\n";
  const Mistake mistakes[] = {
      {"a: [1\n", "rules.yaml:2:1: not YAML: end of sequence flow not found"},
      {"a: &x {pattern: 1}\nb: *x\n", "rules.yaml:1:4: an anchor (&name); leave it out"},
      {"a: *x\n", "rules.yaml:1:4: not YAML: the referenced anchor is not defined"},
      {"a: !!str 1\n", "rules.yaml:1:4: a tag (tag:yaml.org,2002:str); leave it out"},
      {"? [a]\n: 1\n", "rules.yaml:1:3: a key that is no name; write `name: value`"},
      {"a: 1\n---\nb: 1\n", "rules.yaml: a second document (---); a rule file is one"},
      {deep, "rules.yaml:1:64: nested more than 16 deep"},
      {std::string((1u << 20) + 1, ' '),
       "rules.yaml: 1048577 bytes; a rule file has at most "
       "1048576"},
  };
  for (const Mistake& mistake : mistakes) EXPECT_EQ(message_of(mistake.text), mistake.message);
}

TEST(RuleFile, AllProblemsAtOnceInTheOrderOfTheFile) {
  EXPECT_EQ(message_of("one:\n  priorty: 1\n  heuristic: FAST\n  pattern:\n"
                       "    a: {op_type: linaer, child: c}\n"
                       "two:\n  pattern: {a: {op_type: add, required: 1}}\n"),
            "rules.yaml: 5 problems\n"
            "  rules.yaml:2:3: unknown key 'priorty' of a rule; the nearest is priority\n"
            "  rules.yaml:3:14: the heuristic is 'FAST'; there are SAFE_GEMM, GEMM, "
            "SAFE_INFERENCE_GEMM, MHA, SDPA, GPT2_QKV, DEFAULT\n"
            "  rules.yaml:5:18: unknown op_type 'linaer'; the nearest are linear, index, alias\n"
            "  rules.yaml:5:33: no node of this pattern is called 'c'; the nearest is a\n"
            "  rules.yaml:7:41: required is '1'; give true or false");
}

TEST(RuleFile, LimitsOfSize) {
  std::string nodes = "    n0: {op_type: add}\n";
  for (int i = 1; i < 201; ++i)
    nodes += "    n" + std::to_string(i) + ": {op_type: add, child: n0}\n";
  EXPECT_EQ(message_of(with_pattern(nodes)),
            "rules.yaml:3:5: 201 nodes; a pattern has at most 200");
  std::string options;
  for (int i = 0; i < 7; ++i) {
    const std::string n = std::to_string(i);
    options += "    o" + n + ": {match_first_option: [a" + n + ", b" + n + "]}\n" + "    a" + n +
               ": {op_type: add}\n    b" + n + ": {op_type: mul}\n";
  }
  EXPECT_EQ(message_of(with_pattern(options)),
            "rules.yaml:21:5: more than 64 combinations of match_first_option in rule 'r'");
}

TEST(RuleFile, BuiltinHasNoMistakesAndNoNotes) {
  const RuleFile file = builtin_rules();
  EXPECT_GE(file.rules.size(), 10u);
  EXPECT_TRUE(file.notes.empty());
}

TEST(RuleFile, AMissingFileIsNamed) {
  try {
    read_rules("/nowhere/rules.yaml");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    EXPECT_NE(std::string(error.what()).find("/nowhere/rules.yaml"), std::string::npos);
  }
}

}  // namespace
}  // namespace shardwright::rules
