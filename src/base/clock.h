// The clock that waits, deadlines and profiles share.
#pragma once

#include <chrono>
#include <cstdint>

namespace shardwright {

// Of std::chrono::steady_clock, which no one sets.
inline int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace shardwright
