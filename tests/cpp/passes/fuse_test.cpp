// fuse: which groups are marked in models and in small graphs, and which are not.
#include "passes/fuse.h"

#include <gtest/gtest.h>

#include "ir/text.h"
#include "ir/verify.h"
#include "shard/models.h"

namespace shardwright::passes {
namespace {

using Groups = std::vector<std::string>;

// "linear*2 silu mul: g u act h", a line a group.
Groups groups_of(ir::Module module) {
  ir::Graph& graph = module.graphs[0];
  fuse(module, graph);
  ir::verify(module, graph, ir::Stage::kCanonical);
  Groups groups;
  for (const ir::FusionGroup& group : graph.groups) groups.push_back(group.name);
  return groups;
}

// Of a graph over %x, %y: f32[4, 6], %w, %v: f32[6, 6] and %b: f32[6]; the members too.
Groups groups_in(const std::string& nodes) {
  ir::Module module = ir::parse(R"(tensor 0 "w": f32[6, 6] parameter
tensor 1 "v": f32[6, 6] parameter
tensor 2 "b": f32[6] parameter
graph g {
  input %x: f32[4, 6] = user_input "x"
  input %y: f32[4, 6] = user_input "y"
  input %w: f32[6, 6] = parameter "w" of 0 offset 0 strides [6, 1]
  input %v: f32[6, 6] = parameter "v" of 1 offset 0 strides [6, 1]
  input %b: f32[6] = parameter "b" of 2 offset 0 strides [1]
)" + nodes + "}\n");
  ir::Graph& graph = module.graphs[0];
  ir::verify(module, graph, ir::Stage::kCanonical);
  fuse(module, graph);
  ir::verify(module, graph, ir::Stage::kCanonical);
  Groups groups;
  for (const ir::FusionGroup& group : graph.groups) {
    EXPECT_EQ(group.origin, "-o3");
    groups.push_back(group.name + ":");
  }
  for (const ir::Node& node : graph.nodes)
    if (node.group >= 0)
      groups[static_cast<size_t>(node.group)] +=
          " " + graph.values[static_cast<size_t>(node.outputs[0])].name;
  return groups;
}

// Issue 4's list: q, k, v side by side; rope of q and of k; the sum of the residual and the norm
// behind the gemm that feeds them; gate, up and their product.
TEST(Fuse, Llama) {
  const std::string rope = "neg cat mul*2 add";
  const Groups layer{"linear*3",           rope, rope, "linear add rms_norm", "linear*2 silu mul",
                     "linear add rms_norm"};
  Groups two = layer;
  two.insert(two.end(), layer.begin(), layer.end());
  Groups got = groups_of(shard::llama({.layers = 2}).module);
  for (std::string& name : got)  // which product of rope is made first is left open
    if (name == "mul*2 neg cat add") name = rope;
  std::sort(two.begin(), two.end());
  std::sort(got.begin(), got.end());
  EXPECT_EQ(got, two);
}

TEST(Fuse, Gpt2) {
  Groups got = groups_of(shard::gpt2({}).module);
  EXPECT_EQ(
      got, (Groups{"add layer_norm", "linear*3 add*3", "linear add*2 layer_norm", "linear add gelu",
                   "linear add*2 layer_norm", "linear amax sub*2 exp sum log gather"}));
}

TEST(Fuse, Bert) {
  Groups got = groups_of(shard::bert({}).module);
  EXPECT_EQ(got, (Groups{"linear*3 add*3", "div add softmax", "linear add*2 layer_norm",
                         "linear add gelu", "linear add*2 layer_norm", "linear add"}));
}

TEST(Fuse, LinearsOfOneXAlone) {
  EXPECT_EQ(groups_in(R"(  %p: f32[4, 6] = linear(%x, %w, -)
  %q: f32[4, 6] = linear(%y, %v, -)
  output %p = user_output "p"
  output %q = user_output "q"
)"),
            Groups{});
  EXPECT_EQ(groups_in(R"(  %p: f32[4, 6] = linear(%x, %w, -)
  %r: f32[4, 6] = linear(%p, %w, -)
  %q: f32[4, 6] = linear(%x, %v, -)
  output %r = user_output "r"
  output %q = user_output "q"
)"),
            Groups{"linear*2: p q"});
}

// s would leave the group of p through t, which is no row operator, and come back.
TEST(Fuse, NoPathLeavesAGroupAndComesBack) {
  EXPECT_EQ(groups_in(R"(  %p: f32[4, 6] = neg(%x)
  %t: f32[4, 6] = cumsum(%p) {dim=0}
  %q: f32[4, 6] = exp(%p)
  %s: f32[4, 6] = add(%q, %t) {alpha=1}
  output %s = user_output "s"
)"),
            (Groups{"neg exp: p q"}));
}

TEST(Fuse, RowsOfDifferentNumbersStayApart) {
  // A sum over the rows (dim 0), a view that turns rows into columns.
  EXPECT_EQ(groups_in(R"(  %p: f32[4, 6] = neg(%x)
  %s: f32[1, 6] = sum(%p) {dim=[0], keepdim=true}
  %t: f32[1, 6] = exp(%s)
  %u: f32[1, 6] = neg(%t)
  %v1: f32[6, 4] = permute(%p) {dims=[1, 0]}
  %w1: f32[6, 4] = exp(%v1)
  output %u = user_output "u"
  output %w1 = user_output "w1"
)"),
            (Groups{"exp neg: t u"}));
}

TEST(Fuse, ATreeThatMeetsAgainIsOneGroup) {
  EXPECT_EQ(groups_in(R"(  %p: f32[4, 6] = neg(%x)
  %q: f32[4, 6] = exp(%y)
  %h: f32[4, 3] = slice(%p) {dim=1, start=3, end=6, step=1}
  %l: f32[4, 3] = slice(%q) {dim=1, start=0, end=3, step=1}
  %c: f32[4, 6] = cat(%h, %l) {dim=1}
  %m: f32[4, 1] = amax(%c) {dim=[-1], keepdim=true}
  %r: f32[4, 6] = sub(%c, %m) {alpha=1}
  output %r = user_output "r"
)"),
            (Groups{"neg exp cat amax sub: p q c m r"}));
}

// Of one layer: the query's rope and both writes are one group, whatever their rows; what reads a
// cache as it is stands apart.
TEST(Fuse, CacheWritesBeforeAttention) {
  const std::string inputs = R"(graph g {
  input %q: f32[1, 4, 2, 6] = user_input "q"
  input %k: f32[1, 2, 2, 6] = user_input "k"
  input %v: f32[1, 2, 2, 6] = user_input "v"
  input %kc: f32[1, 2, 8, 6] = user_input "kc"
  input %vc: f32[1, 2, 8, 6] = user_input "vc"
  input %at: i64[1, 2] = user_input "at"
)";
  const auto marked = [&](const std::string& nodes) {
    ir::Module module = ir::parse(inputs + nodes + "}\n");
    ir::verify(module, module.graphs[0], ir::Stage::kCanonical);
    return groups_of(std::move(module));
  };
  EXPECT_EQ(marked(R"(  %qr: f32[1, 4, 2, 6] = neg(%q)
  %kr: f32[1, 2, 2, 6] = exp(%k)
  %kw: f32[1, 2, 8, 6] = cache_write(%kc, %at, %kr)
  %vw: f32[1, 2, 8, 6] = cache_write(%vc, %at, %v)
  %y: f32[1, 4, 2, 6] = attention(%qr, %kw, %vw, -, %at) {group=2, is_causal=false}
  output %y = user_output "y"
)"),
            Groups{"neg exp cache_write*2"});
  // No cache: query and key stay apart.
  EXPECT_EQ(marked(R"(  %qr: f32[1, 4, 2, 6] = neg(%q)
  %qs: f32[1, 4, 2, 6] = exp(%qr)
  %kr: f32[1, 2, 2, 6] = neg(%k)
  %ks: f32[1, 2, 2, 6] = exp(%kr)
  %y: f32[1, 4, 2, 6] = attention(%qs, %ks, %v, -) {group=2, is_causal=false}
  output %y = user_output "y"
)"),
            (Groups{"neg exp", "neg exp"}));
  EXPECT_EQ(marked(R"(  %kw: f32[1, 2, 8, 6] = cache_write(%kc, %at, %k)
  %n: f32[1, 2, 8, 6] = neg(%kw)
  output %n = user_output "n"
)"),
            Groups{});
}

TEST(Fuse, BiasOfOneIsNoResidualOfAnother) {
  // p's sum waits for r, which waits for p: it goes behind r's gemm.
  EXPECT_EQ(groups_in(R"(  %p: f32[4, 6] = linear(%x, %w, -)
  %pb: f32[4, 6] = add(%p, %b) {alpha=1}
  %r: f32[4, 6] = linear(%pb, %v, -)
  %s: f32[4, 6] = add(%pb, %r) {alpha=1}
  output %s = user_output "s"
)"),
            (Groups{"linear add: p pb", "linear add: r s"}));
}

}  // namespace
}  // namespace shardwright::passes
