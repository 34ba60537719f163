// The oracle side of an operator: the obvious loop in double.
#pragma once

#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "ops/attrs.h"
#include "tensor/shape.h"

namespace shardwright::ops {

// A whole or local tensor in double, contiguous. bool is 0 or 1; integers are exact below 2^53.
struct RefTensor {
  TensorType type;
  std::vector<double> data;

  RefTensor() = default;
  explicit RefTensor(TensorType t) : type(std::move(t)), data(static_cast<size_t>(type.count())) {}
  int64_t size(int dim) const { return type.shape[static_cast<size_t>(dim)]; }
};

// One call. Results are allocated with their (local) types and zero.
struct RefCall {
  const Attrs& attrs;
  std::span<const RefTensor* const> operands;  // null: absent
  std::span<RefTensor> results;
  std::span<const std::pair<std::string, int64_t>> begins;

  const RefTensor& in(size_t i) const { return *operands[i]; }
  bool has(size_t i) const { return i < operands.size() && operands[i] != nullptr; }
  RefTensor& out(size_t i = 0) const { return results[i]; }
  int64_t begin(std::string_view factor) const;
};

}  // namespace shardwright::ops
