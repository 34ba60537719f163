// Optimizers: three steps in the interpreter equal PyTorch's formulas as a loop; what is refused.
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "ir/interpret.h"
#include "ir/text.h"
#include "passes/gradient.h"
#include "passes/optimizer.h"

namespace shardwright::passes {
namespace {

constexpr double kLr = 0.05;

// loss = sum((w * x)^2) for w, x of three elements: d loss / d w = 2 w x^2.
ir::Module step_of(const Optimizer& optimizer) {
  ir::Module module = ir::parse(
      "tensor 0 \"w\": f32[3] parameter trainable\n"
      "graph forward {\n  input %x: f32[3] = user_input \"x\"\n"
      "  input %w: f32[3] = parameter \"w\" of 0 offset 0 strides [1]\n  %p: f32[3] = mul(%w, %x)\n"
      "  %q: f32[3] = mul(%p, %p)\n  %l: f32[] = sum(%q)\n  output %l = loss \"loss\"\n}\n");
  gradient(module, module.graphs[0]);
  optimize(module, module.graphs[0], optimizer);
  return module;
}

const double kX[] = {1, -0.5, 2};
const double kW[] = {0.3, -0.7, 1.1};

// All outputs after `steps`, each fed with what the one before wrote.
ir::RefMap after(const Optimizer& optimizer, int steps) {
  const ir::Module module = step_of(optimizer);
  ir::RefMap inputs;
  const auto tensor = [](Shape shape, std::vector<double> data) {
    ops::RefTensor value(TensorType{DType::kF32, std::move(shape)});
    value.data = std::move(data);
    return value;
  };
  inputs["x"] = tensor({3}, {kX, kX + 3});
  inputs["lr"] = tensor({}, {kLr});
  inputs["w"] = tensor({3}, {kW, kW + 3});
  ir::RefMap outputs;
  for (int i = 0; i < steps; ++i) {
    outputs = ir::interpret(module, module.graphs[0], inputs);
    for (const auto& [name, value] : outputs)
      if (name != "loss") inputs[name] = value;
  }
  return outputs;
}

TEST(Optimizer, AdamWIsPyTorchs) {
  Optimizer o;
  o.weight_decay = 0.1;
  o.clip_norm = 1.5;
  double w[3], m[3] = {}, v[3] = {};
  std::copy(kW, kW + 3, w);
  for (int t = 1; t <= 3; ++t) {
    double g[3], norm = 0;
    for (int i = 0; i < 3; ++i) norm += std::pow(g[i] = 2 * w[i] * kX[i] * kX[i], 2);
    const double factor = std::min(1.0, o.clip_norm / (std::sqrt(norm) + 1e-6));
    for (int i = 0; i < 3; ++i) {
      g[i] *= factor;
      w[i] *= 1 - kLr * o.weight_decay;
      m[i] = o.beta1 * m[i] + (1 - o.beta1) * g[i];
      v[i] = o.beta2 * v[i] + (1 - o.beta2) * g[i] * g[i];
      const double denominator = std::sqrt(v[i]) / std::sqrt(1 - std::pow(o.beta2, t)) + o.eps;
      w[i] -= kLr / (1 - std::pow(o.beta1, t)) * m[i] / denominator;
    }
    const ir::RefMap got = after(o, t);
    EXPECT_EQ(got.at("optimizer.step").data.at(0), t);
    for (size_t i = 0; i < 3; ++i) {
      // Constants of the graph are f32.
      EXPECT_NEAR(got.at("w").data[i], w[i], 2e-6) << "step " << t << ", element " << i;
      EXPECT_NEAR(got.at("optimizer.exp_avg.w").data[i], m[i], 2e-6);
      EXPECT_NEAR(got.at("optimizer.exp_avg_sq.w").data[i], v[i], 2e-6);
    }
  }
}

TEST(Optimizer, SgdIsPyTorchs) {
  for (const bool nesterov : {false, true}) {
    Optimizer o{.kind = Optimizer::Kind::kSgd};
    o.weight_decay = 0.1;
    o.momentum = 0.9;
    o.nesterov = nesterov;
    double w[3], b[3] = {};
    std::copy(kW, kW + 3, w);
    for (int t = 1; t <= 3; ++t)
      for (int i = 0; i < 3; ++i) {
        const double g = 2 * w[i] * kX[i] * kX[i] + o.weight_decay * w[i];
        b[i] = o.momentum * b[i] + g;
        w[i] -= kLr * (nesterov ? g + o.momentum * b[i] : b[i]);
      }
    const ir::RefMap got = after(o, 3);
    for (size_t i = 0; i < 3; ++i) EXPECT_NEAR(got.at("w").data[i], w[i], 2e-6) << nesterov;
  }
}

TEST(Optimizer, RefusesWhatPyTorchRefuses) {
  const auto message = [](const Optimizer& o) {
    try {
      step_of(o);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  Optimizer o;
  o.beta1 = 1;
  EXPECT_EQ(message(o), "beta1 1: it must be in [0, 1), for example 0.9");
  o = {};
  o.kind = Optimizer::Kind::kSgd;
  o.nesterov = true;
  EXPECT_EQ(message(o), "nesterov needs a momentum above 0, for example 0.9");
}

}  // namespace
}  // namespace shardwright::passes
