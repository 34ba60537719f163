// Random strategies over the real kernels: a random valid strategy for every node, planned, written
// as a PEF and run by a session, equals the interpreter on the whole graph. With planted faults.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "base/error.h"
#include "pef/write.h"
#include "plan/plan.h"
#include "runtime/run_session.h"
#include "shard/chips.h"
#include "shard/models.h"
#include "shard/partition.h"
#include "shard/solve.h"

namespace shardwright::runtime {
namespace {

using shard::Model;
using Plant = std::function<void(ir::Graph*, int chip)>;

constexpr int kChips[] = {2, 3, 4, 5, 8};
// Of the largest element. The kernels round to f32 and the weights are integers up to 2: sums of a
// few hundred products; a fault is off by a whole number.
constexpr double kTolerance = 1e-4;

// One PEF file with a plan for each number of chips.
class RandomPef {
 public:
  RandomPef(const Model& model, uint64_t seed, std::span<const int> n_chips, const Plant& plant)
      : path_((std::filesystem::temp_directory_path() /
               ("random_" + std::to_string(getpid()) + ".pef"))
                  .string()) {
    const ir::Module& module = model.module;
    pef::Manifest manifest;
    manifest.model_name = "random";
    manifest.tensors = plan::tensors_of(module);
    manifest.graphs = {plan::signature_of(model.graph())};
    for (const int n : n_chips) {
      std::vector<ir::Graph> chips =
          shard::partition(module, model.graph(), shard::random_solution(model.graph(), n, seed));
      for (int chip = 0; plant && chip < n; ++chip) plant(&chips[static_cast<size_t>(chip)], chip);
      manifest.plans.push_back(plan::make_plan(module, {chips}).plan);
      manifest.plans.back().n_chips = n;
    }
    std::vector<TensorView> views;
    for (const ir::LogicalTensor& tensor : module.tensors) views.push_back(tensor.view());
    pef::write(path_, manifest, views);
  }
  ~RandomPef() { std::filesystem::remove(path_); }
  RandomPef(const RandomPef&) = delete;
  RandomPef& operator=(const RandomPef&) = delete;

  // Outputs and written buffers by name.
  ir::RefMap run(const Model& model, int n_chips, int threads) const {
    SessionOptions options;
    options.n_chips = n_chips;
    options.threads_per_chip = threads;
    const std::unique_ptr<Session> session = Session::load(path_, options);
    ir::RefMap results = run_session(*session, model.inputs);
    for (size_t i = 0; i < session->manifest().tensors.size(); ++i) {
      const pef::Tensor& tensor = session->manifest().tensors[i];
      if (model.module.tensors[i].role == ir::InputRole::kBuffer)
        results[tensor.name] = ir::to_ref({tensor.type, contiguous_strides(tensor.type.shape),
                                           session->parameter(static_cast<int>(i)).data});
    }
    return results;
  }

 private:
  std::string path_;
};

// What is found first; "" if nothing.
std::string random_test(const Model& model, uint64_t n_seeds, std::span<const int> n_chips,
                        const Plant& plant = {}) {
  const ir::RefMap whole = ir::interpret(model.module, model.graph(), model.inputs);
  for (uint64_t seed = 1; seed <= n_seeds; ++seed) {
    std::string where = "seed " + std::to_string(seed);
    try {
      const RandomPef pef(model, seed, n_chips, plant);
      for (const int n : n_chips) {
        where = "seed " + std::to_string(seed) + ", " + std::to_string(n) + " chips";
        const ir::RefMap got = pef.run(model, n, 1 + static_cast<int>(seed % 2));
        for (const auto& [name, want] : whole) {
          const std::string wrong = shard::compare(got.at(name), want, kTolerance);
          if (!wrong.empty()) return where + ", " + name + ": " + wrong;
        }
      }
    } catch (const Error& error) {
      return where + ": " + error.what();
    }
  }
  return "";
}

TEST(RandomStrategiesOnKernels, Llama) { EXPECT_EQ(random_test(shard::llama({}), 12, kChips), ""); }
TEST(RandomStrategiesOnKernels, LlamaOneKvHeadTied) {
  const Model model = shard::llama({.heads = 5, .kv_heads = 1, .hidden = 10}, false, true);
  EXPECT_EQ(random_test(model, 8, kChips), "");
}
TEST(RandomStrategiesOnKernels, LlamaDecodeWritesItsCache) {
  const Model model = shard::llama({.batch = 3, .layers = 2, .heads = 6, .kv_heads = 2}, true);
  EXPECT_EQ(random_test(model, 12, kChips), "");
}
TEST(RandomStrategiesOnKernels, Gpt2WithLoss) {
  EXPECT_EQ(random_test(shard::gpt2({}), 12, kChips), "");
}
TEST(RandomStrategiesOnKernels, Bert) {
  EXPECT_EQ(random_test(shard::bert({.batch = 3}), 12, kChips), "");
}

void for_each_op(ir::Graph* graph, const char* name, const std::function<void(ir::Node*)>& visit) {
  for (ir::Node& node : graph->nodes)
    if (node.op == ops::find_op(name)) visit(&node);
}

// On 4 chips, so that 3 KV heads overlap.
TEST(RandomStrategiesOnKernels, FindPlantedFaults) {
  const Model model = shard::llama({});
  const int four[] = {4};
  const auto find = [&](const Plant& plant) { return random_test(model, 10, four, plant); };
  EXPECT_NE(find([](ir::Graph* g, int) {
              for (ir::Node& node : g->nodes)
                for (auto& [factor, begin] : node.begins) begin = 0;
            }),
            "")
      << "not caught: begins left out";
  EXPECT_NE(find([](ir::Graph* g, int) {
              for_each_op(g, "keep", [](ir::Node* n) { n->attrs.set("keep", true); });
            }),
            "")
      << "not caught: a whole value counted by every chip";
  EXPECT_NE(find([](ir::Graph* g, int) {
              for_each_op(g, "zero_pad", [](ir::Node* n) {
                const int64_t before = n->attrs.integer("before");
                n->attrs.set("before", n->attrs.integer("after"));
                n->attrs.set("after", before);
              });
            }),
            "")
      << "not caught: rows at the wrong place";
  EXPECT_NE(find([](ir::Graph* g, int) {
              for_each_op(g, "exchange", [](ir::Node* n) {
                if (n->attrs.text("combine") == "sum") n->attrs.set("combine", std::string("max"));
              });
            }),
            "")
      << "not caught: a maximum for a sum";
  EXPECT_NE(find([](ir::Graph* g, int chip) {
              for (ir::Input& input : g->inputs)
                if (chip == 1 && input.ref.tensor >= 0 && input.piece[0].begin > 0)
                  --input.ref.offset;
            }),
            "")
      << "not caught: a weight's piece that begins too early";
}

}  // namespace
}  // namespace shardwright::runtime
