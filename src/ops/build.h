// Helpers to write operator definitions: texts of rules and expansions, types, walks over indices.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ops/op.h"

namespace shardwright::ops {

// A word a dimension of `shape`: prefix and position ("a0 a1"), "1" for a size of 1.
std::vector<std::string> dim_words(std::string_view prefix, const Shape& shape);
// "a0 1 a2"; a tensor of no dimensions gives an empty text.
std::string join_words(std::span<const std::string> words);
// "[1, 2]": an attribute in an expansion.
std::string ints_text(std::span<const int64_t> values);
// "[0, 1, 2]" with `a` and `b` exchanged: a permutation of `ndim` dims that is its own inverse.
std::string swapped_dims_text(int ndim, int a, int b);

// "beta * added + alpha * product" of addmm and baddbmm, from the attributes of these names.
std::string scaled_sum_text(const Attrs& attrs, const std::string& product,
                            const std::string& added);

// result_dtypes of operators that compute in one type: CHECKs nothing, throws Error(kUsage) where
// the floating-point operands that are there differ in type (PyTorch refuses them, too).
DType common_dtype(const OpDef& op, OperandTypes operands);
std::vector<DType> first_dtype(const Attrs&, OperandTypes operands);

// Flops of a sum of products: two for every combination of all factors.
double einsum_flops(const Attrs&, const Rule& rule);

// Of the operators over int8 weights. Throws Error(kUsage) unless `weight` is i8 and `scale` f32.
void check_int8_weight(const TensorType& weight, const TensorType& scale);

// f32, bf16, f16: what the heavy kernels take.
bool is_kernel_float(DType dtype);
// The tensors as the matrix of their rows: a last dimension that is contiguous, all others together
// as rows at one distance (Strided::kRows).
struct RowsOf {
  int64_t count = 0;
  int64_t size = 0;
  int64_t stride = 0;  // in elements
  bool operator==(const RowsOf&) const = default;
};
RowsOf rows_of(const OperandSpec& spec);  // CHECKs that it is such a matrix
std::optional<RowsOf> maybe_rows_of(const TensorType& type, const Strides& strides);

// Moves `index` to the next one of `shape`, last dimension fastest. False after the last.
bool next_index(const Shape& shape, std::vector<int64_t>& index);
// Position of `index` in a tensor of these strides.
int64_t position_of(std::span<const int64_t> index, const Strides& strides);

}  // namespace shardwright::ops
