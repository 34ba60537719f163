// Overflow-checked arithmetic on sizes that come from files. Throws Error(kBrokenFile).
#pragma once

#include <cstdint>
#include <string>

#include "base/error.h"

namespace shardwright {

inline int64_t checked_mul(int64_t a, int64_t b) {
  int64_t result = 0;
  if (__builtin_mul_overflow(a, b, &result))
    throw Error(ErrorCode::kBrokenFile,
                "a size overflows 64 bits: " + std::to_string(a) + " x " + std::to_string(b));
  return result;
}

inline int64_t checked_add(int64_t a, int64_t b) {
  int64_t result = 0;
  if (__builtin_add_overflow(a, b, &result))
    throw Error(ErrorCode::kBrokenFile,
                "a size overflows 64 bits: " + std::to_string(a) + " + " + std::to_string(b));
  return result;
}

// True if [offset, offset + length) lies within [0, size). All in bytes, none negative.
inline bool range_fits(uint64_t offset, uint64_t length, uint64_t size) {
  return length <= size && offset <= size - length;
}

inline int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace shardwright
