// optimizer: the update of every trained parameter as nodes of the graph, with PyTorch's semantics.
#pragma once

#include <string>

#include "ir/graph.h"

namespace shardwright::passes {

// Defaults are torch.optim's.
struct Optimizer {
  enum class Kind : uint8_t { kSgd, kAdamW };
  Kind kind = Kind::kAdamW;
  double weight_decay = 0.01;  // of SGD 0
  double momentum = 0;         // SGD
  bool nesterov = false;       // SGD
  double beta1 = 0.9;          // AdamW
  double beta2 = 0.999;        // AdamW
  double eps = 1e-8;           // AdamW
  double clip_norm = 0;  // gradients are scaled so that their joint 2-norm is at most this; 0: not
};

// Replaces the outputs of role kGradient (passes/gradient.h) by the new values of the parameters
// and of the optimizer's state, all of role kBufferMutation:
//   sgd    g += weight_decay w;  b = momentum b + g;  w -= lr (nesterov ? g + momentum b : b)
//   adamw  w *= 1 - lr weight_decay;  m += (1 - beta1) (g - m);  v = beta2 v + (1 - beta2) g^2;
//          w -= lr / (1 - beta1^t) m / (sqrt(v / (1 - beta2^t)) + eps),  t = 1, 2, ...
// (Loshchilov and Hutter, 2019.) State is f32, zero at first, in buffers named
// "optimizer.exp_avg.NAME", "optimizer.exp_avg_sq.NAME", "optimizer.momentum.NAME" and
// "optimizer.step"; a buffer has the shape of the part that is trained, so that it is split as it
// is. Adds a user input "lr" f32[], the learning rate of this step. Throws Error(kUsage) for values
// that PyTorch refuses, Error(kUnsupported) where two parts that are trained overlap.
void optimize(ir::Module& module, ir::Graph& graph, const Optimizer& optimizer);

}  // namespace shardwright::passes
