// CHECK: our own invariants. A failure is a bug of ours; it throws Error(kBug) with file and line.
#pragma once

#include <string>

namespace shardwright {

[[noreturn]] void check_failed(const char* file, int line, const char* condition,
                               const std::string& message = {});

}  // namespace shardwright

// CHECK(cond) or CHECK(cond, "text"). Always on. Never for wrong input: that is Error.
#define CHECK(condition, ...)                                                                 \
  do {                                                                                        \
    if (!(condition)) [[unlikely]]                                                            \
      ::shardwright::check_failed(__FILE__, __LINE__, #condition __VA_OPT__(, ) __VA_ARGS__); \
  } while (false)
