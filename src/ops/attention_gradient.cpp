// attention_gradient: of attention's query, key and value, from the gradient of its result.
#include <algorithm>
#include <tuple>

#include "kernels/cpu/attention_gradient.h"
#include "ops/attention_rows.h"
#include "ops/build.h"
#include "ops/table.h"

namespace shardwright::ops {
namespace {

enum Operand : size_t { kDy = 0, kQuery = 1, kKey = 2, kValue = 3, kMask = 4 };

// A KV head's gradient is the sum over its query heads, so chips that share a head each have a part
// of it: "h: sum".
std::string attention_gradient_rule(const Attrs& attrs, OperandTypes operands) {
  const AttentionWords words = attention_words(attrs, operands.subspan(kQuery));
  const bool shares = words.key.find('/') != std::string::npos;
  return words.result + ", " + words.query + ", " + words.key + ", " + words.value + ", " +
         words.mask + " -> " + words.query + ", " + words.key + ", " + words.value +
         (shares ? "; h q: sum" : "; q: sum") + "; k d e: whole";
}

std::vector<DType> attention_gradient_dtypes(const Attrs&, OperandTypes operands) {
  return {operands[kQuery]->dtype, operands[kKey]->dtype, operands[kValue]->dtype};
}

// With p the row's probabilities and dp[j] = dy . value[j]:
//   dvalue[j] += p[j] dy,  s[j] = p[j] (dp[j] - sum_i p[i] dp[i]) scale,
//   dquery += s[j] key[j],  dkey[j] += s[j] query
void attention_gradient_reference(const RefCall& call) {
  const AttentionRows rows(call, kQuery);
  const FourDims& q = rows.q;
  const FourDims& k = rows.k;
  const FourDims& v = rows.v;
  const FourDims dy(call.in(kDy));
  std::vector<double> p;
  std::vector<double> dp(static_cast<size_t>(k.size[2]));
  const Shape shape{q.size[0], q.size[1], q.size[2]};
  if (element_count(shape) == 0) return;
  std::vector<int64_t> row(3, 0);
  do {
    const auto [b, h, i] = std::tuple(row[0], row[1], row[2]);
    const int64_t kv = rows.kv_head(h);
    rows.probabilities(b, h, i, p);
    double total = 0;
    for (int64_t j = 0; j < k.size[2]; ++j) {
      double& product = dp[static_cast<size_t>(j)];
      product = 0;
      for (int64_t e = 0; e < v.size[3]; ++e)
        product += call.in(kDy).data[dy.at(b, h, i, e)] * call.in(kValue).data[v.at(b, kv, j, e)];
      total += p[static_cast<size_t>(j)] * product;
    }
    for (int64_t j = 0; j < k.size[2]; ++j) {
      const double weight = p[static_cast<size_t>(j)];
      if (weight == 0) continue;
      const double s = weight * (dp[static_cast<size_t>(j)] - total) * rows.scale();
      for (int64_t e = 0; e < v.size[3]; ++e)
        call.out(2).data[v.at(b, kv, j, e)] += weight * call.in(kDy).data[dy.at(b, h, i, e)];
      for (int64_t d = 0; d < q.size[3]; ++d) {
        call.out(0).data[q.at(b, h, i, d)] += s * call.in(kKey).data[k.at(b, kv, j, d)];
        call.out(1).data[k.at(b, kv, j, d)] += s * call.in(kQuery).data[q.at(b, h, i, d)];
      }
    }
  } while (next_index(shape, row));
}

class AttentionGradientKernel : public Kernel {
 public:
  explicit AttentionGradientKernel(const KernelSpec& spec) {
    const auto dims = [](const OperandSpec& operand) {
      return FourDims(operand.type.shape, operand.strides);
    };
    const auto tensor = [&](const OperandSpec& operand) {
      const FourDims four = dims(operand);
      return kernels::AttentionTensor{.batch_stride = four.stride[0],
                                      .head_stride = four.stride[1],
                                      .row_stride = four.stride[2]};
    };
    const FourDims q = dims(spec.operands[kQuery]);
    const FourDims k = dims(spec.operands[kKey]);
    kernels::AttentionArgs& f = args_.forward;
    f.batch = q.size[0];
    f.q_heads = q.size[1];
    f.kv_heads = k.size[1];
    f.q_rows = q.size[2];
    f.keys = k.size[2];
    f.qk_size = q.size[3];
    f.v_size = dims(spec.operands[kValue]).size[3];
    f.q = tensor(spec.operands[kQuery]);
    f.k = tensor(spec.operands[kKey]);
    f.v = tensor(spec.operands[kValue]);
    f.scale = static_cast<float>(attention_scale(*spec.attrs, f.qk_size));
    f.causal = spec.attrs->boolean("is_causal", false);
    f.query_begin = spec.begin("q");
    f.head_begin = spec.begin("h");
    f.queries_per_kv = std::max<int64_t>(spec.attrs->integer("group", 0), 1);
    args_.dy = tensor(spec.operands[kDy]);
    args_.dq = tensor(spec.results[0]);
    args_.dk = tensor(spec.results[1]);
    args_.dv = tensor(spec.results[2]);
    scratch_bytes_ = kernels::attention_gradient_scratch_bytes(args_, spec.n_threads);
  }

  int64_t scratch_bytes() const override { return scratch_bytes_; }

  void run(Member& member, const void* const* operands, void* const* results,
           void* scratch) const noexcept override {
    kernels::AttentionGradientArgs args = args_;
    args.dy.data = operands[kDy];
    args.forward.q.data = operands[kQuery];
    args.forward.k.data = operands[kKey];
    args.forward.v.data = operands[kValue];
    args.dq.data = results[0];
    args.dk.data = results[1];
    args.dv.data = results[2];
    args.scratch = scratch;
    kernels::attention_gradient(member, args);
  }

 private:
  kernels::AttentionGradientArgs args_;
  int64_t scratch_bytes_ = 0;
};

// Masks and 16-bit types by the oracle, on one thread.
std::unique_ptr<Kernel> make_attention_gradient(const KernelSpec& spec) {
  const bool has_mask = spec.operands.size() > kMask && spec.operands[kMask].present;
  bool is_f32 = true;
  for (size_t i = 0; i < kMask; ++i) is_f32 &= spec.operands[i].type.dtype == DType::kF32;
  if (has_mask || !is_f32) return make_reference_kernel(spec);
  return std::make_unique<AttentionGradientKernel>(spec);
}

// Five products where attention has two.
double attention_gradient_flops(const Attrs& attrs, const Rule& rule) {
  double flops = attrs.boolean("is_causal", false) ? 2.5 : 5;
  double columns = 0;
  for (const Factor& factor : rule.factors) {
    const bool is_column = factor.name == "d" || factor.name == "e";
    if (is_column) columns += static_cast<double>(factor.size);
    if (!is_column) flops *= static_cast<double>(factor.size);
  }
  return flops * columns;
}

}  // namespace

// The probabilities are worked out again, row by row: attention keeps none.
const OpDef attention_gradient{
    .name = "attention_gradient",
    .arguments =
        "dy, query, key, value, attn_mask?, is_causal: bool = false, scale: float?, group: int = 0",
    .rule_for = attention_gradient_rule,
    .linear = {"dy"},
    .result_dtypes = attention_gradient_dtypes,
    .reference = attention_gradient_reference,
    .make_kernel = make_attention_gradient,
    .operand_strides = Strided::kLast,
    .result_strides = Strided::kLast,
    .flops = attention_gradient_flops,
    .samples = {"dy: f32[2, 3, 5, 6], query: f32[2, 3, 5, 8], key: f32[2, 3, 7, 8], value: f32[2, "
                "3, 7, 6], group=1",
                "dy: f32[1, 9, 6, 16], query: f32[1, 9, 6, 16], key: f32[1, 3, 6, 16], value: "
                "f32[1, 3, 6, 16], is_causal=true, group=3",
                "dy: f32[2, 6, 3, 8], query: f32[2, 6, 3, 8], key: f32[2, 2, 11, 8], value: f32[2, "
                "2, 11, 8], attn_mask: bool[2, 1, 3, 11], scale=0.5, group=3"},
};

}  // namespace shardwright::ops
