// A fused step: several operators that run as one, their intermediates in scratch or registers.
//
// Every fused step is at most two stages with one barrier between them:
//   rows   operators that work row by row (elementwise with broadcasting, casts, norms, softmax,
//          sums over a row, gather from a row, copies of views, cat inside a row, cache_write of
//          rows): each thread takes blocks of rows through all of them, the intermediates of a
//          block staying in its scratch. Each operator rounds as it does alone: the bits are the
//          same
//   gemm   linears that read the same x, their weights in panels, with what follows each of them
//          element by element in the epilogue: bias, activation, product with another linear of the
//          stage (gate and up), residual, casts between floats. The epilogue computes in f32 and
//          rounds once, at its end
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ops/kernel.h"
#include "ops/op.h"

namespace shardwright::ops {

// Where a part finds a value, and how it sees it.
struct FusedValue {
  enum class Where : uint8_t { kAbsent, kOperand, kResult, kScratch };
  Where where = Where::kAbsent;
  int index = -1;            // of the step's operands, its results, or its scratch values
  int64_t offset_bytes = 0;  // from element 0 of that operand or result; in the scratch value
  OperandSpec spec;          // type, strides, layout
};

struct FusedPart {
  const OpDef* op = nullptr;
  Attrs attrs;
  std::vector<FusedValue> operands;
  std::vector<FusedValue> results;
  std::vector<std::pair<std::string, int64_t>> begins;
};

struct FusedSpec {
  std::vector<FusedPart> parts;  // in the order in which they could run one by one
  // Bytes of each scratch value, whole. A kernel keeps only what it must: blocks of it, or nothing.
  std::vector<int64_t> scratch_bytes;
  int n_threads = 1;
};

// Each scratch value and each result has one part that writes it, before any that reads it. A
// result overlaps no other one; an operand only where the part that writes the result is the
// operand's only reader and could work in place (OpDef::in_place) by itself.
//
// Whether these parts can be one step; "" if so, else why not, for people ("linear reads the sum of
// rows"). Depends on nothing but the spec: the same on every machine and for any number of threads.
std::string why_not_fused(const FusedSpec& spec);

// Whether an operator makes each row of its result (the last dimension) of one row of each operand
// alone, so that it may stand in a rows stage: what -o3 goes by. `result` is its type.
bool works_by_rows(const OpDef& op, const Attrs& attrs, const TensorType& result);

// The kernel of a fused step: operands and results as FusedValue::index counts them. CHECKs that
// why_not_fused is "".
std::unique_ptr<Kernel> make_fused_kernel(const FusedSpec& spec);

}  // namespace shardwright::ops
