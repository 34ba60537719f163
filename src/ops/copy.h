// What operators that move elements share: rules of whole dimensions, copy kernels, the reference
// walk.
#pragma once

#include <functional>

#include "kernels/cpu/rows.h"
#include "ops/op.h"

namespace shardwright::ops {

// A rule that may not be split anywhere; for operators that don't outlive canonicalisation.
std::string whole_rule(OperandTypes operands, const std::vector<Shape>& results);

// `dim` of a dimension list that PyTorch also lets be one number.
std::vector<int64_t> dims_of(const Attrs& attrs, std::string_view name);

// One copy of a part of an operand into a part of a result; offsets in elements.
struct PartCopy {
  size_t operand = 0;
  size_t result = 0;
  Shape shape = {};
  Strides from = {};
  int64_t from_offset = 0;
  Strides to = {};
  int64_t to_offset = 0;
};
// A kernel that makes these copies. All tensors have one dtype. With `fill`, the first result,
// which must be contiguous, is filled with that value before.
std::unique_ptr<Kernel> make_part_copies(const KernelSpec& spec, std::span<const PartCopy> copies,
                                         std::optional<double> fill = {});
// make_kernel of an operator with a view: copies what the view shows. Where there is no view, the
// elements are copied in row-major order into a contiguous result.
std::unique_ptr<Kernel> make_view_copy(const KernelSpec& spec);

// Fills `y`: element `index` is operand[source(index)].
void gather_elements(const RefTensor& x, RefTensor& y,
                     const std::function<int64_t(std::span<const int64_t> index)>& source);

}  // namespace shardwright::ops
