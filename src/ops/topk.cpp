// topk: the k largest (or smallest) values along a dimension and their indices, in order.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "ops/build.h"
#include "ops/table.h"

namespace shardwright::ops {
namespace {

std::string topk_rule(const Attrs& attrs, OperandTypes operands) {
  const Shape& shape = operands[0]->shape;
  const int64_t k = attrs.integer("k");
  if (shape.empty()) return " -> , ";
  const auto dim =
      static_cast<size_t>(normal_dim(attrs.integer("dim", -1), static_cast<int>(shape.size())));
  if (k < 0 || k > shape[dim])
    throw Error(ErrorCode::kUsage, "k is " + std::to_string(k) + ", but x is " +
                                       to_string(*operands[0]) + "; at most " +
                                       std::to_string(shape[dim]) + " values can be taken");
  std::vector<std::string> words = dim_words("a", shape);
  const std::string x = join_words(words);
  const std::string gone = words[dim] == "1" ? "" : words[dim] + " ";
  words[dim] = "k=" + std::to_string(k);
  const std::string result = join_words(words);
  return x + " -> " + result + ", " + result + "; " + gone + "k: whole";
}

std::vector<DType> topk_dtypes(const Attrs&, OperandTypes operands) {
  return {operands[0]->dtype, DType::kI64};
}

// Of equal values the one with the lower index comes first; NaN is the largest.
void topk_reference(const RefCall& call) {
  const RefTensor& x = call.in(0);
  if (x.type.ndim() == 0) {
    call.out().data = x.data;
    return;
  }
  const auto dim = static_cast<size_t>(normal_dim(call.attrs.integer("dim", -1), x.type.ndim()));
  const bool largest = call.attrs.boolean("largest", true);
  const auto size = static_cast<size_t>(x.type.shape[dim]);
  const auto k = static_cast<size_t>(call.out().type.shape[dim]);
  size_t inner = 1;
  for (size_t i = dim + 1; i < x.type.shape.size(); ++i)
    inner *= static_cast<size_t>(x.type.shape[i]);
  if (x.data.empty()) return;
  std::vector<size_t> order(size);
  for (size_t row = 0; row < x.data.size() / size; ++row) {
    const size_t first = row / inner * inner * size + row % inner;
    const auto value = [&](size_t i) { return x.data[first + i * inner]; };
    const auto larger = [&](size_t a, size_t b) {
      return std::isnan(value(b)) ? false : std::isnan(value(a)) || value(a) > value(b);
    };
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return largest ? larger(a, b) : larger(b, a); });
    const size_t to = row / inner * inner * k + row % inner;
    for (size_t i = 0; i < k; ++i) {
      call.out(0).data[to + i * inner] = value(order[i]);
      call.out(1).data[to + i * inner] = static_cast<double>(order[i]);
    }
  }
}

}  // namespace

const OpDef topk{
    .name = "topk",
    .arguments = "x[self], k: int, dim: int = -1, largest: bool = true, sorted: bool = true",
    .rule_for = topk_rule,
    .result_dtypes = topk_dtypes,
    .reference = topk_reference,
    .make_kernel = make_reference_kernel,  // a few experts of a few tokens
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .samples = {"x: f32[3, 8], k=2", "x: bf16[5, 7, 3], k=3, dim=1, largest=false"},
};

}  // namespace shardwright::ops
