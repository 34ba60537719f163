// What a kernel is: made once at load, run every step by all threads of a chip's team.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "base/team.h"
#include "ops/attrs.h"
#include "tensor/tensor.h"

namespace shardwright::ops {

struct OpDef;

// How a parameter lies in a chip's memory.
enum class Layout : uint8_t {
  kStrided = 0,  // elements at `strides`
  kPanels = 1,   // packed for gemm: panels of 32 rows of a [N, K] tensor (kernels/cpu/gemm.h)
};

// One operand or result of a node on one chip.
struct OperandSpec {
  bool present = true;
  TensorType type;  // local
  Strides strides;  // elements; what OpDef::operand_strides / result_strides allow
  Layout layout = Layout::kStrided;
};

struct KernelSpec {
  const OpDef* op = nullptr;
  const Attrs* attrs = nullptr;
  std::vector<OperandSpec> operands;
  std::vector<OperandSpec> results;
  // Where this chip's range of each split factor starts; factors that start at 0 may be left out.
  std::vector<std::pair<std::string, int64_t>> begins;
  int n_threads = 1;

  int64_t begin(std::string_view factor) const;  // 0 if it is not listed
};

class Kernel {
 public:
  virtual ~Kernel() = default;
  // Bytes of scratch that run() may use (shared by the team; 64-byte aligned). Depends on the
  // machine and the number of threads.
  virtual int64_t scratch_bytes() const { return 0; }
  // Called by all threads of the team. Pointers are those of element 0 of each operand and result
  // (null if absent). The caller puts a barrier between steps; inside, member.barrier() as needed
  // (the same number of times on every thread). Allocates nothing, can't fail.
  virtual void run(Member& member, const void* const* operands, void* const* results,
                   void* scratch) const noexcept = 0;
};

}  // namespace shardwright::ops
