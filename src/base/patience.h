// Patience: a deadline in time that the waiter itself saw pass.
#pragma once

#include <algorithm>
#include <cstdint>

namespace shardwright {

// While the whole process is stopped (Ctrl-Z, a debugger), the clock goes on but nobody is late. So
// a waiter wakes up once a slice and counts at most a slice for each time that it woke: a stop
// costs one slice, however long it was. All times are of base/clock.h.
class Patience {
 public:
  Patience(int64_t limit_ns, int64_t now_ns)
      : left_ns_(limit_ns), slice_ns_(std::max<int64_t>(1, limit_ns / 8)), last_ns_(now_ns) {}

  // When to wake up next, at the latest.
  int64_t wake_ns() const { return last_ns_ + std::min(slice_ns_, left_ns_); }
  // Counts the time since the last call; true when none is left.
  bool is_spent(int64_t now_ns) {
    left_ns_ -= std::min(now_ns - last_ns_, slice_ns_);
    last_ns_ = now_ns;
    return left_ns_ <= 0;
  }

 private:
  int64_t left_ns_;
  int64_t slice_ns_;
  int64_t last_ns_;
};

}  // namespace shardwright
