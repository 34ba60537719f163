// attention: y = softmax(query key^T * scale + mask) value, with several query heads per KV head.
#include "kernels/cpu/attention.h"

#include <cmath>

#include "base/check.h"
#include "base/error.h"
#include "ops/build.h"
#include "ops/table.h"

namespace shardwright::ops {
namespace {

enum Operand : size_t { kQuery = 0, kKey = 1, kValue = 2, kMask = 3, kPosition = 4 };

[[noreturn]] void fail(ErrorCode code, const std::string& message) { throw Error(code, message); }

bool has(OperandTypes operands, Operand operand) {
  return operands.size() > operand && operands[operand];
}

// Query heads per KV head, from the attribute or, on whole tensors, from the types. (A chip can't
// tell: 5 of 9 query heads use 2 of 3 KV heads.)
int64_t group_of(const Attrs& attrs, OperandTypes operands) {
  const int64_t stated = attrs.integer("group", 0);
  if (stated > 0) return stated;
  const Shape& q = operands[kQuery]->shape;
  const Shape& k = operands[kKey]->shape;
  if (q.size() < 3 || k.size() != q.size()) return 1;
  const int64_t q_heads = q[q.size() - 3];
  const int64_t kv_heads = k[k.size() - 3];
  if (q_heads == kv_heads) return 1;
  if (kv_heads > 0 && q_heads % kv_heads == 0 &&
      (attrs.boolean("enable_gqa", false) || kv_heads == 1))
    return q_heads / kv_heads;
  fail(ErrorCode::kUsage, "query has " + std::to_string(q_heads) + " heads and key has " +
                              std::to_string(kv_heads) +
                              "; the first must be the second, or a multiple with enable_gqa=True");
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
  const Shape& q = operands[kQuery]->shape;
  const size_t ndim = q.size();
  const int64_t group = group_of(attrs, operands);
  const std::string_view letters[] = {"b", "h"};
  const std::string kv_head = group == 1 ? "h" : "h/" + std::to_string(group);
  std::vector<std::string> query;
  std::vector<std::string> key;
  for (size_t i = ndim > 3 ? 0 : 1; i < 2 && ndim > 2; ++i) {
    query.emplace_back(letters[i]);
    key.push_back(i == 1 ? kv_head : "b");
  }
  std::vector<std::string> value = key;
  std::vector<std::string> result = query;
  query.insert(query.end(), {"q", "d"});
  key.insert(key.end(), {"k", "d"});
  value.insert(value.end(), {"k", "e"});
  result.insert(result.end(), {"q", "e"});
  std::string mask = "-";
  if (has(operands, kMask)) {
    const Shape& shape = operands[kMask]->shape;
    std::vector<std::string> scores = query;
    scores.back() = "k";
    std::vector<std::string> words(scores.end() - static_cast<std::ptrdiff_t>(shape.size()),
                                   scores.end());
    for (size_t i = 0; i < words.size(); ++i)
      if (shape[i] == 1) words[i] = "1";
    mask = join_words(words);
  }
  return join_words(query) + ", " + join_words(key) + ", " + join_words(value) + ", " + mask +
         (has(operands, kPosition)      ? ", b q"
          : operands.size() > kPosition ? ", -"
                                        : "") +
         " -> " + join_words(result) + "; k d e: whole";
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
  return text + ", group=" + std::to_string(group_of(attrs, operands)) + ")";
}

std::vector<DType> attention_dtypes(const Attrs&, OperandTypes operands) {
  return {common_dtype(attention, operands.subspan(0, 3))};
}

// A tensor of fewer than four dims as four: dims of size 1 before, stride 0.
struct FourDims {
  int64_t size[4] = {1, 1, 1, 1};
  int64_t stride[4] = {0, 0, 0, 0};
};
FourDims four_dims(const Shape& shape, const Strides& strides) {
  FourDims four;
  const size_t missing = 4 - shape.size();
  for (size_t i = 0; i < shape.size(); ++i) {
    four.size[missing + i] = shape[i];
    if (shape[i] != 1) four.stride[missing + i] = strides[i];
  }
  return four;
}
FourDims four_dims(const RefTensor& tensor) {
  return four_dims(tensor.type.shape, contiguous_strides(tensor.type.shape));
}

double scale_of(const Attrs& attrs, int64_t qk_size) {
  if (attrs.has("scale")) return attrs.number("scale");
  return 1 / std::sqrt(static_cast<double>(qk_size));
}

// exp(score - largest) / sum in place; zeros if no key is seen.
void softmax_row(std::vector<double>& scores) {
  double largest = -INFINITY;
  for (const double score : scores) largest = std::max(largest, score);
  double total = 0;
  for (double& score : scores) {
    score = std::isinf(largest) && largest < 0 ? 0 : std::exp(score - largest);
    total += score;
  }
  for (double& score : scores) score = total > 0 ? score / total : 0;
}

void attention_reference(const RefCall& call) {
  const FourDims q = four_dims(call.in(kQuery));
  const FourDims k = four_dims(call.in(kKey));
  const FourDims v = four_dims(call.in(kValue));
  const FourDims mask = call.has(kMask) ? four_dims(call.in(kMask)) : FourDims{};
  const FourDims out = four_dims(call.out());
  const std::optional<TensorType> heads[] = {call.in(kQuery).type, call.in(kKey).type};
  const int64_t group = group_of(call.attrs, heads);
  const int64_t head_begin = call.begin("h");
  const bool causal = call.attrs.boolean("is_causal", false);
  const int64_t window = call.attrs.integer("window", 0);
  const double scale = scale_of(call.attrs, q.size[3]);
  const auto at = [](const RefTensor& tensor, const FourDims& dims, int64_t b, int64_t h, int64_t s,
                     int64_t d) {
    return tensor.data[static_cast<size_t>(b * dims.stride[0] + h * dims.stride[1] +
                                           s * dims.stride[2] + d * dims.stride[3])];
  };
  std::vector<double> scores(static_cast<size_t>(k.size[2]));
  const Shape rows{q.size[0], q.size[1], q.size[2]};
  if (element_count(rows) == 0) return;
  std::vector<int64_t> row(3, 0);
  do {
    const int64_t b = row[0];
    const int64_t h = row[1];
    const int64_t i = row[2];
    const int64_t kv = (head_begin + h) / group - head_begin / group;
    for (int64_t j = 0; j < k.size[2]; ++j) {
      double score = 0;
      for (int64_t d = 0; d < q.size[3]; ++d)
        score += at(call.in(kQuery), q, b, h, i, d) * at(call.in(kKey), k, b, kv, j, d);
      score *= scale;
      if (call.has(kMask)) {
        const double m = at(call.in(kMask), mask, b, h, i, j);
        const bool boolean = call.in(kMask).type.dtype == DType::kBool;
        score = !boolean ? score + m : m != 0 ? score : -INFINITY;
      }
      if (causal && j > call.begin("q") + i) score = -INFINITY;
      if (call.has(kPosition)) {
        const double p = call.in(kPosition).data[static_cast<size_t>(b * q.size[2] + i)];
        const auto key = static_cast<double>(j);
        if (key > p || (window > 0 && key <= p - static_cast<double>(window))) score = -INFINITY;
      }
      scores[static_cast<size_t>(j)] = score;
    }
    softmax_row(scores);
    for (int64_t e = 0; e < v.size[3]; ++e) {
      double total = 0;
      for (int64_t j = 0; j < k.size[2]; ++j)
        if (scores[static_cast<size_t>(j)] != 0)
          total += scores[static_cast<size_t>(j)] * at(call.in(kValue), v, b, kv, j, e);
      call.out().data[static_cast<size_t>(b * out.stride[0] + h * out.stride[1] +
                                          i * out.stride[2] + e * out.stride[3])] = total;
    }
  } while (next_index(rows, row));
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
    args_.scale = static_cast<float>(scale_of(attrs, args_.qk_size));
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
  static FourDims four_dims(const OperandSpec& spec) {
    return ops::four_dims(spec.type.shape, spec.strides);
  }
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
