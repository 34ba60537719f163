// attention: y = softmax(query key^T * scale + mask) value, with several query heads per KV head.
#include "kernels/cpu/attention.h"

#include <tuple>

#include "base/check.h"
#include "base/error.h"
#include "ops/attention_rows.h"
#include "ops/build.h"
#include "ops/table.h"

namespace shardwright::ops {
namespace {

enum Operand : size_t { kQuery = 0, kKey = 1, kValue = 2, kMask = 3, kPosition = 4 };

[[noreturn]] void fail(ErrorCode code, const std::string& message) { throw Error(code, message); }

bool has(OperandTypes operands, Operand operand) {
  return operands.size() > operand && operands[operand];
}

void check_operands(const Attrs& attrs, OperandTypes operands) {
  if (attrs.number("dropout_p", 0) != 0)
    fail(ErrorCode::kUnsupported, "dropout_p is " + to_string(*attrs.find("dropout_p")) +
                                      "; only 0 is supported: capture the model in eval() mode");
  const TensorType& query = *operands[kQuery];
  for (const size_t i : {kKey, kValue})
    if (operands[i]->ndim() != query.ndim() || query.ndim() < 2 || query.ndim() > 4)
      fail(ErrorCode::kUnsupported, "query is " + to_string(query) + " and " +
                                        (i == kKey ? "key " : "value ") + to_string(*operands[i]) +
                                        "; supported: equally many dimensions, 2 to 4");
  if (has(operands, kMask) && operands[kMask]->ndim() > query.ndim())
    fail(ErrorCode::kUsage, "attn_mask is " + to_string(*operands[kMask]) +
                                ", which has more dimensions than query " + to_string(query));
  if (attrs.integer("window", 0) < 0 ||
      (attrs.integer("window", 0) > 0 && !has(operands, kPosition)))
    fail(ErrorCode::kUsage, "window is " + std::to_string(attrs.integer("window", 0)) +
                                "; it is 0 (none) or, with positions, 1 or more");
  if (!has(operands, kPosition)) return;
  const TensorType& position = *operands[kPosition];
  if (query.ndim() != 4 || position != TensorType{DType::kI64, {query.shape[0], query.shape[2]}})
    fail(ErrorCode::kUsage, "position is " + to_string(position) +
                                "; it must be i64, one for each batch entry and row of query " +
                                to_string(query));
  if (attrs.boolean("is_causal", false))
    fail(ErrorCode::kUsage, "position and is_causal both say which keys are seen; give one");
}

std::string attention_rule(const Attrs& attrs, OperandTypes operands) {
  check_operands(attrs, operands);
  const AttentionWords words = attention_words(attrs, operands);
  return words.query + ", " + words.key + ", " + words.value + ", " + words.mask +
         (has(operands, kPosition)      ? ", b q"
          : operands.size() > kPosition ? ", -"
                                        : "") +
         " -> " + words.result + "; k d e: whole";
}

// Canonical attention says its group, so that chips with uneven heads know it.
std::string attention_expansion(const Attrs& attrs, OperandTypes operands) {
  if (attrs.integer("group", 0) > 0) return "";
  std::string text = "attention(query, key, value, ";
  text += has(operands, kMask) ? "attn_mask" : "-";
  if (has(operands, kPosition)) text += ", position";
  if (attrs.boolean("is_causal", false)) text += ", is_causal=true";
  if (attrs.has("scale")) text += ", scale=" + to_string(*attrs.find("scale"));
  if (attrs.integer("window", 0) > 0) text += ", window=" + std::to_string(attrs.integer("window"));
  return text + ", group=" + std::to_string(attention_group(attrs, operands)) + ")";
}

std::vector<DType> attention_dtypes(const Attrs&, OperandTypes operands) {
  return {common_dtype(attention, operands.subspan(0, 3))};
}

void attention_reference(const RefCall& call) {
  const AttentionRows rows(call, 0);
  const FourDims out(call.out());
  std::vector<double> weights;
  const Shape shape{rows.q.size[0], rows.q.size[1], rows.q.size[2]};
  if (element_count(shape) == 0) return;
  std::vector<int64_t> row(3, 0);
  do {
    const auto [b, h, i] = std::tuple(row[0], row[1], row[2]);
    const int64_t kv = rows.kv_head(h);
    rows.probabilities(b, h, i, weights);
    for (int64_t e = 0; e < rows.v.size[3]; ++e) {
      double total = 0;
      for (int64_t j = 0; j < rows.k.size[2]; ++j)
        if (const double weight = weights[static_cast<size_t>(j)]; weight != 0)
          total += weight * call.in(kValue).data[rows.v.at(b, kv, j, e)];
      call.out().data[out.at(b, h, i, e)] = total;
    }
  } while (next_index(shape, row));
}

// An attention over a KV cache (position) is for generating text; nobody trains through it.
std::string attention_gradient_text(const Attrs& attrs, OperandTypes operands) {
  if (has(operands, kPosition))
    fail(ErrorCode::kUnsupported, "attention over a KV cache has no gradient");
  std::string text = "dquery, dkey, dvalue = attention_gradient(dy, query, key, value, ";
  text += has(operands, kMask) ? "attn_mask" : "-";
  if (attrs.boolean("is_causal", false)) text += ", is_causal=true";
  if (attrs.has("scale")) text += ", scale=" + to_string(*attrs.find("scale"));
  return text + ", group=" + std::to_string(attention_group(attrs, operands)) + ")";
}

class AttentionKernel : public Kernel {
 public:
  explicit AttentionKernel(const KernelSpec& spec) {
    const Attrs& attrs = *spec.attrs;
    const FourDims q = four_dims(spec.operands[kQuery]);
    const FourDims k = four_dims(spec.operands[kKey]);
    const FourDims v = four_dims(spec.operands[kValue]);
    args_.dtype = spec.results[0].type.dtype;
    args_.batch = q.size[0];
    args_.q_heads = q.size[1];
    args_.kv_heads = k.size[1];
    args_.q_rows = q.size[2];
    args_.keys = k.size[2];
    args_.qk_size = q.size[3];
    args_.v_size = v.size[3];
    args_.q = tensor_of(q);
    args_.k = tensor_of(k);
    args_.v = tensor_of(v);
    args_.out = tensor_of(four_dims(spec.results[0]));
    args_.scale = static_cast<float>(attention_scale(attrs, args_.qk_size));
    args_.causal = attrs.boolean("is_causal", false);
    args_.query_begin = spec.begin("q");
    args_.head_begin = spec.begin("h");
    args_.queries_per_kv = std::max<int64_t>(attrs.integer("group", 0), 1);
    args_.window = attrs.integer("window", 0);
    has_position_ = spec.operands.size() > kPosition && spec.operands[kPosition].present;
    if (has_position_)
      std::copy_n(spec.operands[kPosition].strides.begin(), 2, args_.position_strides);
    has_mask_ = spec.operands.size() > kMask && spec.operands[kMask].present;
    if (has_mask_) {
      const FourDims mask = four_dims(spec.operands[kMask]);
      args_.mask_dtype = spec.operands[kMask].type.dtype;
      std::copy(mask.stride, mask.stride + 4, args_.mask_strides);
    }
    empty_ = spec.results[0].type.count() == 0;
    scratch_bytes_ = empty_ ? 0 : kernels::attention_scratch_bytes(args_, spec.n_threads);
  }

  int64_t scratch_bytes() const override { return scratch_bytes_; }

  void run(Member& member, const void* const* operands, void* const* results,
           void* scratch) const noexcept override {
    if (empty_) return;
    kernels::AttentionArgs args = args_;
    args.q.data = operands[kQuery];
    args.k.data = operands[kKey];
    args.v.data = operands[kValue];
    args.out.data = results[0];
    args.mask = has_mask_ ? operands[kMask] : nullptr;
    if (has_position_) args.positions = static_cast<const int64_t*>(operands[kPosition]);
    args.scratch = scratch;
    kernels::attention(member, args);
  }

 private:
  static FourDims four_dims(const OperandSpec& spec) { return {spec.type.shape, spec.strides}; }
  static kernels::AttentionTensor tensor_of(const FourDims& dims) {
    return {.batch_stride = dims.stride[0],
            .head_stride = dims.stride[1],
            .row_stride = dims.stride[2]};
  }

  kernels::AttentionArgs args_;
  bool has_mask_ = false;
  bool has_position_ = false;
  bool empty_ = false;
  int64_t scratch_bytes_ = 0;
};

std::unique_ptr<Kernel> make_attention(const KernelSpec& spec) {
  if (!is_kernel_float(spec.results[0].type.dtype)) return make_reference_kernel(spec);
  return std::make_unique<AttentionKernel>(spec);
}

// Both products; half of them under a causal mask.
double attention_flops(const Attrs& attrs, const Rule& rule) {
  double flops = attrs.boolean("is_causal", false) ? 1 : 2;
  for (const Factor& factor : rule.factors)
    if (factor.name != "d" && factor.name != "e") flops *= static_cast<double>(factor.size);
  double columns = 0;
  for (const char* name : {"d", "e"}) {
    const int factor = rule.find_factor(name);
    if (factor >= 0) columns += static_cast<double>(rule.factors[static_cast<size_t>(factor)].size);
  }
  return flops * columns;
}

}  // namespace

// A row that sees no key gives zeros. position [B, Sq]: a row at p sees the keys (p - window, p] of
// a KV cache, all up to p if window is 0, none if p is -1 (padding). group: query heads per KV head
// of the whole model (0: told by the types, in imported graphs only).
const OpDef attention{
    .name = "attention",
    .aliases = {"scaled_dot_product_attention", "cached_attention"},
    .arguments =
        "query, key, value, attn_mask?, position?, dropout_p: float = 0.0, is_causal: bool = "
        "false, "
        "scale: float?, enable_gqa: bool = false, window: int = 0, group: int = 0",
    .rule_for = attention_rule,
    .linear = {"value"},
    .result_dtypes = attention_dtypes,
    .gradient_for = attention_gradient_text,
    .expansion_for = attention_expansion,
    .reference = attention_reference,
    .make_kernel = make_attention,
    .operand_strides = Strided::kLast,
    .result_strides = Strided::kLast,
    .flops = attention_flops,
    .samples =
        {
            "query: f32[2, 3, 5, 8], key: f32[2, 3, 7, 8], value: f32[2, 3, 7, 6], group=1",
            "query: f32[1, 9, 6, 16], key: f32[1, 3, 6, 16], value: f32[1, 3, 6, 16], "
            "is_causal=true, group=3",
            "query: bf16[2, 6, 7, 8], key: bf16[2, 2, 7, 8], value: bf16[2, 2, 7, 8], "
            "is_causal=true, scale=0.5, group=3",
            "query: f32[2, 6, 3, 8], key: f32[2, 2, 11, 8], value: f32[2, 2, 11, 8], "
            "attn_mask: bool[2, 1, 3, 11], group=3",
            "query: f16[1, 4, 5, 8], key: f16[1, 4, 5, 8], value: f16[1, 4, 5, 8], "
            "attn_mask: f16[5, 5], group=1",
            "query: f32[5, 4, 8], key: f32[5, 9, 8], value: f32[5, 9, 3], "
            "attn_mask: f32[5, 1, 9], group=1",
            "query: f32[1, 5, 1, 8], key: f32[1, 1, 130, 8], value: f32[1, 1, 130, 8], group=5",
            "query: f32[2, 6, 1, 8], key: f32[2, 2, 70, 8], value: f32[2, 2, 70, 8], "
            "position: i64[2, 1] < 70, group=3",
            "query: bf16[2, 4, 9, 8], key: bf16[2, 2, 40, 8], value: bf16[2, 2, 40, 8], "
            "position: i64[2, 9] < 40, window=6, group=2",
        },
};

}  // namespace shardwright::ops
