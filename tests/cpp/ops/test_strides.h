// Layouts of tensors in tests.
#pragma once

#include "ops/op.h"

namespace shardwright::ops {

// How a test lays out operands and results: contiguous, or as odd as OpDef's strides allow.
enum class TestLayout { kContiguous, kStrided };

inline Strides test_strides(const Shape& shape, Strided allowed, TestLayout layout) {
  Strides strides = contiguous_strides(shape);
  if (layout == TestLayout::kContiguous || allowed == Strided::kNo || shape.empty()) return strides;
  if (allowed == Strided::kRows) {  // rows 3 elements apart
    int64_t stride = shape.back() + 3;
    for (size_t i = shape.size() - 1; i-- > 0; stride *= shape[i]) strides[i] = stride;
    return strides;
  }
  // Outer dims in reverse order with a gap after each; the last dim first, or every second element.
  const bool any = allowed == Strided::kAny;
  strides.back() = any ? 2 : 1;
  int64_t stride = strides.back() * shape.back() + 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) {
    strides[i] = stride;
    stride = stride * shape[i] + 2;
  }
  return strides;
}

}  // namespace shardwright::ops
