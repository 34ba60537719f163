// What this machine can do at most, measured: peaks of multiply-adds, and a plain read loop.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <functional>

#include "base/checked.h"
#include "base/team.h"
#include "kernels/cpu/isa.h"

namespace shardwright::kernels {

// Memory in huge pages where the system gives them, as the runtime's arenas are.
class Memory {
 public:
  explicit Memory(int64_t bytes) : bytes_(static_cast<size_t>(round_up(bytes, 2 << 20))) {
    data_ = std::aligned_alloc(2 << 20, bytes_);
    madvise(data_, bytes_, MADV_HUGEPAGE);
    auto* words = static_cast<uint32_t*>(data_);
    // 0x3f80: bf16 1.0 twice, and an f32 just above 1. No denormals, no infinities.
    for (size_t i = 0; i < bytes_ / 4; ++i) words[i] = 0x3f803f80;
  }
  ~Memory() { std::free(data_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  int64_t bytes() const { return static_cast<int64_t>(bytes_); }
  char* data() { return static_cast<char*>(data_); }

 private:
  size_t bytes_;
  void* data_;
};

inline double seconds_of(const std::function<void()>& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Each turn of these loops is 12 independent sums; in assembler, so that this file is compiled for
// any processor and no compiler spoils the measure.
constexpr int64_t kSumsInPeakLoop = 12;
inline void fma_256(int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    asm volatile(
        ".irp r,0,1,2,3,4,5,6,7,8,9,10,11\n vfmadd231ps %%ymm12, %%ymm12, %%ymm\\r\n .endr" ::
            : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
              "xmm10", "xmm11");
}
inline void fma_512(int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    asm volatile(
        ".irp r,0,1,2,3,4,5,6,7,8,9,10,11\n vfmadd231ps %%zmm12, %%zmm12, %%zmm\\r\n .endr" ::
            : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
              "xmm10", "xmm11");
}
inline void dot_512(int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    asm volatile(
        ".irp r,0,1,2,3,4,5,6,7,8,9,10,11\n vdpbf16ps %%zmm12, %%zmm12, %%zmm\\r\n .endr" ::
            : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
              "xmm10", "xmm11");
}
inline void dot_int8_512(int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    asm volatile(".irp r,0,1,2,3,4,5,6,7,8,9,10,11\n vpdpbusd %%zmm12, %%zmm12, %%zmm\\r\n .endr" ::
                     : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
                       "xmm9", "xmm10", "xmm11");
}
inline void zero_upper_lanes() {  // and all lanes: the loops above must not meet NaN or denormals
  asm volatile("vzeroall" ::
                   : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
                     "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}

// GF/s of the team in a peak loop whose turns have `flops_per_turn`.
inline double peak_gflops(Team& team, void (*loop)(int64_t), int64_t flops_per_turn) {
  constexpr int64_t kTurns = 100'000;
  const double s = seconds_of([&] {
    team.run([&](Member&) {
      zero_upper_lanes();
      loop(kTurns);
      zero_upper_lanes();
    });
  });
  return static_cast<double>(team.n_threads() * kTurns * flops_per_turn) / s * 1e-9;
}

struct Limits {
  double f32_gflops = 0;
  double bf16_gflops = 0;  // the better of FMA and dot
  double int8_gflops = 0;  // the best of FMA and both dots: multiply and add count as 2
  double read_gbytes = 0;

  void raise(const Limits& other) {
    f32_gflops = std::max(f32_gflops, other.f32_gflops);
    bf16_gflops = std::max(bf16_gflops, other.bf16_gflops);
    int8_gflops = std::max(int8_gflops, other.int8_gflops);
    read_gbytes = std::max(read_gbytes, other.read_gbytes);
  }
};

inline uint64_t read_all(const uint64_t* words, int64_t n) {
  uint64_t sums[16] = {};
  for (int64_t i = 0; i + 16 <= n; i += 16)
    for (int64_t j = 0; j < 16; ++j) sums[j] += words[i + j];
  uint64_t sum = 0;
  for (const uint64_t part : sums) sum += part;
  return sum;
}

// One try; `cold` is what is read: much more than the L3 cache holds.
inline Limits measure_limits(Team& team, Memory& cold) {
  Limits limits;
  if (active_isa() >= Isa::kAvx512)
    limits.f32_gflops = peak_gflops(team, fma_512, kSumsInPeakLoop * 32);
  else if (active_isa() == Isa::kAvx2)
    limits.f32_gflops = peak_gflops(team, fma_256, kSumsInPeakLoop * 16);
  limits.bf16_gflops = limits.f32_gflops;
  if (active_isa() == Isa::kAvx512Bf16)
    limits.bf16_gflops =
        std::max(limits.bf16_gflops, peak_gflops(team, dot_512, kSumsInPeakLoop * 64));
  limits.int8_gflops = limits.bf16_gflops;
  if (active_isa() >= Isa::kAvx512 && __builtin_cpu_supports("avx512vnni"))
    limits.int8_gflops =
        std::max(limits.int8_gflops, peak_gflops(team, dot_int8_512, kSumsInPeakLoop * 128));
  std::atomic<uint64_t> sink{0};
  const double s = seconds_of([&] {
    team.run([&](Member& member) {
      const Range mine = member.share(cold.bytes() / 8, 512);
      sink += read_all(reinterpret_cast<uint64_t*>(cold.data()) + mine.begin, mine.size());
    });
  });
  limits.read_gbytes = static_cast<double>(cold.bytes()) / s * 1e-9;
  return limits;
}

}  // namespace shardwright::kernels
