// Inside fused steps: the plan of stages that a spec gives, and what a stage's kernel is.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/cpu/gemm.h"
#include "ops/build.h"
#include "ops/fused.h"

namespace shardwright::ops {

// --- rows ---

// A value as a matrix: one row for each index of RowProgram::rows, and the columns of its last
// dimension.
struct RowView {
  FusedValue value;
  std::vector<int64_t> row_strides = {};  // bytes, one a dim of RowProgram::rows; 0: the same row
  int64_t columns = 1;
  int64_t column_stride = 0;  // elements
  bool is_matrix = true;      // false: one dimension, the same for all rows (a norm's weight)

  int64_t item() const { return dtype_bytes(value.spec.type.dtype); }
};

struct RowPart {
  int index = -1;  // in FusedSpec::parts
  const OpDef* op = nullptr;
  Attrs attrs = {};  // in the last of two dimensions
  std::vector<RowView> operands = {};
  RowView result = {};
  std::vector<std::pair<std::string, int64_t>> begins = {};
  int segment = -1;  // of split_at_cats: parts of one segment alone may share registers
};

// Parts that walk the same rows: any block of rows can go through all of them by itself.
struct RowProgram {
  Shape rows;
  std::vector<RowPart> parts;
};

// Whether `read` is the very value that `written` is, seen in the same way.
bool is_same_view(const RowView& read, const RowView& written);
// Leaves cats out where all that reads them is elementwise, which then runs on pieces of the
// columns. What results, and its bits, stay the same.
void split_at_cats(RowProgram* program, const std::vector<bool>& is_shared);

// The rows programs of these parts, or why there are none.
std::string plan_rows(const FusedSpec& spec, std::span<const int> parts,
                      std::vector<RowProgram>* programs);

// --- gemm ---

// One linear, or two whose product is the result, with all that its epilogue does.
struct FusedGemm {
  int linear[2] = {-1, -1};  // parts; the second is the `up` of a gated pair, or -1
  FusedValue scale[2] = {};  // of linear_int8
  FusedValue bias[2] = {};
  kernels::Activation activation = kernels::Activation::kNone;
  FusedValue residual = {};
  RowsOf residual_rows = {};
  FusedValue result = {};
  RowsOf rows = {};  // of result
};

struct GemmPlan {
  FusedValue x;
  RowsOf x_rows;
  std::vector<FusedGemm> gemms;
  std::vector<int> parts;  // that it does, linears and epilogues
};

// linear or linear_int8.
bool is_linear(const OpDef& op);
// The gemms of `linears`, with those of `others` (in order) that fit into their epilogues.
std::string plan_gemm(const FusedSpec& spec, std::span<const int> linears,
                      std::span<const int> others, GemmPlan* plan);

// --- both ---

struct FusedPlan {
  enum Stage : uint8_t { kBefore, kGemm, kAfter };
  std::string why_not;       // "" if the rest holds
  std::vector<Stage> stage;  // of each part
  std::vector<RowProgram> before;
  GemmPlan gemm;
  std::vector<RowProgram> after;
  // Scratch values that a stage writes for the next one, or for nobody: kept whole.
  std::vector<bool> is_shared;

  bool has_gemm() const { return !gemm.gemms.empty(); }
};
FusedPlan plan_fused(const FusedSpec& spec);

// Where the values of a running step are.
struct FusedMemory {
  const void* const* operands = nullptr;
  void* const* results = nullptr;
  std::byte* shared = nullptr;                   // scratch values that are kept whole,
  const int64_t* shared_at = nullptr;            // by index: their offsets there
  std::byte* of(const FusedValue& value) const;  // element 0; null if absent
};

class FusedStage {
 public:
  virtual ~FusedStage() = default;
  virtual int64_t scratch_bytes() const = 0;
  virtual void run(Member& member, const FusedMemory& memory,
                   std::byte* scratch) const noexcept = 0;
};
std::unique_ptr<FusedStage> make_rows_stage(const FusedSpec& spec, RowProgram program,
                                            const std::vector<bool>& is_shared);
// norm.cpp: rms_norm or layer_norm of x + other, which comes as one operand more, behind the
// norm's; the sum, rounded as x is, is a second result if it is kept.
std::unique_ptr<Kernel> make_add_norm_kernel(const KernelSpec& norm, const OperandSpec& other,
                                             const OperandSpec* kept);
// cache_write.cpp: `source` rows into `cache`, the results' rows of the same number; both are two
// dimensional, and so is `position`, one column. A row of `cache` here is its place 0; `whole` is
// the cache as it is, [B, H, T, D].
std::unique_ptr<Kernel> make_cache_rows_kernel(const OperandSpec& position,
                                               const OperandSpec& source, const OperandSpec& cache,
                                               const OperandSpec& whole);
// Whether each sequence's places in a cache of `length` rise: then rows may be written in any
// order. `position` is i64 [B, S].
bool places_rise(const OperandSpec& position, const void* places, int64_t length);
std::unique_ptr<FusedStage> make_gemm_stage(const FusedSpec& spec, const GemmPlan& plan);

// The operands of cache_write; its result is the cache.
enum CacheWriteOperand : size_t { kWrittenCache = 0, kWrittenAt = 1, kWritten = 2 };
// Works on each column by itself: elementwise, or a cache_write.
bool works_by_columns(const OpDef& op);

// The part that writes this scratch value or result; -1 if none does.
int writer_of(const FusedSpec& spec, const FusedValue& value);
// How many operands of parts are this scratch value or result.
int count_readers(const FusedSpec& spec, const FusedValue& value);
// "rms_norm (part 2)"
std::string name_of(const FusedSpec& spec, int part);

}  // namespace shardwright::ops
