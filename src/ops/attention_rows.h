// What attention and its gradient share: operands, groups of heads, and the probabilities of a row
// in the oracle.
#pragma once

#include <vector>

#include "ops/op.h"

namespace shardwright::ops {

// Query heads per KV head, from the attribute or, on whole tensors, from the types. (A chip can't
// tell: 5 of 9 query heads use 2 of 3 KV heads.)
int64_t attention_group(const Attrs& attrs, OperandTypes operands);
// 1 / sqrt(qk_size) where the attribute does not say.
double attention_scale(const Attrs& attrs, int64_t qk_size);
// The words of the rule: of query, key, value, mask ("-": none) and result.
struct AttentionWords {
  std::string query, key, value, mask, result;
};
AttentionWords attention_words(const Attrs& attrs, OperandTypes operands);

// A tensor of fewer than four dims as four: dims of size 1 before, stride 0.
struct FourDims {
  int64_t size[4] = {1, 1, 1, 1};
  int64_t stride[4] = {0, 0, 0, 0};

  FourDims() = default;
  FourDims(const Shape& shape, const Strides& strides);
  explicit FourDims(const RefTensor& tensor);
  size_t at(int64_t b, int64_t h, int64_t s, int64_t d) const {
    return static_cast<size_t>(b * stride[0] + h * stride[1] + s * stride[2] + d * stride[3]);
  }
};

// The oracle's rows of softmax(query key^T * scale + mask). `call.operands` from `first` on are
// query, key, value, mask, position.
class AttentionRows {
 public:
  AttentionRows(const RefCall& call, size_t first);

  int64_t kv_head(int64_t h) const;
  // [keys]; zeros if no key is seen.
  void probabilities(int64_t b, int64_t h, int64_t row, std::vector<double>& to) const;
  double scale() const { return scale_; }

  FourDims q, k, v;

 private:
  const RefTensor& in(size_t operand) const { return call_.in(first_ + operand); }
  bool has(size_t operand) const { return call_.has(first_ + operand); }

  const RefCall& call_;
  size_t first_;
  FourDims mask_;
  int64_t group_;
  bool causal_;
  int64_t window_;
  double scale_;
};

}  // namespace shardwright::ops
