// Arena: which bytes of a chip's memory a value has while it lives.
#pragma once

#include <cstdint>
#include <vector>

namespace shardwright::plan {

inline constexpr int64_t kArenaAlignment = 64;  // bytes: a cache line, a zmm register

// A block of memory that is written first at step `first` and read last at step `last`.
struct Lifetime {
  int64_t bytes = 0;
  int first = 0;
  int last = 0;
};

struct ArenaLayout {
  std::vector<int64_t> offsets;  // of each block, multiples of kArenaAlignment
  int64_t bytes = 0;
};

// Blocks whose lifetimes meet (the last step of one may be the first of the other: they meet) never
// overlap. Largest first, each at the lowest place that is free.
ArenaLayout lay_out(const std::vector<Lifetime>& blocks);

}  // namespace shardwright::plan
