// The machine that the cost model counts with. All rates per chip.
#pragma once

#include <cstdint>
#include <string>

namespace shardwright::shard {

struct Machine {
  std::string name = "threads";
  double flops_per_s = 150e9;
  double bytes_per_s = 12e9;       // of memory
  double link_bytes_per_s = 10e9;  // between two chips
  double link_latency_s = 2e-6;
  int64_t memory_bytes = 0;  // of a chip; 0: no limit
};

}  // namespace shardwright::shard
