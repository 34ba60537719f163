// Gradients: every operator's against differences of its own oracle, in f64; what has none says so.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <set>

#include "base/error.h"
#include "ir/interpret.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "ops/run_op.h"
#include "passes/canonicalize.h"
#include "passes/expand.h"
#include "passes/gradient.h"

namespace shardwright::passes {
namespace {

constexpr unsigned kSeed = 11;
constexpr double kStep = 1e-5;
constexpr double kTolerance = 2e-7;  // of central differences: step^2 and rounding / step

// loss = sum over results of sum(result * weights), a graph of one sample.
struct Case {
  ir::Module module;
  ir::RefMap inputs;
  std::vector<std::string> trained;
  ir::Graph& graph() { return module.graphs[0]; }
};

ir::ValueId append_op(ir::Graph& graph, const char* name, std::vector<ir::ValueId> inputs) {
  ops::Attrs attrs;
  ops::fill_defaults(*ops::find_op(name), &attrs);
  return ir::append(graph, *ops::find_op(name), std::move(inputs), std::move(attrs));
}

Case make_case(const ops::OpDef& op, const ops::Sample& sample, std::mt19937& random) {
  Case c;
  ir::Graph& graph = c.module.graphs.emplace_back();
  std::vector<ir::ValueId> operands;
  for (size_t i = 0; i < sample.operands.size(); ++i) {
    if (!sample.operands[i]) {
      operands.push_back(ir::kNoValue);
      continue;
    }
    const std::string name = "x" + std::to_string(i);
    operands.push_back(graph.add_value(*sample.operands[i], name));
    graph.inputs.push_back({operands.back(), ir::InputRole::kUserInput, name, {}, {}});
    ops::RefTensor value = ops::random_tensor(*sample.operands[i], sample.below[i], random);
    if (is_floating(value.type.dtype)) {
      c.trained.push_back(name);
      // Where log, sqrt, pow and division are smooth.
      for (double& x : value.data) x = std::abs(x) + 0.3;
    }
    c.inputs[name] = std::move(value);
  }
  ir::append(graph, op, operands, sample.attrs);
  ir::ValueId loss = ir::kNoValue;
  for (const ir::ValueId y : std::vector<ir::ValueId>(graph.nodes.back().outputs)) {
    const TensorType type = graph.type(y);
    if (!is_floating(type.dtype)) continue;
    const std::string name = "weights" + std::to_string(y);
    const ir::ValueId weights = graph.add_value(type, name);
    graph.inputs.push_back({weights, ir::InputRole::kUserInput, name, {}, {}});
    c.inputs[name] = ops::random_tensor(type, 0, random);
    const ir::ValueId part = append_op(graph, "sum", {append_op(graph, "mul", {y, weights})});
    loss = loss == ir::kNoValue ? part : append_op(graph, "add", {loss, part});
  }
  graph.outputs.push_back({loss, ir::OutputRole::kLoss, "loss"});
  return c;
}

void expect_differences(Case& c, const std::string& what) {
  expand(c.module, c.graph());
  const ir::Module forward = c.module;
  std::vector<ir::ValueId> wanted;
  for (const ir::Input& input : c.graph().inputs)
    if (std::count(c.trained.begin(), c.trained.end(), input.name) > 0)
      wanted.push_back(input.value);
  const auto gradients = append_gradients(c.module, c.graph(), c.graph().outputs[0].value, wanted);
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (gradients[i] == ir::kNoValue) continue;
    EXPECT_EQ(c.graph().type(gradients[i]), c.graph().type(wanted[i])) << what;
    c.graph().outputs.push_back({gradients[i], ir::OutputRole::kGradient, c.trained[i]});
  }
  expand(c.module, c.graph());
  ir::verify(c.module, c.graph(), ir::Stage::kImported);
  const ir::RefMap got = ir::interpret(c.module, c.graph(), c.inputs);
  for (const std::string& name : c.trained) {
    ir::RefMap inputs = c.inputs;
    std::vector<double>& x = inputs.at(name).data;
    for (size_t i = 0; i < x.size(); i += std::max<size_t>(x.size() / 12, 1)) {
      const double middle = x[i];
      const auto loss_at = [&](double value) {
        x[i] = value;
        return ir::interpret(forward, forward.graphs[0], inputs).at("loss").data[0];
      };
      const double want = (loss_at(middle + kStep) - loss_at(middle - kStep)) / (2 * kStep);
      x[i] = middle;
      const double have = got.contains(name) ? got.at(name).data[i] : 0;
      EXPECT_NEAR(have, want, kTolerance * std::max(1.0, std::abs(want)))
          << what << ": " << name << "[" << i << "], seed " << kSeed;
    }
  }
}

// Operators of floating-point numbers without a gradient, and why.
const std::map<std::string_view, std::string_view> kWithout = {
    {"conv2d", "not yet"},
    {"topk", "not yet"},
    {"diff", "positions only"},
    {"argmax", "an index"},
    {"index_copy", "writes a cache"},
    {"cache_write", "writes a cache"},
    {"detach", "that is its purpose"},
    {"keep", "of local graphs"},
    {"linear_int8", "trained weights are not int8"},
    {"embedding_int8", "trained weights are not int8"},
    {"attention_gradient", "a gradient"},
    {"embedding_gradient", "a gradient"},
    {"exchange", "of local graphs"},
};

TEST(Gradient, OfEveryOperatorEqualsDifferences) {
  std::mt19937 random(kSeed);
  std::set<std::string_view> covered;
  for (const ops::OpDef* op : ops::all_ops()) {
    if (kWithout.contains(op->name) || std::string_view(op->name).starts_with("fused")) continue;
    for (const std::string_view text : op->samples) {
      const std::string what = std::string(op->name) + "(" + std::string(text) + ")";
      const ops::Sample sample = ops::parse_sample(*op, text);
      Case c = make_case(*op, sample, random);
      if (c.trained.empty() || c.graph().outputs[0].value == ir::kNoValue) continue;
      try {
        expect_differences(c, what);
        covered.insert(op->name);
      } catch (const Error& error) {
        const std::string message = error.what();
        const bool is_known = message.find("step is 2") != std::string::npos ||
                              message.find("several index tensors") != std::string::npos ||
                              message.find("over a KV cache") != std::string::npos ||
                              message.find("in dimension") != std::string::npos ||
                              message.find("operand attn_mask") != std::string::npos;
        EXPECT_TRUE(is_known) << what << ": " << message;
      }
    }
  }
  EXPECT_GT(covered.size(), 50U);
}

TEST(Gradient, ListsEveryOperatorThatHasNone) {
  ir::Module module = ir::parse(
      "graph forward {\n  input %x: f32[1, 3, 5, 5] = user_input \"x\"\n"
      "  input %w: f32[4, 3, 3, 3] = user_input \"w\"\n"
      "  %y: f32[1, 4, 3, 3] = conv2d(%x, %w, -)\n  %l: f32[] = sum(%y)\n"
      "  output %l = loss \"loss\"\n}\n");
  ir::Graph& graph = module.graphs[0];
  try {
    append_gradients(module, graph, graph.outputs[0].value, {graph.inputs[1].value});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_NE(std::string(error.what()).find("conv2d"), std::string::npos) << error.what();
  }
}

TEST(Gradient, StopsAtDetach) {
  ir::Module module = ir::parse(
      "graph forward {\n  input %x: f32[3] = user_input \"x\"\n  %d: f32[3] = detach(%x)\n"
      "  %p: f32[3] = mul(%x, %d)\n  %l: f32[] = sum(%p)\n  output %l = loss \"loss\"\n}\n");
  ir::Graph& graph = module.graphs[0];
  const auto gradients =
      append_gradients(module, graph, graph.outputs[0].value, {graph.inputs[0].value});
  graph.outputs.push_back({gradients[0], ir::OutputRole::kGradient, "x"});
  ops::RefTensor x({DType::kF32, {3}});
  x.data = {1, -2, 3};
  EXPECT_EQ(ir::interpret(module, graph, {{"x", x}}).at("x").data, x.data);  // not 2 x
}

}  // namespace
}  // namespace shardwright::passes
