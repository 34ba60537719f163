// The tile engine: a chain of elementwise operations, and at most one reduction at its end, run as
// a list of small operations over tiles of 256 elements that stay in the L1 cache.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/team.h"
#include "tensor/shape.h"

namespace shardwright::kernels {

// Names and meaning are PyTorch's (gelu is gelu(approximate="none")). Columns: registers read.
enum class TileCode : uint8_t {
  kLoad,      // dst = input number a
  kStore,     // output number dst = register a
  kConstant,  // dst = imm
  // one operand
  kCopy,  // also a cast: to `dtype`
  kNeg,
  kAbs,
  kExp,
  kLog,
  kSqrt,
  kRsqrt,
  kReciprocal,
  kTanh,
  kErf,
  kSigmoid,
  kSilu,
  kGelu,
  kGeluTanh,
  kRelu,
  kSquare,
  kSin,
  kCos,
  kFloor,
  kNot,
  // two operands
  kAdd,
  kSub,
  kMul,
  kDiv,
  kPow,
  kMin,  // NaN if either is NaN
  kMax,
  kEq,
  kNe,
  kLt,
  kLe,
  kGt,
  kGe,
  kAnd,  // of truth values (not 0)
  kOr,
  // three operands
  kWhere,  // dst = a ? b : c
  // Reductions over TileProgram::reduced; only the kStore of dst may follow.
  kReduceSum,  // divided by imm if imm is not 0 (mean)
  kReduceMax,  // NaN if one is NaN
  kReduceMin,
  kReduceArgMax,  // index within the reduced dims, row-major; the first of equals; NaN is largest
};

// One operation. Registers are numbered from 0; each is written once.
// `dtype` is the type of the result. A bf16 or f16 result is computed in f32 and then rounded, so a
// chain gives the bits that separate operators give. f32, bf16, f16 and bool registers are f32;
// f64 and integer registers are double (integers are exact up to 2^53); operands are converted
// to what the operation needs. Converting to an integer truncates, to bool tests for not 0.
struct TileOp {
  TileCode code = TileCode::kCopy;
  DType dtype = DType::kF32;
  int dst = 0;
  int a = -1;
  int b = -1;
  int c = -1;
  double imm = 0;
};

struct TileOperand {
  DType dtype = DType::kF32;
  Strides strides;  // in elements, one a dim of TileProgram::shape; 0 = the same for all
};

struct TileProgram {
  Shape shape;  // the index space, at most kMaxDims
  std::vector<TileOp> ops;
  std::vector<TileOperand> inputs;
  std::vector<TileOperand> outputs;  // strides of reduced dims are ignored
  std::vector<int> reduced;          // dims of `shape` that the reduction removes
};

struct TilePlan;

// A program made ready for one shape and one layout.
class TileKernel {
 public:
  // Throws Error(kUnsupported) if more than 64 registers live at once.
  explicit TileKernel(const TileProgram& program);
  const TilePlan& plan() const { return *plan_; }

 private:
  std::shared_ptr<const TilePlan> plan_;
};

// Called by all threads of the team; no barrier inside. An output may be an input of the same
// layout. Every element of an output is computed by one thread, in an order that does not depend
// on the number of threads.
void run_tile(Member& member, const TileKernel& kernel, const void* const* inputs,
              void* const* outputs);

}  // namespace shardwright::kernels
