// The oracle's softmax rows of attention.
#include "ops/attention_rows.h"

#include <cmath>

#include "base/error.h"
#include "ops/build.h"

namespace shardwright::ops {
namespace {

// Of attention's operands.
enum Operand : size_t { kQuery = 0, kKey = 1, kValue = 2, kMask = 3, kPosition = 4 };

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

}  // namespace

int64_t attention_group(const Attrs& attrs, OperandTypes operands) {
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
  throw Error(ErrorCode::kUsage,
              "query has " + std::to_string(q_heads) + " heads and key has " +
                  std::to_string(kv_heads) +
                  "; the first must be the second, or a multiple with enable_gqa=True");
}

double attention_scale(const Attrs& attrs, int64_t qk_size) {
  if (attrs.has("scale")) return attrs.number("scale");
  return 1 / std::sqrt(static_cast<double>(qk_size));
}

AttentionWords attention_words(const Attrs& attrs, OperandTypes operands) {
  const Shape& q = operands[kQuery]->shape;
  const size_t ndim = q.size();
  const int64_t group = attention_group(attrs, operands);
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
  if (operands.size() > kMask && operands[kMask]) {
    const Shape& shape = operands[kMask]->shape;
    std::vector<std::string> scores = query;
    scores.back() = "k";
    std::vector<std::string> words(scores.end() - static_cast<std::ptrdiff_t>(shape.size()),
                                   scores.end());
    for (size_t i = 0; i < words.size(); ++i)
      if (shape[i] == 1) words[i] = "1";
    mask = join_words(words);
  }
  return {join_words(query), join_words(key), join_words(value), mask, join_words(result)};
}

FourDims::FourDims(const Shape& shape, const Strides& strides) {
  const size_t missing = 4 - shape.size();
  for (size_t i = 0; i < shape.size(); ++i) {
    size[missing + i] = shape[i];
    if (shape[i] != 1) stride[missing + i] = strides[i];
  }
}
FourDims::FourDims(const RefTensor& tensor)
    : FourDims(tensor.type.shape, contiguous_strides(tensor.type.shape)) {}

AttentionRows::AttentionRows(const RefCall& call, size_t first)
    : q(call.in(first + kQuery)),
      k(call.in(first + kKey)),
      v(call.in(first + kValue)),
      call_(call),
      first_(first),
      causal_(call.attrs.boolean("is_causal", false)),
      window_(call.attrs.integer("window", 0)),
      scale_(attention_scale(call.attrs, q.size[3])) {
  if (has(kMask)) mask_ = FourDims(in(kMask));
  const std::optional<TensorType> heads[] = {in(kQuery).type, in(kKey).type};
  group_ = attention_group(call.attrs, heads);
}

int64_t AttentionRows::kv_head(int64_t h) const {
  const int64_t begin = call_.begin("h");
  return (begin + h) / group_ - begin / group_;
}

void AttentionRows::probabilities(int64_t b, int64_t h, int64_t row,
                                  std::vector<double>& to) const {
  to.resize(static_cast<size_t>(k.size[2]));
  const int64_t kv = kv_head(h);
  for (int64_t j = 0; j < k.size[2]; ++j) {
    double score = 0;
    for (int64_t d = 0; d < q.size[3]; ++d)
      score += in(kQuery).data[q.at(b, h, row, d)] * in(kKey).data[k.at(b, kv, j, d)];
    score *= scale_;
    if (has(kMask)) {
      const double m = in(kMask).data[mask_.at(b, h, row, j)];
      const bool boolean = in(kMask).type.dtype == DType::kBool;
      score = !boolean ? score + m : m != 0 ? score : -INFINITY;
    }
    if (causal_ && j > call_.begin("q") + row) score = -INFINITY;
    if (has(kPosition)) {
      const double p = in(kPosition).data[static_cast<size_t>(b * q.size[2] + row)];
      const auto key = static_cast<double>(j);
      if (key > p || (window_ > 0 && key <= p - static_cast<double>(window_))) score = -INFINITY;
    }
    to[static_cast<size_t>(j)] = score;
  }
  softmax_row(to);
}

}  // namespace shardwright::ops
