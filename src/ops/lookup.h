// The kernel of every operator that reads a tensor at places that other tensors name: embedding,
// index_select, gather, index.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ops/op.h"

namespace shardwright::ops {

// One tensor of indices (i64 or i32), which picks a row along one dimension of x.
struct LookupIndex {
  size_t operand = 0;
  DType dtype = DType::kI64;
  Strides strides = {};  // in elements, one a dim of the result
  int64_t x_stride = 0;  // in elements: from one row to the next
  int64_t begin = 0;     // the index of the first row that is here
  int64_t rows = 0;      // that are here
  bool wraps = false;    // -1 is the last row
};

// result[p] = x[p . x_strides + sum over indices of row * x_stride]; zero where a row is not here.
struct Lookup {
  Shape shape;  // of the result
  int64_t element_bytes = 4;
  Strides y_strides;
  Strides x_strides;  // in elements, one a dim of the result; 0 along dims that only indices have
  size_t x_operand = 0;
  std::vector<LookupIndex> indices = {};
};

std::unique_ptr<Kernel> make_lookup_kernel(const Lookup& lookup);

// Throws Error(kUnsupported) unless `type`, that of the operand `name`, is i64 or i32.
void check_index_type(const char* name, const TensorType& type);

}  // namespace shardwright::ops
