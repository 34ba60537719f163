// Training steps on n chips: loss, gradients and updated parameters are those of the whole run, in
// every mode and under random strategies; a reduction that is left out or doubled is found.
#include <gtest/gtest.h>

#include "ir/verify.h"
#include "passes/expand.h"
#include "passes/gradient.h"
#include "passes/optimizer.h"
#include "shard/chips.h"
#include "shard/models.h"
#include "shard/partition.h"
#include "shard/solve.h"

namespace shardwright::shard {
namespace {

// The model's logits become the mean loss of the next token; parameters small enough that no
// softmax is a step, and trained.
Model with_loss(Model model, const std::vector<std::string>& frozen = {}) {
  ir::Graph& graph = model.module.graphs[0];
  ir::ValueId logits = ir::kNoValue;
  for (const ir::Output& output : graph.outputs)
    if (output.name == "logits") logits = output.value;
  const Shape shape = graph.type(logits).shape;
  const TensorType rows{DType::kI64, {shape[0] * shape[1]}};
  const ir::ValueId target = graph.add_value(rows, "target");
  graph.inputs.push_back({target, ir::InputRole::kUserInput, "target", {}, {}});
  ops::RefTensor value(rows);
  for (size_t i = 0; i < value.data.size(); ++i)
    value.data[i] = i % 4 == 3 ? -100 : static_cast<double>(i * 7 % static_cast<size_t>(shape[2]));
  model.inputs["target"] = value;
  const auto append = [&](const char* name, std::vector<ir::ValueId> inputs, ops::Attrs attrs) {
    ops::fill_defaults(*ops::find_op(name), &attrs);
    return ir::append(graph, *ops::find_op(name), std::move(inputs), std::move(attrs));
  };
  logits = append("reshape", {logits}, {{"shape", Shape{shape[0] * shape[1], shape[2]}}});
  const ir::ValueId loss = append("cross_entropy_loss", {logits, target, ir::kNoValue}, {});
  graph.outputs = {{loss, ir::OutputRole::kLoss, "loss"}};
  passes::expand(model.module, graph);
  for (ir::LogicalTensor& tensor : model.module.tensors) {
    if (tensor.role != ir::InputRole::kParameter) continue;
    tensor.trainable = std::count(frozen.begin(), frozen.end(), tensor.name) == 0;
    auto* bytes = const_cast<std::byte*>(tensor.bytes.data);
    const int64_t size = dtype_bytes(tensor.type.dtype);
    for (int64_t i = 0; i < tensor.type.count(); ++i)
      store_element(tensor.type.dtype, bytes + i * size,
                    0.25 * load_element(tensor.type.dtype, bytes + i * size) + 0.125);
  }
  return model;
}

Model with_gradients(Model model, const std::vector<std::string>& frozen = {}) {
  model = with_loss(std::move(model), frozen);
  passes::gradient(model.module, model.module.graphs[0]);
  ir::verify(model.module, model.graph(), ir::Stage::kCanonical);
  return model;
}

Model with_step(Model model, const passes::Optimizer& optimizer) {
  model = with_gradients(std::move(model));
  passes::optimize(model.module, model.module.graphs[0], optimizer);
  ir::verify(model.module, model.graph(), ir::Stage::kCanonical);
  model.inputs["lr"] = ops::RefTensor({DType::kF32, {}});
  model.inputs["lr"].data = {0.1};
  return model;
}

// "" or the first output that differs.
std::string difference(const Model& model, const std::vector<ir::Graph>& chips,
                       const ir::RefMap& whole) {
  try {
    const ir::RefMap got = ir::interpret_chips(model.module, chips, model.inputs);
    for (const auto& [name, want] : whole) {
      if (!got.contains(name)) return name + " is missing";
      // Some gradients are 0 but for rounding: of a bias that softmax takes out again.
      if (std::string wrong = compare(got.at(name), want, 1e-9, 1e-4); !wrong.empty())
        return name + ": " + wrong;
    }
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

void expect_all_modes(const Model& model, const std::string& name) {
  const ir::RefMap whole = ir::interpret(model.module, model.graph(), model.inputs);
  EXPECT_GT(whole.size(), 3U) << name;
  for (const Mode mode : {Mode::kBatch, Mode::kWeight, Mode::kAuto})
    for (int n = 1; n <= 8; ++n) {
      const auto solutions = solve(model.module, {.mode = mode, .n_chips = n});
      const std::vector<ir::Graph> chips = partition(model.module, model.graph(), solutions[0]);
      for (const ir::Graph& chip : chips) ir::verify(model.module, chip, ir::Stage::kLocal);
      EXPECT_EQ(difference(model, chips, whole), "")
          << name << ", " << mode_name(mode) << ", " << n << " chips";
    }
}

const Dims kUneven{.batch = 8, .layers = 2};
const Dims kFewKvHeads{.batch = 8, .heads = 6, .kv_heads = 2, .vocab = 23};

TEST(Training, GradientsOfLlamaWithUnevenHeads) {
  expect_all_modes(with_gradients(llama(kUneven)), "llama 9/3");
}
TEST(Training, GradientsWithFewerKvHeadsThanChips) {
  expect_all_modes(with_gradients(llama(kFewKvHeads, false, true)), "llama 6/2 tied");
}
TEST(Training, GradientsOfGpt2) { expect_all_modes(with_gradients(gpt2({.batch = 8})), "gpt2"); }

TEST(Training, AdamWWithClipping) {
  passes::Optimizer optimizer;
  optimizer.eps = 1e-3;
  optimizer.clip_norm = 0.5;
  expect_all_modes(with_step(llama({.batch = 8}), optimizer), "adamw");
}

TEST(Training, SgdWithMomentum) {
  passes::Optimizer optimizer{.kind = passes::Optimizer::Kind::kSgd};
  optimizer.momentum = 0.9;
  optimizer.nesterov = true;
  expect_all_modes(with_step(gpt2({.batch = 8}), optimizer), "sgd");
}

TEST(Training, FrozenParametersGetNoGradient) {
  const Model model = with_gradients(llama({}), {"embed.weight", "layers.0.k_proj.weight"});
  size_t gradients = 0;
  for (const ir::Output& output : model.graph().outputs) {
    gradients += output.role == ir::OutputRole::kGradient ? 1 : 0;
    EXPECT_NE(output.name, "embed.weight");
    EXPECT_NE(output.name, "layers.0.k_proj.weight");
  }
  EXPECT_EQ(gradients, 10U);
}

TEST(Training, RandomStrategies) {
  const std::pair<const char*, Model> models[] = {
      {"llama 9/3", with_gradients(llama({}))},
      {"llama 5/1 tied",
       with_gradients(llama({.heads = 5, .kv_heads = 1, .hidden = 10}, false, true))},
      {"gpt2", with_gradients(gpt2({}))}};
  for (const auto& [name, model] : models) {
    const ir::RefMap whole = ir::interpret(model.module, model.graph(), model.inputs);
    for (const int n : {2, 3, 4, 5})
      for (uint64_t seed = 1; seed <= 8; ++seed) {
        const std::vector<ir::Graph> chips =
            partition(model.module, model.graph(), random_solution(model.graph(), n, seed));
        EXPECT_EQ(difference(model, chips, whole), "")
            << name << ", " << n << " chips, seed " << seed;
      }
  }
}

// The i-th exchange that adds and keeps the shape, on all chips left out (its operand stands for
// its result) or done twice. False if there is none.
bool plant(std::vector<ir::Graph>& chips, size_t wanted, bool twice) {
  for (ir::Graph& chip : chips) {
    size_t seen = 0;
    bool planted = false;
    for (size_t i = 0; i < chip.nodes.size() && !planted; ++i) {
      const ir::Node node = chip.nodes[i];
      if (node.op != &ops::exchange || ops::exchange_of(node.attrs).combine != ops::Combine::kSum ||
          chip.type(node.inputs[0]) != chip.type(node.outputs[0]) || seen++ != wanted)
        continue;
      planted = true;
      const ir::ValueId old = node.outputs[0];
      ir::ValueId with = node.inputs[0];
      if (twice) {
        with = chip.add_value(chip.type(old));
        ir::Node again = node;
        again.inputs = {old};
        again.outputs = {with};
        chip.nodes.insert(chip.nodes.begin() + static_cast<std::ptrdiff_t>(i) + 1, again);
      }
      for (size_t j = i + (twice ? 2 : 1); j < chip.nodes.size(); ++j)
        for (ir::ValueId& id : chip.nodes[j].inputs) id = id == old ? with : id;
      for (ir::Output& output : chip.outputs)
        output.value = output.value == old ? with : output.value;
    }
    if (!planted) return false;
  }
  return true;
}

TEST(Training, EveryReductionLeftOutOrDoubledIsFound) {
  size_t mutants = 0;
  const std::pair<const char*, Model> models[] = {
      {"llama 9/3", with_gradients(llama({.batch = 4, .layers = 2}))},
      {"llama 2/1 tied",
       with_gradients(llama({.batch = 4, .heads = 2, .kv_heads = 1, .hidden = 8}, false, true))},
      {"gpt2", with_gradients(gpt2({.batch = 4, .layers = 2}))}};
  for (const auto& [name, model] : models) {
    const ir::RefMap whole = ir::interpret(model.module, model.graph(), model.inputs);
    for (const Mode mode : {Mode::kBatch, Mode::kWeight})
      for (const int n : {2, 4}) {
        const auto solutions = solve(model.module, {.mode = mode, .n_chips = n});
        const auto chips = partition(model.module, model.graph(), solutions[0]);
        ASSERT_EQ(difference(model, chips, whole), "") << name;
        for (const bool twice : {false, true})
          for (size_t i = 0;; ++i) {
            std::vector<ir::Graph> mutant = chips;
            if (!plant(mutant, i, twice)) break;
            ++mutants;
            EXPECT_NE(difference(model, mutant, whole), "")
                << name << ", " << mode_name(mode) << ", " << n << " chips: reduction " << i
                << (twice ? " doubled" : " left out");
          }
      }
  }
  std::printf("%zu mutants\n", mutants);
  EXPECT_GE(mutants, 200U);
}

}  // namespace
}  // namespace shardwright::shard
