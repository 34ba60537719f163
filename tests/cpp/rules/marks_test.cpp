// Marks on their way through the passes.
#include <gtest/gtest.h>

#include "ir/verify.h"
#include "passes/canonicalize.h"
#include "rules/graphs.h"

namespace shardwright::rules {
namespace {

// "rms_norm 0", "linear -1", ...: the canonical nodes with their groups.
std::vector<std::string> canonical(const std::string& text) {
  ir::Module module = ir::parse(text);
  passes::canonicalize(module);
  std::vector<std::string> nodes;
  for (const ir::Node& node : module.graphs[0].nodes)
    nodes.push_back(std::string(node.op->name) + " " + std::to_string(node.group));
  return nodes;
}

using Names = std::vector<std::string>;

std::string norm(int of_square, int of_cast, int of_product) {
  const auto group = [](int number) {
    return number < 0 ? "\n" : " group " + std::to_string(number) + "\n";
  };
  return "tensor 0 \"w\": bf16[8] parameter\n"
         "tensor 1 \"two\": f32[] constant = [2]\n"
         "tensor 2 \"eps\": f32[] constant = [0.5]\n"
         "graph forward {\n"
         "group 0 \"a\" from \"rules.yaml:1\"\n"
         "group 1 \"b\" from \"rules.yaml:9\"\n"
         "input %x: bf16[4, 8] = user_input \"x\"\n"
         "input %w: bf16[8] = parameter \"w\" of 0 offset 0 strides [1]\n"
         "input %two: f32[] = constant \"two\" of 1 offset 0 strides []\n"
         "input %eps: f32[] = constant \"eps\" of 2 offset 0 strides []\n"
         "%up: f32[4, 8] = cast(%x) {dtype=f32}" +
         group(of_cast) + "%square: f32[4, 8] = pow(%up, %two)" + group(of_square) +
         "%mean: f32[4, 1] = mean(%square) {dim=[-1], keepdim=true, dtype=None}" + group(0) +
         "%sum: f32[4, 1] = add(%mean, %eps) {alpha=1}" + group(0) +
         "%root: f32[4, 1] = rsqrt(%sum)" + group(0) + "%normal: f32[4, 8] = mul(%up, %root)" +
         group(0) + "%down: bf16[4, 8] = cast(%normal) {dtype=bf16}" + group(of_cast) +
         "%y: bf16[4, 8] = mul(%w, %down)" + group(of_product) +
         "output %y = user_output \"y\"\n}\n";
}

TEST(Marks, OfANorm) {
  EXPECT_EQ(canonical(norm(0, 0, 0)), (Names{"rms_norm 0"}));
  EXPECT_EQ(canonical(norm(0, -1, 0)), (Names{"rms_norm 0"}));  // casts that no rule names
  EXPECT_EQ(canonical(norm(0, 0, 1)), (Names{"rms_norm -1"}));  // it can't be in two steps
  EXPECT_EQ(canonical(norm(1, 0, 0)), (Names{"rms_norm -1"}));
}

TEST(Marks, OfFusedWeightsThatAreCut) {
  EXPECT_EQ(canonical("tensor 0 \"w\": f32[8, 4] parameter\n"
                      "tensor 1 \"b\": f32[8] parameter\n"
                      "graph forward {\n"
                      "group 0 \"qkv\" from \"rules.yaml:1\" split \"m\"\n"
                      "input %x: f32[4, 4] = user_input \"x\"\n"
                      "input %w: f32[8, 4] = parameter \"w\" of 0 offset 0 strides [4, 1]\n"
                      "input %b: f32[8] = parameter \"b\" of 1 offset 0 strides [1]\n"
                      "%a: f32[4, 8] = linear(%x, %w, %b) group 0\n"
                      "%c: f32[4, 4], %d: f32[4, 4] = split(%a) {split_size=4, dim=1}\n"
                      "%e: f32[4, 4] = neg(%c)\n"
                      "%f: f32[4, 4] = mul(%e, %d)\n"
                      "output %f = user_output \"y\"\n}\n"),
            (Names{"linear 0", "add 0", "linear 0", "add 0", "neg -1", "mul -1"}));
}

TEST(Marks, OfEqualNodesThatAreMerged) {
  const auto merged = [](const std::string& first, const std::string& second) {
    return canonical(
        "graph forward {\n"
        "group 0 \"a\" from \"rules.yaml:1\"\n"
        "group 1 \"b\" from \"rules.yaml:9\"\n"
        "input %x: f32[4, 4] = user_input \"x\"\n"
        "%a: f32[4, 4] = exp(%x)" +
        first +
        "\n"
        "%b: f32[4, 4] = exp(%x)" +
        second +
        "\n"
        "%c: f32[4, 4] = mul(%a, %b)\n"
        "output %c = user_output \"y\"\n}\n");
  };
  EXPECT_EQ(merged(" group 1", " group 1"), (Names{"exp 1", "mul -1"}));
  EXPECT_EQ(merged("", " group 1"), (Names{"exp 1", "mul -1"}));
  EXPECT_EQ(merged(" group 0", " group 1"), (Names{"exp -1", "mul -1"}));
}

TEST(Marks, OfRepeatedHeads) {
  EXPECT_EQ(canonical("graph forward {\n"
                      "group 0 \"mha\" from \"rules.yaml:1\"\n"
                      "input %q: f32[1, 4, 3, 8] = user_input \"q\"\n"
                      "input %k: f32[1, 2, 1, 3, 8] = user_input \"k\"\n"
                      "%e: f32[1, 2, 2, 3, 8] = expand(%k) {shape=[1, 2, 2, 3, 8]} group 0\n"
                      "%r: f32[1, 4, 3, 8] = reshape(%e) {shape=[1, 4, 3, 8]} group 0\n"
                      "%a: f32[1, 4, 3, 8] = attention(%q, %r, %r, -) {dropout_p=0, "
                      "is_causal=true, scale=1.5, enable_gqa=false, group=0} group 0\n"
                      "output %a = user_output \"y\"\n}\n"),
            (Names{"reshape 0", "attention 0"}));
}

// Every linear of a captured model keeps the group that the built-in rules give it.
TEST(Marks, OfGemmsOfCapturedModels) {
  for (const char* name : {"llama_f32", "llama_bf16", "gemma_bf16", "gpt2_f32", "gpt_neox_f32"}) {
    ir::Module module = captured_module(name);
    ir::Graph& graph = module.graphs[0];
    const RuleFile file = builtin_rules();
    mark(graph, file, match_rules(graph, file));
    passes::canonicalize(module);
    int gemms = 0;
    for (const ir::Node& node : graph.nodes) {
      const std::string_view op = node.op->name;
      gemms += op == "linear";
      const bool is_marked =
          op == "linear" || op == "rms_norm" || op == "layer_norm" || op == "attention";
      if (is_marked) {
        EXPECT_GE(node.group, 0) << name << ": " << graph.describe(node);
      }
    }
    EXPECT_GE(gemms, 13) << name;
  }
}

}  // namespace
}  // namespace shardwright::rules
