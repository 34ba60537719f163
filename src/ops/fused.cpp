// Fused steps: their stages, what passes between these, and the kernel that runs them.
#include "ops/fused.h"

#include <algorithm>

#include "base/check.h"
#include "base/checked.h"
#include "kernels/cpu/rows.h"
#include "ops/fused_stage.h"
#include "ops/table.h"

namespace shardwright::ops {
namespace {

using Where = FusedValue::Where;

bool is_written(const FusedValue& value) {
  return value.where == Where::kScratch || value.where == Where::kResult;
}
bool is_same_value(const FusedValue& a, const FusedValue& b) {
  return a.where == b.where && a.index == b.index;
}

// Every scratch value and result has one writer, and no reader before it. (Nothing writes what has
// no elements.)
std::string check_order(const FusedSpec& spec) {
  std::vector<const FusedValue*> written;
  const auto is_there = [&](const FusedValue& value) {
    return std::any_of(written.begin(), written.end(),
                       [&](const FusedValue* other) { return is_same_value(value, *other); });
  };
  for (size_t i = 0; i < spec.parts.size(); ++i) {
    const std::string name = name_of(spec, static_cast<int>(i));
    for (const FusedValue& value : spec.parts[i].operands)
      if (is_written(value) && value.spec.type.count() > 0 && !is_there(value))
        return name + " reads what nothing has written";
    for (const FusedValue& value : spec.parts[i].results) {
      if (!is_written(value)) return name + " writes an operand of the step";
      if (is_there(value)) return name + " writes what another part has written";
      written.push_back(&value);
    }
  }
  return spec.parts.empty() ? "no parts" : "";
}

class Planner {
 public:
  explicit Planner(const FusedSpec& spec) : spec_(spec), stage_(plan_.stage) {
    stage_.assign(spec.parts.size(), FusedPlan::kBefore);
  }

  FusedPlan plan() {
    plan_.why_not = check_order(spec_);
    if (plan_.why_not.empty()) plan_.why_not = find_stages();
    if (plan_.why_not.empty()) plan_.why_not = plan_rows(spec_, parts_of(kBefore), &plan_.before);
    if (plan_.why_not.empty()) plan_.why_not = plan_rows(spec_, parts_of(kAfter), &plan_.after);
    if (plan_.why_not.empty()) find_shared();
    return std::move(plan_);
  }

 private:
  using Stage = FusedPlan::Stage;
  static constexpr Stage kBefore = FusedPlan::kBefore;
  static constexpr Stage kGemm = FusedPlan::kGemm;
  static constexpr Stage kAfter = FusedPlan::kAfter;

  std::vector<int> parts_of(Stage stage) const {
    std::vector<int> parts;
    for (size_t i = 0; i < stage_.size(); ++i)
      if (stage_[i] == stage) parts.push_back(static_cast<int>(i));
    return parts;
  }

  std::string find_stages() {
    std::vector<int> linears;
    for (size_t i = 0; i < spec_.parts.size(); ++i) {
      for (const FusedValue& value : spec_.parts[i].operands) {
        const int writer = writer_of(spec_, value);
        if (writer >= 0 && stage_[static_cast<size_t>(writer)] != kBefore) stage_[i] = kAfter;
      }
      if (!is_linear(*spec_.parts[i].op)) continue;
      if (stage_[i] == kAfter)
        return name_of(spec_, static_cast<int>(i)) + " reads what another linear gives";
      stage_[i] = kGemm;
      linears.push_back(static_cast<int>(i));
    }
    if (linears.empty()) return "";
    const std::vector<int> others = parts_of(kAfter);
    if (std::string reason = plan_gemm(spec_, linears, others, &plan_.gemm); !reason.empty())
      return reason;
    for (const int part : plan_.gemm.parts) stage_[static_cast<size_t>(part)] = kGemm;
    if (!parts_of(kAfter).empty()) move_behind();
    if (!parts_of(kAfter).empty() && !parts_of(kBefore).empty())
      return name_of(spec_, parts_of(kAfter)[0]) + " must follow the gemm, and " +
             name_of(spec_, parts_of(kBefore)[0]) + " go before it: three stages";
    return "";
  }

  // What the gemm does not need runs with what follows it.
  void move_behind() {
    std::vector<bool> needed(spec_.parts.size(), false);
    for (size_t i = spec_.parts.size(); i-- > 0;) {
      if (stage_[i] != kGemm && !needed[i]) continue;
      for (const FusedValue& value : spec_.parts[i].operands)
        if (const int writer = writer_of(spec_, value); writer >= 0)
          needed[static_cast<size_t>(writer)] = true;
    }
    for (size_t i = 0; i < stage_.size(); ++i)
      if (stage_[i] == kBefore && !needed[i]) stage_[i] = kAfter;
  }

  void find_shared() {
    plan_.is_shared.assign(spec_.scratch_bytes.size(), false);
    for (size_t i = 0; i < spec_.parts.size(); ++i)
      for (const FusedValue& value : spec_.parts[i].operands) {
        if (value.where != Where::kScratch) continue;
        const int writer = writer_of(spec_, value);
        if (writer >= 0 && stage_[static_cast<size_t>(writer)] != stage_[i])
          plan_.is_shared[static_cast<size_t>(value.index)] = true;
      }
    for (const FusedPart& part : spec_.parts)
      for (const FusedValue& value : part.results)
        if (value.where == Where::kScratch && count_readers(spec_, value) == 0)
          plan_.is_shared[static_cast<size_t>(value.index)] = true;
  }

  const FusedSpec& spec_;
  FusedPlan plan_;
  std::vector<Stage>& stage_;
};

class FusedKernel final : public Kernel {
 public:
  FusedKernel(const FusedSpec& spec, const FusedPlan& plan) {
    for (size_t i = 0; i < spec.scratch_bytes.size(); ++i) {
      shared_at_.push_back(shared_bytes_);
      if (plan.is_shared[i]) shared_bytes_ += round_up(spec.scratch_bytes[i], 64);
    }
    for (const FusedPart& part : spec.parts)
      if (part.op == &cache_write) caches_.emplace_back(part);
    add_rows(spec, plan.before, plan.is_shared);
    if (plan.has_gemm()) {
      add_group();
      add(make_gemm_stage(spec, plan.gemm));
    }
    add_rows(spec, plan.after, plan.is_shared);
  }

  int64_t scratch_bytes() const override { return shared_bytes_ + stage_bytes_; }

  void run(Member& member, const void* const* operands, void* const* results,
           void* scratch) const noexcept override {
    const FusedMemory memory{operands, results, static_cast<std::byte*>(scratch),
                             shared_at_.data()};
    bool copied = false;
    for (const Cache& cache : caches_) copied |= cache.copy(member, memory);
    if (copied) member.barrier();
    for (size_t group = 0; group < groups_.size(); ++group) {
      if (group > 0) member.barrier();
      for (const Placed& stage : groups_[group])
        stage.stage->run(member, memory, memory.shared + shared_bytes_ + stage.at);
    }
  }

 private:
  struct Placed {
    std::unique_ptr<FusedStage> stage;
    int64_t at = 0;  // of its scratch, from the end of what is shared
  };
  // A cache that new rows go into: copied first, unless they go into its own memory.
  class Cache {
   public:
    explicit Cache(const FusedPart& write)
        : from_(write.operands[kWrittenCache]),
          to_(write.results[0]),
          all_(dtype_bytes(to_.spec.type.dtype), to_.spec.type.shape, from_.spec.strides,
               to_.spec.strides) {}
    bool copy(Member& member, const FusedMemory& memory) const {
      if (memory.of(from_) == memory.of(to_)) return false;
      all_.run(member, memory.of(from_), memory.of(to_));
      return true;
    }

   private:
    FusedValue from_;
    FusedValue to_;
    kernels::StridedCopy all_;
  };

  void add_rows(const FusedSpec& spec, const std::vector<RowProgram>& programs,
                const std::vector<bool>& is_shared) {
    if (!programs.empty()) add_group();
    for (const RowProgram& program : programs) add(make_rows_stage(spec, program, is_shared));
  }
  void add_group() {
    groups_.emplace_back();
    group_bytes_ = 0;
  }
  void add(std::unique_ptr<FusedStage> stage) {
    const int64_t bytes = round_up(stage->scratch_bytes(), 64);
    groups_.back().push_back({std::move(stage), group_bytes_});
    group_bytes_ += bytes;
    stage_bytes_ = std::max(stage_bytes_, group_bytes_);
  }

  // Stages of one group run at the same time: nothing passes between them.
  std::vector<std::vector<Placed>> groups_;
  std::vector<Cache> caches_;
  std::vector<int64_t> shared_at_;
  int64_t shared_bytes_ = 0;
  int64_t stage_bytes_ = 0;  // of the largest group
  int64_t group_bytes_ = 0;  // of the last one
};

}  // namespace

std::byte* FusedMemory::of(const FusedValue& value) const {
  switch (value.where) {
    case Where::kOperand:  // const as it is used for operands alone
      return const_cast<std::byte*>(static_cast<const std::byte*>(operands[value.index])) +
             value.offset_bytes;
    case Where::kResult:
      return static_cast<std::byte*>(results[value.index]) + value.offset_bytes;
    case Where::kScratch:
      return shared + shared_at[value.index] + value.offset_bytes;
    case Where::kAbsent:
      break;
  }
  return nullptr;
}

int writer_of(const FusedSpec& spec, const FusedValue& value) {
  if (!is_written(value)) return -1;
  for (size_t i = 0; i < spec.parts.size(); ++i)
    for (const FusedValue& result : spec.parts[i].results)
      if (is_same_value(result, value)) return static_cast<int>(i);
  return -1;
}

int count_readers(const FusedSpec& spec, const FusedValue& value) {
  int count = 0;
  for (const FusedPart& part : spec.parts)
    for (const FusedValue& operand : part.operands) count += is_same_value(operand, value) ? 1 : 0;
  return count;
}

std::string name_of(const FusedSpec& spec, int part) {
  return std::string(spec.parts[static_cast<size_t>(part)].op->name) + " (part " +
         std::to_string(part) + ")";
}

FusedPlan plan_fused(const FusedSpec& spec) { return Planner(spec).plan(); }

std::string why_not_fused(const FusedSpec& spec) { return plan_fused(spec).why_not; }

std::unique_ptr<Kernel> make_fused_kernel(const FusedSpec& spec) {
  const FusedPlan plan = plan_fused(spec);
  CHECK(plan.why_not.empty(), plan.why_not);
  return std::make_unique<FusedKernel>(spec, plan);
}

}  // namespace shardwright::ops
