// Plans of small graphs: aliases, layouts, arena, and the same answers as the interpreter.
#include "plan/plan.h"

#include <gtest/gtest.h>

#include <random>

#include "ir/text.h"
#include "pef/read.h"
#include "plan/run_plan.h"

namespace shardwright::plan {
namespace {

// A module whose graphs are planned for one chip, or with local graphs given as text.
struct Case {
  ir::Module module;
  std::vector<std::vector<ir::Graph>> local;
  pef::Plan plan;
  ir::RefMap tensors;
  std::minstd_rand random{5};

  explicit Case(const std::string& text, const std::vector<std::string>& chips = {})
      : module(ir::parse(text)) {
    if (chips.empty())
      for (const ir::Graph& graph : module.graphs) local.push_back({graph});
    else
      local.emplace_back();
    for (const std::string& chip : chips) local[0].push_back(ir::parse(chip).graphs[0]);
    make();
  }
  explicit Case(ir::Module m) : module(std::move(m)) {
    for (const ir::Graph& graph : module.graphs) local.push_back({graph});
    make();
  }

  void make() {
    const pef::Manifest manifest = manifest_of(module, local);
    plan = manifest.plans[0];
    for (const ir::LogicalTensor& tensor : module.tensors)
      if (tensor.bytes.data == nullptr) tensors[tensor.name] = random_tensor(tensor.type);
    pef::check_manifest(manifest);
  }

  ops::RefTensor random_tensor(const TensorType& type) {
    ops::RefTensor tensor(type);
    for (double& element : tensor.data)
      element = static_cast<double>(static_cast<int64_t>(random() % 7) - 3);
    if (is_integer(type.dtype))
      for (double& element : tensor.data) element = std::abs(element);
    return tensor;
  }

  const std::vector<pef::Step>& steps(size_t chip = 0, size_t graph = 0) const {
    return plan.chips[chip].programs[graph].steps;
  }
  std::vector<std::string> ops(size_t graph = 0) const {
    std::vector<std::string> names;
    for (const pef::Step& step : steps(0, graph)) names.push_back(step.op);
    return names;
  }

  // Every graph gives what the interpreter gives.
  void check_values() {
    PlanRunner runner(module, plan, tensors);
    for (size_t g = 0; g < module.graphs.size(); ++g) {
      ir::RefMap inputs = tensors;
      for (const ir::Input& input : module.graphs[g].inputs)
        if (input.role == ir::InputRole::kUserInput)
          inputs[input.name] = random_tensor(module.graphs[g].type(input.value));
      const pef::GraphSignature signature = signature_of(module.graphs[g]);
      const ir::RefMap got = runner.run(g, signature, inputs);
      const ir::RefMap wanted = local[g].size() == 1
                                    ? ir::interpret(module, module.graphs[g], inputs)
                                    : ir::interpret_chips(module, local[g], inputs);
      for (const pef::Signature& output : signature.outputs) {
        const std::vector<double>& a = got.at(output.name).data;
        const std::vector<double>& b = wanted.at(output.name).data;
        ASSERT_EQ(a.size(), b.size());
        for (size_t i = 0; i < a.size(); ++i)
          ASSERT_NEAR(a[i], b[i], 1e-5 * (1 + std::abs(b[i])))
              << output.name << " element " << i << "\n"
              << ir::print(module.graphs[g]);
      }
    }
  }
};

using Names = std::vector<std::string>;

TEST(Plan, ChainRunsInPlaceAndEndsInTheUsersArray) {
  Case c(R"(graph g {
  input %x: f32[4, 8] = user_input "x"
  %a: f32[4, 8] = exp(%x)
  %b: f32[4, 8] = neg(%a)
  %c: f32[4, 8] = mul(%b, %a)
  %d: f32[4, 8] = neg(%c)
  %e: f32[4, 8] = neg(%d)
  output %e = user_output "e"
})");
  const auto& steps = c.steps();
  ASSERT_EQ(steps.size(), 5U);
  EXPECT_EQ(steps[0].operands[0].space, pef::Space::kInput);
  EXPECT_EQ(steps[4].results[0].space, pef::Space::kOutput);
  // a and b live together; c takes b's place, d takes c's.
  EXPECT_EQ(c.plan.chips[0].arena_bytes, 2 * 4 * 8 * 4);
  EXPECT_EQ(steps[2].results[0].offset_bytes, steps[3].results[0].offset_bytes);
  EXPECT_EQ(c.plan.chips[0].transfer_bytes, 0);
  c.check_values();
}

// The three views before attention cost nothing, and attention writes what the last linear reads.
TEST(Plan, AttentionBetweenLinearsCopiesNothing) {
  Case c(R"(tensor 0 "wq": f32[12, 8] parameter
tensor 1 "wo": f32[8, 12] parameter
graph g {
  input %x: f32[2, 5, 8] = user_input "x"
  input %wq: f32[12, 8] = parameter "wq" of 0 offset 0 strides [8, 1]
  input %wo: f32[8, 12] = parameter "wo" of 1 offset 0 strides [12, 1]
  %q: f32[2, 5, 12] = linear(%x, %wq, -)
  %qr: f32[2, 5, 3, 4] = reshape(%q) {shape=[2, 5, 3, 4]}
  %qp: f32[2, 3, 5, 4] = permute(%qr) {dims=[0, 2, 1, 3]}
  %a: f32[2, 3, 5, 4] = attention(%qp, %qp, %qp, -) {dropout_p=0.0, is_causal=true, group=1}
  %ap: f32[2, 5, 3, 4] = permute(%a) {dims=[0, 2, 1, 3]}
  %ar: f32[2, 5, 12] = reshape(%ap) {shape=[2, 5, 12]}
  %y: f32[2, 5, 8] = linear(%ar, %wo, -)
  output %y = user_output "y"
})");
  EXPECT_EQ(c.ops(), (Names{"linear", "attention", "linear"}));
  EXPECT_EQ(c.steps()[1].operands[0].strides, (Strides{60, 4, 12, 1}));
  EXPECT_EQ(c.steps()[1].results[0].strides, (Strides{60, 4, 12, 1}));
  EXPECT_EQ(c.steps()[2].operands[0].strides, (Strides{60, 12, 1}));
  for (const pef::Piece& piece : c.plan.chips[0].pieces)
    EXPECT_EQ(piece.layout, ops::Layout::kPanels);
  c.check_values();
}

TEST(Plan, AViewThatNoReaderTakesIsCopiedOnce) {
  Case c(R"(tensor 0 "w": f32[6, 4] parameter
graph g {
  input %x: f32[4, 5] = user_input "x"
  input %w: f32[6, 4] = parameter "w" of 0 offset 0 strides [4, 1]
  %t: f32[5, 4] = permute(%x) {dims=[1, 0]}
  %y: f32[5, 6] = linear(%t, %w, -)
  %z: f32[5, 6] = linear(%t, %w, -)
  %s: f32[5, 6] = add(%y, %z) {alpha=1}
  output %s = user_output "s"
})");
  EXPECT_EQ(c.ops(), (Names{"permute", "linear", "linear", "add"}));
  c.check_values();
}

TEST(Plan, OutputsThatAreInputsViewsOrUsedTwice) {
  Case c(R"(tensor 0 "w": f32[4, 5] parameter
graph g {
  input %x: f32[4, 5] = user_input "x"
  input %w: f32[4, 5] = parameter "w" of 0 offset 0 strides [5, 1]
  %t: f32[5, 4] = permute(%x) {dims=[1, 0]}
  %e: f32[4, 5] = neg(%x)
  %p: f32[5, 4] = permute(%e) {dims=[1, 0]}
  %q: f32[5, 4] = neg(%p)
  %f: f32[20] = reshape(%q) {shape=[20]}
  %s: f32[5, 2] = slice(%q) {dim=1, start=1, end=3, step=1}
  output %x = user_output "x_again"
  output %w = user_output "w"
  output %t = user_output "t"
  output %e = user_output "e"
  output %e = user_output "e_again"
  output %p = user_output "p"
  output %f = user_output "f"
  output %q = user_output "q"
  output %s = user_output "s"
})");
  // e, f and q are written where they belong; the rest is copied: x, w, t, e again, p, s, and one
  // of f and q, which share their elements.
  EXPECT_EQ(c.steps().size(), 2U + 7U);
  c.check_values();
}

TEST(Plan, AParameterThatAnEmbeddingSharesLiesInPanels) {
  Case c(R"(tensor 0 "table": bf16[37, 8] parameter
tensor 1 "other": bf16[37, 8] parameter
graph prefill {
  input %ids: i64[3] = user_input "ids"
  input %w: bf16[37, 8] = parameter "table" of 0 offset 0 strides [8, 1]
  input %o: bf16[37, 8] = parameter "other" of 1 offset 0 strides [8, 1]
  %e: bf16[3, 8] = embedding(%w, %ids) {padding_idx=-1, scale_grad_by_freq=false, sparse=false}
  %f: bf16[3, 8] = embedding(%o, %ids) {padding_idx=-1, scale_grad_by_freq=false, sparse=false}
  %s: bf16[3, 8] = add(%e, %f) {alpha=1}
  output %s = user_output "s"
}
graph decode {
  input %x: bf16[1, 8] = user_input "x"
  input %w: bf16[37, 8] = parameter "table" of 0 offset 0 strides [8, 1]
  %y: bf16[1, 37] = linear(%x, %w, -)
  output %y = user_output "y"
})");
  ASSERT_EQ(c.plan.chips[0].pieces.size(), 2U);
  const auto& pieces = c.plan.chips[0].pieces;
  EXPECT_EQ(pieces[0].layout, ops::Layout::kPanels);
  EXPECT_EQ(pieces[0].memory_bytes, 2 * 8 * 32 * 2);  // two panels of 32 columns
  EXPECT_EQ(pieces[1].layout, ops::Layout::kStrided);
  EXPECT_EQ(pieces[1].memory_offset_bytes, 1024);
  EXPECT_EQ(c.plan.chips[0].parameter_bytes, 1024 + 768);
  c.check_values();
}

constexpr const char* kCache = R"(tensor 0 "cache": f32[1, 6, 2] buffer
graph step {
  input %k: f32[1, 2, 2] = user_input "k"
  input %at: i64[2] = user_input "at"
  input %old: f32[1, 6, 2] = buffer "cache" of 0 offset 0 strides [12, 2, 1]
  %before: f32[1, 6, 2] = neg(%old)
  %new: f32[1, 6, 2] = index_copy(%old, %at, %k) {dim=1}
  %sum: f32[1, 6, 2] = add(%new, %before) {alpha=1}
  output %sum = user_output "sum"
  output %new = buffer_mutation "cache"
})";

TEST(Plan, ACacheIsWrittenInPlace) {
  Case c(kCache);
  EXPECT_EQ(c.ops(), (Names{"neg", "index_copy", "add"}));
  EXPECT_EQ(c.steps()[1].results[0].space, pef::Space::kParameter);
  c.check_values();
}

TEST(Plan, ACacheReadAfterTheChangeIsCopiedBack) {
  std::string text = kCache;
  text.replace(text.find("%before"), std::string::npos,
               R"(%new: f32[1, 6, 2] = index_copy(%old, %at, %k) {dim=1}
  %sum: f32[1, 6, 2] = add(%new, %old) {alpha=1}
  output %sum = user_output "sum"
  output %new = buffer_mutation "cache"
})");
  Case c(text);
  EXPECT_EQ(c.ops(), (Names{"index_copy", "add", "clone"}));
  EXPECT_EQ(c.steps()[2].results[0].space, pef::Space::kParameter);
  c.check_values();
}

// Two buffers change places: each is saved before the other is written over.
TEST(Plan, BuffersThatChangePlaces) {
  Case c(R"(tensor 0 "a": f32[2, 3] buffer
tensor 1 "b": f32[2, 3] buffer
graph g {
  input %x: f32[2, 3] = user_input "x"
  input %a: f32[2, 3] = buffer "a" of 0 offset 0 strides [3, 1]
  input %b: f32[2, 3] = buffer "b" of 1 offset 0 strides [3, 1]
  %y: f32[2, 3] = add(%x, %a) {alpha=1}
  output %y = user_output "y"
  output %b = buffer_mutation "a"
  output %a = buffer_mutation "b"
})");
  EXPECT_EQ(c.ops(), (Names{"add", "clone", "clone", "clone", "clone"}));
  EXPECT_EQ(c.steps()[3].operands[0].written_by, 1);
  EXPECT_EQ(c.steps()[4].operands[0].written_by, 2);
  c.check_values();
}

// What is read through another view as well can't be written element by element.
TEST(Plan, NotInPlaceUnderAnotherView) {
  Case c(R"(graph g {
  input %x: f32[4, 4] = user_input "x"
  %a: f32[4, 4] = neg(%x)
  %t: f32[4, 4] = permute(%a) {dims=[1, 0]}
  %s: f32[4, 4] = add(%a, %t) {alpha=1}
  %y: f32[4, 4] = exp(%s)
  output %y = user_output "y"
})");
  EXPECT_EQ(c.ops(), (Names{"neg", "add", "exp"}));
  EXPECT_NE(c.steps()[1].results[0].offset_bytes, c.steps()[1].operands[0].offset_bytes);
  c.check_values();
}

TEST(Plan, AParameterThatOneReaderCantTakePackedIsStrided) {
  Case c(R"(tensor 0 "w": f32[6, 8] parameter
graph g {
  input %x: f32[6, 8] = user_input "x"
  input %w: f32[6, 8] = parameter "w" of 0 offset 0 strides [8, 1]
  %a: f32[6, 8] = mul(%x, %w)
  %y: f32[6, 6] = linear(%a, %w, -)
  output %y = user_output "y"
})");
  EXPECT_EQ(c.plan.chips[0].pieces[0].layout, ops::Layout::kStrided);
  c.check_values();
}

std::string chip_graph(int begin, int end) {
  const std::string width = std::to_string(end - begin);
  const std::string rows = std::to_string(begin) + ":" + std::to_string(end);
  return "graph g {\n  input %x: f32[3, 4] = user_input \"x\" piece [0:3, 0:4]\n"
         "  input %w: f32[" +
         width + ", 4] = parameter \"w\" of 0 offset " + std::to_string(4 * begin) +
         " strides [4, 1] piece [" + rows + ", 0:4]\n" + "  %p: f32[3, " + width +
         "] = linear(%x, %w, -)\n" +
         "  %y: f32[3, 5] = exchange(%p) {kind=\"all_gather\", combine=\"copy\", from_dim=1, "
         "from_cuts=[0, 3, 3, 5, 5, 5], to_dim=-1, to_cuts=[], shape=[3, 5], n=3}\n"
         "  %r: f32[3, 5] = neg(%y)\n"
         "  output %r = user_output \"r\" piece [0:3, 0:5]\n"
         "  output %p = user_output \"p\" piece [0:3, " +
         rows + "]\n}";
}

// Three chips; the last has nothing. Each writes its columns of p; r is whole on all: chip 0's.
TEST(Plan, ChipsWriteDisjointPartsOfTheOutputs) {
  Case c(R"(tensor 0 "w": f32[5, 4] parameter
graph g {
  input %x: f32[3, 4] = user_input "x"
  input %w: f32[5, 4] = parameter "w" of 0 offset 0 strides [4, 1]
  %p: f32[3, 5] = linear(%x, %w, -)
  %r: f32[3, 5] = neg(%p)
  output %r = user_output "r"
  output %p = user_output "p"
})",
         {chip_graph(0, 3), chip_graph(3, 5), chip_graph(5, 5)});
  // The exchange wants its source without gaps, so p is copied to its columns afterwards.
  EXPECT_EQ(c.ops(), (Names{"linear", "exchange", "neg", "clone"}));
  EXPECT_EQ(c.steps(0)[2].results[0].space, pef::Space::kOutput);
  EXPECT_EQ(c.steps(1)[2].results[0].space, pef::Space::kArena);
  EXPECT_EQ(c.steps(1)[3].results[0].strides, (Strides{5, 1}));
  EXPECT_EQ(c.plan.chips[2].pieces[0].memory_bytes, 0);
  // Source (rounded up to 64 bytes) and target live together; neg reuses none of them on chip 0.
  EXPECT_EQ(c.plan.chips[0].transfer_bytes, 3 * 3 * 4 + 3 * 5 * 4);
  EXPECT_EQ(c.plan.chips[0].arena_bytes, 128);
  c.check_values();
}

TEST(Plan, BarriersOnlyWhereNeeded) {
  Case c(R"(tensor 0 "w": f32[4, 4] parameter
graph g {
  input %x: f32[2, 4] = user_input "x"
  input %w: f32[4, 4] = parameter "w" of 0 offset 0 strides [4, 1]
  %a: f32[2, 4] = linear(%x, %w, -)
  %b: f32[2, 4] = linear(%x, %w, -)
  %s: f32[2, 4] = add(%a, %b) {alpha=1}
  output %s = user_output "s"
})");
  EXPECT_FALSE(c.steps()[0].barrier_before);
  EXPECT_FALSE(c.steps()[1].barrier_before);
  EXPECT_TRUE(c.steps()[2].barrier_before);
  c.check_values();
}

TEST(Plan, InputsThatNoKernelTakesAreCopiedFirst) {
  // Chip 1 of 2 takes columns 3..5 of x: rows with gaps, which sum takes and exchange does not.
  const auto chip = [](const std::string& columns, const std::string& width) {
    return "graph g {\n  input %x: f32[2, " + width + "] = user_input \"x\" piece [0:2, " +
           columns +
           "]\n  %y: f32[2, 5] = exchange(%x) {kind=\"all_gather\", combine=\"copy\", from_dim=1, "
           "from_cuts=[0, 3, 3, 5], to_dim=-1, to_cuts=[], shape=[2, 5], n=2}\n"
           "  output %y = user_output \"y\" piece [0:2, 0:5]\n}";
  };
  Case c(R"(graph g {
  input %x: f32[2, 5] = user_input "x"
  %y: f32[2, 5] = neg(%x)
  output %y = user_output "y"
})",
         {chip("0:3", "3"), chip("3:5", "2")});
  EXPECT_EQ(c.ops(), (Names{"clone", "exchange"}));
  EXPECT_EQ(c.steps(1)[0].operands[0].offset_bytes, 3 * 4);
  EXPECT_EQ(c.steps(0)[1].results[0].space, pef::Space::kOutput);
  c.check_values();
}

// Chips that share rows (KV heads) and all hold a scalar: each element is written by one of them.
TEST(Plan, RowsThatChipsShareAreWrittenOnce) {
  const auto chip = [](const std::string& rows, int begin) {
    return "graph g {\n  input %x: f32[3, 4] = user_input \"x\" piece [" + rows + ", 0:4]\n" +
           "  input %i: i64[2] = user_input \"i\" piece [0:2]\n" +
           "  input %w: f32[3, 2] = parameter \"w\" of 0 offset " + std::to_string(2 * begin) +
           " strides [2, 1] piece [" + rows + ", 0:2]\n" +
           "  input %h: f32[] = user_input \"h\"\n" +
           "  %y: f32[3, 4] = neg(%x)\n  %z: f32[] = neg(%h)\n" +
           "  %e: f32[2, 2] = embedding(%w, %i) {padding_idx=-1, scale_grad_by_freq=false, " +
           "sparse=false} begin {v=" + std::to_string(begin) + "}\n" +
           "  %s: f32[2, 2] = exchange(%e) {kind=\"all_reduce\", combine=\"max\", from_dim=-1, " +
           "from_cuts=[], to_dim=-1, to_cuts=[], shape=[2, 2], n=2}\n" +
           "  %t: f32[2, 2] = neg(%s)\n" +
           "  %u: f32[2, 2] = exchange(%t) {kind=\"all_reduce\", combine=\"max\", from_dim=-1, " +
           "from_cuts=[], to_dim=-1, to_cuts=[], shape=[2, 2], n=2}\n  %v: f32[2, 2] = neg(%u)\n" +
           "  output %y = user_output \"y\" piece [" + rows +
           ", 0:4]\n  output %z = user_output \"z\"\n" +
           "  output %v = user_output \"v\" piece [0:2, 0:2]\n}";
  };
  Case c(R"(tensor 0 "w": f32[5, 2] parameter
graph g {
  input %x: f32[5, 4] = user_input "x"
  input %i: i64[2] = user_input "i"
  input %w: f32[5, 2] = parameter "w" of 0 offset 0 strides [2, 1]
  input %h: f32[] = user_input "h"
  %y: f32[5, 4] = neg(%x)
  %z: f32[] = neg(%h)
  %e: f32[2, 2] = embedding(%w, %i) {padding_idx=-1, scale_grad_by_freq=false, sparse=false}
  %t: f32[2, 2] = neg(%e)
  %v: f32[2, 2] = neg(%t)
  output %y = user_output "y"
  output %z = user_output "z"
  output %v = user_output "v"
})",
         {chip("0:3", 0), chip("2:5", 2)});
  // Chip 0 writes three rows of y and all else, chip 1 the two rows behind.
  const auto written = [&](size_t of_chip) {
    std::map<int, std::pair<int64_t, Shape>> found;
    for (const pef::Step& step : c.steps(of_chip))
      for (const pef::Buffer& result : step.results)
        if (result.space == pef::Space::kOutput && result.type.count() > 0)
          found[result.index] = {result.offset_bytes, result.type.shape};
    return found;
  };
  using Written = std::map<int, std::pair<int64_t, Shape>>;
  EXPECT_EQ(written(0), (Written{{0, {0, {3, 4}}}, {1, {0, {}}}, {2, {0, {2, 2}}}}));
  EXPECT_EQ(written(1), (Written{{0, {3 * 4 * 4, {2, 4}}}}));
  // Two storages of the exchanges live together, never four.
  EXPECT_EQ(c.plan.chips[0].transfer_bytes, 2 * 2 * 2 * 4);
  c.check_values();
}

}  // namespace
}  // namespace shardwright::plan
