// Views of tensors in memory, and immutable bytes with an owner.
#pragma once

#include <cstddef>
#include <memory>

#include "tensor/shape.h"

namespace shardwright {

// Bytes that stay valid as long as `owner` lives: a mapped file, a vector, a NumPy array.
struct SharedBytes {
  std::shared_ptr<const void> owner;
  const std::byte* data = nullptr;
  int64_t size = 0;  // bytes

  static SharedBytes allocate(int64_t bytes, std::byte** writable);  // zero-filled, 64-byte aligned
};

// A tensor to read: element (i...) lies at data + dtype_bytes * sum(i_k * strides_k).
struct TensorView {
  TensorType type;
  Strides strides;  // elements; may be 0 (broadcast) or not contiguous
  const std::byte* data = nullptr;
};

// One element as double (exact for every dtype but i64 beyond 2^53), and back, rounding to the
// dtype.
double load_element(DType dtype, const std::byte* address);
void store_element(DType dtype, std::byte* address, double value);
// `value` as it is after being stored as `dtype`.
double round_to(DType dtype, double value);

}  // namespace shardwright
