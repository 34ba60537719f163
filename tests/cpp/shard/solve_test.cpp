// The solver: exact on random problems, Megatron's layout in weight mode with the collectives of
// the closed forms, no exchange in batch mode, and one message for each mistake of a user.
#include "shard/solve.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>

#include "base/error.h"
#include "shard/formulate.h"
#include "shard/models.h"
#include "shard/partition.h"

namespace shardwright::shard {
namespace {

Problem random_problem(uint64_t seed) {
  std::mt19937_64 random(seed);
  Problem problem;
  const int n = 2 + static_cast<int>(random() % 6);
  for (int v = 0; v < n; ++v) {
    std::vector<Cost> costs(1 + random() % 4);
    for (Cost& cost : costs) cost = static_cast<Cost>(random() % 50);
    problem.variables.push_back({"v" + std::to_string(v), costs});
  }
  for (int a = 0; a < n; ++a) {
    for (int b = 0; b < n; ++b) {
      if (a == b || random() % 3 != 0) continue;
      std::vector<Cost> costs(problem.variables[static_cast<size_t>(a)].costs.size() *
                              problem.variables[static_cast<size_t>(b)].costs.size());
      for (Cost& cost : costs) cost = static_cast<Cost>(random() % 50);
      problem.tables.push_back({a, b, std::make_shared<const std::vector<Cost>>(costs)});
    }
  }
  return problem;
}

Cost brute_force(const Problem& problem) {
  std::vector<int> choice(problem.variables.size(), 0);
  Cost best = problem.cost(choice);
  while (true) {
    size_t v = 0;
    while (v < choice.size() && ++choice[v] == static_cast<int>(problem.variables[v].costs.size()))
      choice[v++] = 0;
    if (v == choice.size()) return best;
    best = std::min(best, problem.cost(choice));
  }
}

TEST(Minimise, EqualsBruteForceOnRandomProblems) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    const Problem problem = random_problem(seed);
    EXPECT_EQ(problem.cost(minimise(problem)), brute_force(problem)) << "seed " << seed;
  }
}

// Weight and factor that a linear or embedding of that name splits.
std::string split_of(const Model& model, const Solution& s, const std::string& path) {
  const ir::Graph& graph = model.graph();
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    const ir::Node& node = graph.nodes[n];
    const std::string op = node.op->name;
    if (graph.sources[static_cast<size_t>(node.source)].path == path &&
        (op == "linear" || op == "embedding"))
      return s.strategies[n].name;
  }
  return "no node " + path;
}

// Exchanges of whole messages of batch x tokens x hidden elements.
struct Collectives {
  int all_reduce = 0, reduce_scatter = 0, all_gather = 0, rebalance = 0, other = 0;
};
Collectives count_messages(const std::vector<ExchangeInfo>& exchanges, int64_t elements) {
  Collectives count;
  for (const ExchangeInfo& info : exchanges) {
    const std::string& kind = info.exchange.kind;
    count.rebalance += kind == "rebalance" ? 1 : 0;
    if (element_count(info.exchange.shape) != elements || kind == "rebalance") continue;
    ++(kind == "all_reduce"       ? count.all_reduce
       : kind == "reduce_scatter" ? count.reduce_scatter
       : kind == "all_gather"     ? count.all_gather
                                  : count.other);
  }
  return count;
}

void expect_megatron(const Model& model, const Dims& d, int64_t tokens, int n) {
  SCOPED_TRACE(std::to_string(n) + " chips, " + std::to_string(tokens) + " tokens");
  const Solution s = solve(model.module, {.mode = Mode::kWeight, .n_chips = n})[0];
  EXPECT_EQ(split_of(model, s, "embed"), "split v");
  EXPECT_EQ(split_of(model, s, "lm_head"), "split m");
  for (int64_t l = 0; l < d.layers; ++l) {
    const std::string layer = "layers." + std::to_string(l);
    for (const char* name : {".q_proj", ".k_proj", ".v_proj", ".gate_proj", ".up_proj"})
      EXPECT_EQ(split_of(model, s, layer + name).substr(0, 7), "split m") << layer << name;
    for (const char* name : {".o_proj", ".down_proj"})
      EXPECT_EQ(split_of(model, s, layer + name).substr(0, 7), "split k") << layer << name;
  }
  const std::vector<ir::Graph> chips = partition(model.module, model.graph(), s);
  const std::vector<ExchangeInfo> exchanges = exchanges_of(chips[0]);
  const Collectives c = count_messages(exchanges, d.batch * tokens * d.hidden);
  EXPECT_EQ(c.all_reduce + c.reduce_scatter, 2 * d.layers + 1);
  EXPECT_EQ(c.reduce_scatter, c.all_gather);
  EXPECT_EQ(c.other, 0);
  // Logits stay split by the vocabulary: nothing else is exchanged, but where heads don't divide
  // rows of q, k, v and of the attention's result, to even out the gemms beside it.
  EXPECT_EQ(exchanges.size(),
            static_cast<size_t>(c.all_reduce + 2 * c.reduce_scatter + c.rebalance));
  EXPECT_LE(c.rebalance, d.heads % n == 0 ? 0 : 4 * d.layers);
  // Each sum has a split of its own that forced it.
  std::set<ir::NodeId> forced;
  for (const ExchangeInfo& info : exchanges) {
    EXPECT_NE(info.forced, "");
    if (info.exchange.combine != ops::Combine::kSum) continue;
    EXPECT_TRUE(forced.insert(info.forced_by).second) << info.forced;
    const std::string op = model.graph().nodes[static_cast<size_t>(info.forced_by)].op->name;
    EXPECT_TRUE(op == "linear" || op == "embedding") << info.forced;
  }
}

TEST(WeightMode, LlamaIsSplitAsMegatronDoes) {
  const Dims d{.batch = 2,
               .tokens = 64,
               .layers = 3,
               .heads = 9,
               .kv_heads = 3,
               .head = 64,
               .hidden = 576,
               .ffn = 1536,
               .vocab = 4099,
               .cache = 64,
               .data = false};
  const Model prefill = llama(d), decode = llama(d, true), tied = llama(d, false, true);
  for (int n = 2; n <= 8; ++n) {
    expect_megatron(prefill, d, d.tokens, n);
    expect_megatron(decode, d, 1, n);
    expect_megatron(tied, d, d.tokens, n);
  }
}

// 9 heads over 2 chips are 5 + 4; the gemms beside the attention are split evenly all the same.
TEST(WeightMode, GemmsOfUnevenHeadsAreEven) {
  const Dims d{.tokens = 512, .head = 64, .hidden = 576, .ffn = 1536, .data = false};
  const Model model = llama(d);
  const Solution s = solve(model.module, {.mode = Mode::kWeight, .n_chips = 2})[0];
  for (const char* name : {"q_proj", "k_proj", "v_proj"})
    EXPECT_EQ(split_of(model, s, std::string("layers.0.") + name), "split m even") << name;
  EXPECT_EQ(split_of(model, s, "layers.0.o_proj"), "split k even");
  EXPECT_EQ(split_of(model, s, "layers.0.up_proj"), "split m");
  for (const ir::Graph& chip : partition(model.module, model.graph(), s))
    for (const ir::Input& input : chip.inputs) {
      if (input.name.find("k_proj") == std::string::npos) continue;
      EXPECT_EQ(chip.type(input.value).shape, (Shape{96, 576}));
    }
  // 8 heads need no help.
  const Model even =
      llama({.tokens = 512, .heads = 8, .kv_heads = 4, .head = 64, .hidden = 512, .data = false});
  const Solution e = solve(even.module, {.mode = Mode::kWeight, .n_chips = 2})[0];
  for (const ExchangeInfo& info : exchanges_of(partition(even.module, even.graph(), e)[0]))
    EXPECT_NE(info.exchange.kind, "rebalance");
}

TEST(WeightMode, WeightsAreStoredSplitAndNormsWhole) {
  const Dims d{.layers = 2,
               .heads = 8,
               .kv_heads = 8,
               .head = 16,
               .hidden = 128,
               .ffn = 352,
               .vocab = 512,
               .data = false};
  const Model model = llama(d, false, true);
  const Solution s = solve(model.module, {.mode = Mode::kWeight, .n_chips = 4})[0];
  for (size_t i = 0; i < s.inputs.size(); ++i) {
    const ir::Input& input = model.graph().inputs[i];
    if (input.role != ir::InputRole::kParameter) continue;
    const bool norm = input.name.find("norm") != std::string::npos;
    EXPECT_EQ(s.inputs[i] == kWhole, norm) << input.name << " is " << to_string(s.inputs[i]);
  }
  const std::vector<ir::Graph> chips = partition(model.module, model.graph(), s);
  int64_t whole = 0, held = 0;
  for (const ir::Input& input : model.graph().inputs)
    if (input.role == ir::InputRole::kParameter) whole += model.graph().type(input.value).count();
  for (const ir::Input& input : chips[0].inputs)
    if (input.role == ir::InputRole::kParameter) held += chips[0].type(input.value).count();
  EXPECT_NEAR(static_cast<double>(held) / static_cast<double>(whole), 0.25, 0.01);
}

TEST(WeightMode, GraphsOfAModuleShareTheirTensors) {
  const Dims d{.layers = 2, .data = false};
  Model prefill = llama(d), decode = llama(d, true);
  ir::Module both = decode.module;
  ir::Graph graph = prefill.graph();
  graph.name = "prefill";
  for (ir::Input& input : graph.inputs) {
    if (input.role == ir::InputRole::kUserInput) continue;
    const std::string& name = prefill.module.tensors[static_cast<size_t>(input.ref.tensor)].name;
    size_t i = 0;
    while (i < both.tensors.size() && both.tensors[i].name != name) ++i;
    const bool shared = i < both.tensors.size() && input.role == ir::InputRole::kParameter;
    if (!shared) {
      i = both.tensors.size();
      both.tensors.push_back(prefill.module.tensors[static_cast<size_t>(input.ref.tensor)]);
    }
    input.ref.tensor = static_cast<int>(i);
  }
  both.graphs.push_back(graph);
  for (int n = 2; n <= 5; ++n) {
    const auto solutions = solve(both, {.mode = Mode::kWeight, .n_chips = n});
    ASSERT_EQ(solutions.size(), 2U);
    int shared = 0;
    for (size_t i = 0; i < both.graphs[0].inputs.size(); ++i) {
      for (size_t j = 0; j < both.graphs[1].inputs.size(); ++j) {
        const ir::Input &a = both.graphs[0].inputs[i], &b = both.graphs[1].inputs[j];
        if (a.role != ir::InputRole::kParameter || a.name != b.name) continue;
        ++shared;
        EXPECT_EQ(solutions[0].inputs[i], solutions[1].inputs[j]) << a.name;
        for (int chip = 0; chip < n; ++chip)
          EXPECT_EQ(local_type(both.graphs[0], a.value, solutions[0].inputs[i],
                               solutions[0].colours, chip),
                    local_type(both.graphs[1], b.value, solutions[1].inputs[j],
                               solutions[1].colours, chip))
              << a.name;
      }
    }
    EXPECT_EQ(shared, 3 + 2 * 9);
  }
}

TEST(BatchMode, NothingIsExchangedAndWeightsAreWhole) {
  for (const bool decode : {false, true}) {
    const Model model = llama({.batch = 11, .layers = 2, .data = false}, decode);
    for (int n = 2; n <= 8; ++n) {
      const Solution s = solve(model.module, {.mode = Mode::kBatch, .n_chips = n})[0];
      const std::vector<ir::Graph> chips = partition(model.module, model.graph(), s);
      EXPECT_TRUE(exchanges_of(chips[0]).empty()) << n << " chips";
      for (size_t i = 0; i < s.inputs.size(); ++i) {
        const ir::Input& input = model.graph().inputs[i];
        const bool split_input = input.name == "input_ids" || input.role == ir::InputRole::kBuffer;
        EXPECT_EQ(s.inputs[i], split_input ? split(0) : kWhole) << input.name;
      }
      EXPECT_EQ(s.outputs.back(), split(0));
    }
  }
}

std::string error_of(const Model& model, const SolveOptions& options) {
  try {
    solve(model.module, options);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    return error.what();
  }
  return "no error";
}

TEST(Errors, BatchSmallerThanTheChips) {
  EXPECT_EQ(error_of(llama({.batch = 2, .data = false}), {.mode = Mode::kBatch, .n_chips = 4}),
            "batch 2 is smaller than 4 chips: give -b 4 or more, or --n-chips 2");
}

TEST(Errors, AFixedSplitThatCannotBeHad) {
  const Model model = llama({.data = false});
  ir::NodeId norm = -1;
  for (size_t n = 0; n < model.graph().nodes.size(); ++n)
    if (std::string(model.graph().nodes[n].op->name) == "rms_norm" && norm < 0)
      norm = static_cast<ir::NodeId>(n);
  const SolveOptions options{
      .mode = Mode::kWeight, .n_chips = 2, .fixed = {{{0, norm}, {"k", "rules.yaml:3 qkv"}}}};
  EXPECT_EQ(error_of(model, options),
            "rules.yaml:3 qkv: layers.0.input_norm (rms_norm), model.py:2 can't be split by k over "
            "2 chips; possible: t1");
}

TEST(WeightMode, AFixedSplitIsKeptAndTheRestFollows) {
  const Model model = llama({.data = false});
  SolveOptions options{.mode = Mode::kWeight, .n_chips = 2};
  for (size_t n = 0; n < model.graph().nodes.size(); ++n) {
    const ir::Node& node = model.graph().nodes[n];
    if (model.graph().sources[static_cast<size_t>(node.source)].path == "layers.0.down_proj" &&
        std::string(node.op->name) == "linear")
      options.fixed[{0, static_cast<ir::NodeId>(n)}] = {"m", "rules.yaml:9 ffn1"};
  }
  ASSERT_EQ(options.fixed.size(), 1U);
  const Solution s = solve(model.module, options)[0];
  EXPECT_EQ(split_of(model, s, "layers.0.down_proj"), "split m");
  EXPECT_EQ(split_of(model, s, "layers.0.q_proj"), "split m");
  EXPECT_EQ(s.reasons[static_cast<size_t>(options.fixed.begin()->first.second)].who,
            "rules.yaml:9 ffn1");
}

bool has_note(const Solution& s, const std::string& text) {
  for (const std::string& note : s.notes)
    if (note.find(text) != std::string::npos) return true;
  for (const std::string& note : s.notes) std::printf("note: %s\n", note.c_str());
  return false;
}

TEST(Notes, UnevenHeadsSayTheNearestNumberThatDivides) {
  const Model model = llama({.data = false});
  const Solution s = solve(model.module, {.mode = Mode::kWeight, .n_chips = 2})[0];
  EXPECT_TRUE(has_note(s,
                       "9 over 2 chips is 5 + 4: the largest piece is 11 % above the mean; "
                       "nearest number of chips that divides it: 3"));
}

TEST(Notes, FewerHeadsThanChips) {
  const Model model = llama({.heads = 2, .kv_heads = 2, .head = 8, .hidden = 16, .data = false});
  const Solution s = solve(model.module, {.mode = Mode::kWeight, .n_chips = 4})[0];
  EXPECT_EQ(split_of(model, s, "layers.0.q_proj"), "split k");
  EXPECT_TRUE(has_note(s, "m divides into only 2 pieces for 4 chips: split k instead"));
  EXPECT_TRUE(has_note(s, "runs whole on every chip: h is 2, fewer than 4 chips"));
  const auto fell_back = [&](const std::string& why) {
    return std::any_of(s.reasons.begin(), s.reasons.end(),
                       [&](const Reason& reason) { return reason.fell_back == why; });
  };
  EXPECT_TRUE(fell_back("m divides into only 2 pieces for 4 chips"));
  EXPECT_TRUE(fell_back("runs whole on every chip: h is 2, fewer than 4 chips"));
}

// With more chips than heads q, k and v are partial sums; they are added up in one meeting.
TEST(Partition, SumsThatAreReadyTogetherMeetOnce) {
  const Model model = llama({.heads = 2, .kv_heads = 1});
  const Solution solution = solve(model.module, {.mode = Mode::kWeight, .n_chips = 4})[0];
  for (const ir::Graph& chip : partition(model.module, model.module.graphs[0], solution)) {
    int together = 0;
    for (size_t n = 0; n < chip.nodes.size(); ++n) {
      if (chip.nodes[n].op != &ops::exchange) continue;
      if (!ops::exchange_of(chip.nodes[n].attrs).with_previous) continue;
      ++together;
      ASSERT_EQ(chip.nodes[n - 1].op, &ops::exchange);
    }
    EXPECT_GE(together, 2);  // k and v with q, in each layer
  }
}

TEST(Solve, IsDeterministic) {
  const Model model = llama({.layers = 2, .data = false});
  const SolveOptions options{.mode = Mode::kAuto, .n_chips = 3};
  EXPECT_EQ(problem_json(model.module, options), problem_json(model.module, options));
}

// For tests/python/test_solver_ilp.py: writes problems and optima where the environment says so.
TEST(Export, ProblemsForTheIlp) {
  const char* folder = std::getenv("SHARDWRIGHT_PROBLEMS");
  if (folder == nullptr) GTEST_SKIP() << "SHARDWRIGHT_PROBLEMS names no folder";
  const Dims small{.batch = 8, .layers = 2, .data = false};
  const Dims large{.batch = 4,
                   .tokens = 512,
                   .layers = 2,
                   .heads = 32,
                   .kv_heads = 8,
                   .head = 128,
                   .hidden = 4096,
                   .ffn = 14336,
                   .vocab = 128256,
                   .cache = 1024,
                   .data = false};
  Dims one_kv = small;
  one_kv.heads = 5, one_kv.kv_heads = 1, one_kv.hidden = 20;
  const std::pair<std::string, Model> models[] = {{"llama", llama(small)},
                                                  {"tied", llama(one_kv, false, true)},
                                                  {"decode", llama(small, true)},
                                                  {"gpt2", gpt2(small)},
                                                  {"bert", bert(small)},
                                                  {"llama8b", llama(large)},
                                                  {"llama8b_decode", llama(large, true)}};
  const std::pair<std::string, Machine> machines[] = {
      {"threads", {}},
      {"network", {.name = "network", .link_bytes_per_s = 1.2e9, .link_latency_s = 20e-6}}};
  for (const auto& [name, model] : models)
    for (const auto& [machine_name, machine] : machines)
      for (const Mode mode : {Mode::kBatch, Mode::kWeight, Mode::kAuto})
        for (const int n : {2, 3, 8}) {
          if (mode == Mode::kBatch && name.starts_with("llama8b") && n > 4) continue;
          std::ofstream file(std::filesystem::path(folder) /
                             (name + "_" + machine_name + "_" + mode_name(mode) + "_" +
                              std::to_string(n) + ".json"));
          file << problem_json(model.module, {.mode = mode, .n_chips = n, .machine = machine});
        }
}

}  // namespace
}  // namespace shardwright::shard
