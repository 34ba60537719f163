// Weight mode, at the sizes of real models: what part of the weights each chip holds.
#include <gtest/gtest.h>

#include <algorithm>

#include "compiler/compile.h"
#include "plan/plan.h"
#include "shard/models.h"

namespace shardwright::compiler {
namespace {

// SmolLM2's sizes: heads and KV heads that don't divide. And a model in which everything divides
// by 2, 4 and 8.
const shard::Dims kSmol{.batch = 1,
                        .tokens = 32,
                        .layers = 2,
                        .heads = 9,
                        .kv_heads = 3,
                        .head = 64,
                        .hidden = 576,
                        .ffn = 1536,
                        .vocab = 49152,
                        .data = false};
const shard::Dims kEven{.batch = 1,
                        .tokens = 32,
                        .layers = 2,
                        .heads = 32,
                        .kv_heads = 8,
                        .head = 64,
                        .hidden = 2048,
                        .ffn = 5632,
                        .vocab = 32000,
                        .data = false};

pef::Manifest plans_of(const shard::Dims& dims, bool tied) {
  CompileOptions options;
  options.mode = shard::Mode::kWeight;
  options.n_chips = {2, 3, 4, 5, 6, 7, 8};
  options.machine.memory_bytes = int64_t{16} << 30;
  options.until = "plan";
  ir::Module module = shard::llama(dims, false, tied).module;
  const std::vector<pef::Tensor> tensors = plan::tensors_of(module);  // canonical: none goes
  pef::Manifest manifest = compile(std::move(module), options).manifest;
  manifest.tensors = tensors;
  return manifest;
}

// Elements of each tensor on each chip: [tensor][chip].
std::vector<std::vector<int64_t>> held(const pef::Manifest& manifest, const pef::Plan& plan) {
  std::vector<std::vector<int64_t>> elements(manifest.tensors.size(),
                                             std::vector<int64_t>(plan.chips.size(), 0));
  for (size_t c = 0; c < plan.chips.size(); ++c)
    for (const pef::Piece& piece : plan.chips[c].pieces)
      elements[static_cast<size_t>(piece.tensor)][c] += element_count(piece.shape);
  return elements;
}

bool is_kv(const std::string& name) {
  return name.find("k_proj") != std::string::npos || name.find("v_proj") != std::string::npos;
}

// For split weights at most total/n + 1 % + one head.
void check_shares(const shard::Dims& d, const pef::Manifest& manifest, const pef::Plan& plan) {
  const auto n = static_cast<double>(plan.n_chips);
  const double head = static_cast<double>(d.head * d.hidden);  // elements of one head
  const auto elements = held(manifest, plan);
  std::vector<double> split(plan.chips.size(), 0);
  double split_total = 0, sum = 0, total = 0;
  for (size_t t = 0; t < elements.size(); ++t) {
    const pef::Tensor& tensor = manifest.tensors[t];
    const int64_t count = tensor.type.count();
    int64_t together = 0, most = 0;
    for (const int64_t part : elements[t]) together += part, most = std::max(most, part);
    sum += static_cast<double>(together);
    total += static_cast<double>(count);
    // Only norms and constants are whole everywhere: all matrices are split.
    if (tensor.type.ndim() < 2 || tensor.constant) {
      EXPECT_EQ(together, count * plan.n_chips) << tensor.name;
      continue;
    }
    ASSERT_LT(most, count) << tensor.name << " is not split";
    split_total += static_cast<double>(count);
    for (size_t c = 0; c < split.size(); ++c) split[c] += static_cast<double>(elements[t][c]);
    if (is_kv(tensor.name)) continue;
    EXPECT_EQ(together, count) << tensor.name << ": each element on one chip";
    EXPECT_LE(static_cast<double>(most), 1.01 * static_cast<double>(count) / n + head)
        << tensor.name;
  }
  // One head of each of q, k, v and o in each layer.
  const double heads = static_cast<double>(d.layers) * 4 * head;
  for (size_t c = 0; c < split.size(); ++c) {
    EXPECT_LE(split[c], 1.01 * split_total / n + heads) << "chip " << c;
    const auto bytes = static_cast<double>(plan.chips[c].parameter_bytes);
    EXPECT_LE(bytes, 1.01 * 4 * (split[c] + total - split_total)) << "padding on chip " << c;
  }
  // What is on several chips: norms and constants on all, and KV heads that the query heads of two
  // chips share, at most one at each border.
  const double shared = 2 * static_cast<double>(d.layers) * head * (n - 1);
  EXPECT_LE(sum, split_total + n * (total - split_total) + shared);
}

void check_model(const shard::Dims& dims, bool tied) {
  const pef::Manifest manifest = plans_of(dims, tied);
  ASSERT_EQ(manifest.plans.size(), 7U);
  for (const pef::Plan& plan : manifest.plans) {
    SCOPED_TRACE(std::to_string(plan.n_chips) + " chips");
    check_shares(dims, manifest, plan);
  }
}

TEST(Shares, HeadsThatDoNotDivide) { check_model(kSmol, true); }
TEST(Shares, UntiedHead) { check_model(kSmol, false); }
TEST(Shares, AllDivides) { check_model(kEven, false); }

// Where all divides, each chip holds its n-th part of every matrix to the element.
TEST(Shares, ExactWhereAllDivides) {
  const pef::Manifest manifest = plans_of(kEven, false);
  for (const pef::Plan& plan : manifest.plans) {
    if (8 % plan.n_chips != 0) continue;
    const auto elements = held(manifest, plan);
    for (size_t t = 0; t < elements.size(); ++t) {
      const pef::Tensor& tensor = manifest.tensors[t];
      if (tensor.type.ndim() < 2 || tensor.constant) continue;
      for (const int64_t part : elements[t])
        EXPECT_EQ(part * plan.n_chips, tensor.type.count()) << tensor.name;
    }
  }
}

}  // namespace
}  // namespace shardwright::compiler
