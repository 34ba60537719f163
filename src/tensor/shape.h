// Shape and TensorType: what is known of a tensor before it has bytes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tensor/dtype.h"

namespace shardwright {

using Shape = std::vector<int64_t>;    // sizes, outermost first; empty = a scalar
using Strides = std::vector<int64_t>;  // in elements, one a dimension

inline constexpr int kMaxDims = 8;

struct TensorType {
  DType dtype = DType::kF32;
  Shape shape;

  int ndim() const { return static_cast<int>(shape.size()); }
  int64_t count() const;  // elements
  int64_t bytes() const;  // count * dtype_bytes
  bool operator==(const TensorType&) const = default;
};

int64_t element_count(const Shape& shape);
Strides contiguous_strides(const Shape& shape);
bool is_contiguous(const Shape& shape, const Strides& strides);
std::string to_string(const Shape& shape);      // "[2, 16]"
std::string to_string(const TensorType& type);  // "f32[2, 16]"

}  // namespace shardwright
