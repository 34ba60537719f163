// The kernel of operators that read a tensor at places that other tensors name.
#include "ops/lookup.h"

#include <cstring>

#include "base/check.h"
#include "base/error.h"

namespace shardwright::ops {
namespace {

constexpr size_t kMaxIndices = kMaxDims;

int64_t load_index(DType dtype, const void* data, int64_t at) {
  if (dtype == DType::kI32) return static_cast<const int32_t*>(data)[at];
  return static_cast<const int64_t*>(data)[at];
}

// The trailing dims of the result that lie the same in x are one run of bytes; each thread takes a
// share of the runs.
class LookupKernel : public Kernel {
 public:
  explicit LookupKernel(const Lookup& lookup) : lookup_(lookup) {
    CHECK(lookup.shape.size() <= kMaxDims && lookup.indices.size() <= kMaxIndices);
    outer_ = lookup.shape.size();
    run_ = 1;
    while (outer_ > 0 && in_run(outer_ - 1)) run_ *= lookup_.shape[--outer_];
    n_runs_ = 1;
    for (size_t i = 0; i < outer_; ++i) n_runs_ *= lookup_.shape[i];
    if (run_ == 0) n_runs_ = 0;
  }

  void run(Member& member, const void* const* operands, void* const* results,
           void* /*scratch*/) const noexcept override {
    const Range runs = member.share(n_runs_);
    if (runs.empty()) return;
    const auto run_bytes = static_cast<size_t>(run_ * lookup_.element_bytes);
    const auto* x = static_cast<const std::byte*>(operands[lookup_.x_operand]);
    auto* y = static_cast<std::byte*>(results[0]);
    int64_t place[kMaxDims] = {};
    int64_t rest = runs.begin;
    for (size_t i = outer_; i-- > 0;) {
      place[i] = rest % lookup_.shape[i];
      rest /= lookup_.shape[i];
    }
    for (int64_t r = runs.begin; r < runs.end; ++r) {
      int64_t to = 0;
      int64_t from = 0;
      for (size_t i = 0; i < outer_; ++i) {
        to += place[i] * lookup_.y_strides[i];
        from += place[i] * lookup_.x_strides[i];
      }
      if (add_rows(operands, place, &from)) {
        std::memcpy(y + to * lookup_.element_bytes, x + from * lookup_.element_bytes, run_bytes);
      } else {
        std::memset(y + to * lookup_.element_bytes, 0, run_bytes);
      }
      for (size_t i = outer_; i-- > 0;) {
        if (++place[i] < lookup_.shape[i]) break;
        place[i] = 0;
      }
    }
  }

 private:
  bool in_run(size_t dim) const {
    for (const LookupIndex& one : lookup_.indices)
      if (one.strides[dim] != 0 && lookup_.shape[dim] != 1) return false;
    return lookup_.shape[dim] == 1 ||
           (lookup_.x_strides[dim] == run_ && lookup_.y_strides[dim] == run_);
  }

  // Adds the picked rows to `from`; false if one of them is not here.
  bool add_rows(const void* const* operands, const int64_t* place, int64_t* from) const {
    for (const LookupIndex& one : lookup_.indices) {
      int64_t at = 0;
      for (size_t i = 0; i < outer_; ++i) at += place[i] * one.strides[i];
      int64_t row = load_index(one.dtype, operands[one.operand], at);
      if (one.wraps && row < 0) row += one.rows;
      row -= one.begin;
      if (row < 0 || row >= one.rows) return false;
      *from += row * one.x_stride;
    }
    return true;
  }

  Lookup lookup_;
  size_t outer_ = 0;    // dims that are not in the run
  int64_t run_ = 1;     // elements
  int64_t n_runs_ = 0;  // of the whole result
};

}  // namespace

std::unique_ptr<Kernel> make_lookup_kernel(const Lookup& lookup) {
  return std::make_unique<LookupKernel>(lookup);
}

void check_index_type(const char* name, const TensorType& type) {
  if (type.dtype == DType::kI64 || type.dtype == DType::kI32) return;
  const bool is_mask = type.dtype == DType::kBool;
  throw Error(ErrorCode::kUnsupported,
              std::string(name) + " is " + to_string(type) + "; supported: i64 and i32" +
                  (is_mask ? " (a mask gives a size that depends on the data: use where)" : ""));
}

}  // namespace shardwright::ops
