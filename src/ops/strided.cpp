// Which strides the kernels take.
#include "ops/op.h"

namespace shardwright::ops {
namespace {

// The last dimension has no gaps, all others together are rows at one distance.
bool are_rows(const Shape& shape, const Strides& strides) {
  if (shape.empty()) return true;
  if (shape.back() > 1 && strides.back() != 1) return false;
  int64_t rows = 1;
  int64_t distance = 0;
  for (size_t d = shape.size() - 1; d-- > 0;) {
    if (shape[d] == 1) continue;
    if (rows == 1) distance = strides[d];
    if (strides[d] != distance * rows || distance < shape.back()) return false;
    rows *= shape[d];
  }
  return true;
}

}  // namespace

bool accepts(Strided strided, const Shape& shape, const Strides& strides) {
  if (element_count(shape) == 0) return true;
  switch (strided) {
    case Strided::kNo:
      return is_contiguous(shape, strides);
    case Strided::kRows:
      return are_rows(shape, strides);
    case Strided::kLast:
      return shape.empty() || shape.back() == 1 || strides.back() == 1;
    case Strided::kAny:
      return true;
  }
  return false;
}

}  // namespace shardwright::ops
