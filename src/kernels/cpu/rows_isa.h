// What the row kernels get from each instruction set: one row at a time, as plain functions.
#pragma once

#include <cstdint>

namespace shardwright::kernels {

struct NormRow {
  const void* x;
  void* y;
  const void* weight;  // or null
  const void* bias;    // or null
  const void* add;     // or null: x + add is normed,
  void* sum;           // and kept here; not null where `add` is not
  int64_t n;
  float eps;
  bool round_before_weight;
  bool weight_plus_one;
};
using NormFunction = void (*)(const NormRow& row);
using SoftmaxFunction = void (*)(const void* x, void* y, int64_t n);
using CombineFunction = void (*)(const void* const* sources, int64_t n_sources, void* target,
                                 int64_t n);
using ArgMaxFunction = int64_t (*)(const void* x, int64_t n);

// Indices are DType numbers: f32, bf16, f16.
struct RowsTable {
  NormFunction rms_norm[3][3];    // [dtype][weight dtype]
  NormFunction layer_norm[3][3];  // [dtype][weight dtype]
  SoftmaxFunction softmax[3][3];  // [from][to]
  ArgMaxFunction argmax[3];
  CombineFunction combine[2][3];  // [sum, maximum][dtype]
};

namespace portable {
extern const RowsTable rows_table;
}
namespace avx2 {
extern const RowsTable rows_table;
}
namespace avx512 {
extern const RowsTable rows_table;
}
namespace avx512bf16 {
extern const RowsTable rows_table;
}

}  // namespace shardwright::kernels
