// Speed of gemm against limits of this machine that are measured in the same rounds: the peak of
// f32 FMA and of the bf16 dot instruction for large M, a plain read loop over cold weights for
// M = 1 and 4. Usage: gemm_bench [threads [rounds]].
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <vector>

#include "base/checked.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/isa.h"

namespace shardwright::kernels {
namespace {

constexpr int64_t kColdBytes = int64_t{256} << 20;  // of weights in turn: several times an L3 cache

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
  char* data() { return static_cast<char*>(data_); }

 private:
  size_t bytes_;
  void* data_;
};

double seconds_of(const std::function<void()>& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Each turn of these loops is 12 independent sums; in assembler, so that this file is compiled for
// any processor and no compiler spoils the measure.
constexpr int64_t kSumsInPeakLoop = 12;
void fma_256(int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    asm volatile(
        ".irp r,0,1,2,3,4,5,6,7,8,9,10,11\n vfmadd231ps %%ymm12, %%ymm12, %%ymm\\r\n .endr" ::
            : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
              "xmm10", "xmm11");
}
void fma_512(int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    asm volatile(
        ".irp r,0,1,2,3,4,5,6,7,8,9,10,11\n vfmadd231ps %%zmm12, %%zmm12, %%zmm\\r\n .endr" ::
            : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
              "xmm10", "xmm11");
}
void dot_512(int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    asm volatile(
        ".irp r,0,1,2,3,4,5,6,7,8,9,10,11\n vdpbf16ps %%zmm12, %%zmm12, %%zmm\\r\n .endr" ::
            : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
              "xmm10", "xmm11");
}
void zero_upper_lanes() {  // and all lanes: the loops above must not meet NaN or denormals
  asm volatile("vzeroall" ::
                   : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
                     "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}

// GF/s of the team in a peak loop whose turns have `flops_per_turn`.
double peak_gflops(Team& team, void (*loop)(int64_t), int64_t flops_per_turn) {
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
  double read_gbytes = 0;

  void raise(const Limits& other) {
    f32_gflops = std::max(f32_gflops, other.f32_gflops);
    bf16_gflops = std::max(bf16_gflops, other.bf16_gflops);
    read_gbytes = std::max(read_gbytes, other.read_gbytes);
  }
};

uint64_t read_all(const uint64_t* words, int64_t n) {
  uint64_t sums[16] = {};
  for (int64_t i = 0; i + 16 <= n; i += 16)
    for (int64_t j = 0; j < 16; ++j) sums[j] += words[i + j];
  uint64_t sum = 0;
  for (const uint64_t part : sums) sum += part;
  return sum;
}

Limits measure_limits(Team& team, Memory& cold) {
  Limits limits;
  if (active_isa() >= Isa::kAvx512)
    limits.f32_gflops = peak_gflops(team, fma_512, kSumsInPeakLoop * 32);
  else if (active_isa() == Isa::kAvx2)
    limits.f32_gflops = peak_gflops(team, fma_256, kSumsInPeakLoop * 16);
  limits.bf16_gflops = limits.f32_gflops;
  if (active_isa() == Isa::kAvx512Bf16)
    limits.bf16_gflops =
        std::max(limits.bf16_gflops, peak_gflops(team, dot_512, kSumsInPeakLoop * 64));
  std::atomic<uint64_t> sink{0};
  const double s = seconds_of([&] {
    team.run([&](Member& member) {
      const Range mine = member.share(kColdBytes / 8, 512);
      sink += read_all(reinterpret_cast<uint64_t*>(cold.data()) + mine.begin, mine.size());
    });
  });
  limits.read_gbytes = static_cast<double>(kColdBytes) / s * 1e-9;
  return limits;
}

// One shape: weights in turn from a cold rotation, activations reused.
struct Case {
  DType dtype;
  int64_t m, n, k;
  double best_s = 1e9;  // of one gemm
  Limits limits = {};   // in the rounds of this case

  void measure(Team& team, Memory& cold, Memory& activations) {
    limits.raise(measure_limits(team, cold));
    const int64_t bytes = round_up(panel_bytes(dtype, n, k), 4096);
    const int64_t copies = std::max<int64_t>(1, kColdBytes / bytes);
    // Whole rotations for small m, where the weights must be cold; else about 30 ms.
    const int64_t enough = ceil_div(3'000'000'000, m * n * k);
    const int64_t calls = m <= 16 ? copies : std::clamp<int64_t>(enough, 2, copies);
    char* x = activations.data();
    char* y = x + round_up(m * k * 4, 4096);
    char* scratch = y + round_up(m * n * 4, 4096);
    std::vector<double> seconds(static_cast<size_t>(calls));
    team.run([&](Member& member) {
      for (int64_t i = 0; i < calls; ++i) {
        const double call_s = seconds_of([&] {
          gemm(member, {.m = m,
                        .n = n,
                        .k = k,
                        .x = x,
                        .x_dtype = dtype,
                        .x_row_stride = k,
                        .panels = cold.data() + i * bytes,
                        .panels_dtype = dtype,
                        .y = y,
                        .y_dtype = dtype,
                        .y_row_stride = n,
                        .scratch = scratch});
          member.barrier();
        });
        if (member.thread() == 0) seconds[static_cast<size_t>(i)] = call_s;
      }
    });
    // Single calls show the best that the processor does beside other load; but only the mean of a
    // whole rotation shows the memory's speed, for caches keep part of it.
    const double total_s = std::accumulate(seconds.begin(), seconds.end(), 0.0);
    best_s = std::min(best_s, m <= 16 ? total_s / static_cast<double>(calls)
                                      : *std::min_element(seconds.begin(), seconds.end()));
  }

  void print() const {
    const double gflops = 2e-9 * static_cast<double>(m * n * k) / best_s;
    const double gbytes = 1e-9 * static_cast<double>(panel_bytes(dtype, n, k)) / best_s;
    const double peak = dtype == DType::kF32 ? limits.f32_gflops : limits.bf16_gflops;
    std::printf(
        "%-5s %4ld x %5ld x %4ld  %9.1f us  %6.1f GF/s (%.2f of peak)  %5.1f GB/s (%.2f of read)\n",
        dtype_name(dtype).data(), m, n, k, best_s * 1e6, gflops, gflops / peak, gbytes,
        gbytes / limits.read_gbytes);
  }
};

void run(int n_threads, int rounds) {
  Team team(n_threads, allowed_cpus());
  Memory cold(kColdBytes);
  Memory activations(int64_t{512} << 20);
  std::vector<Case> cases;
  constexpr int64_t kShapes[][2] = {{576, 576},  {192, 576},   {1536, 576},
                                    {576, 1536}, {49152, 576}, {2048, 2048}};
  for (const DType dtype : {DType::kF32, DType::kBF16})
    for (const auto& [n, k] : kShapes)
      for (const int64_t m : {1, 4, 16, 128, 512})
        if (m * n < 10'000'000) cases.push_back({.dtype = dtype, .m = m, .n = n, .k = k});
  for (int round = 0; round < rounds; ++round)
    for (Case& c : cases) c.measure(team, cold, activations);
  Limits limits;
  for (const Case& c : cases) limits.raise(c.limits);
  std::printf("%s, %d threads: f32 peak %.0f GF/s, bf16 peak %.0f GF/s, read %.1f GB/s\n",
              isa_name(active_isa()).data(), n_threads, limits.f32_gflops, limits.bf16_gflops,
              limits.read_gbytes);
  for (const Case& c : cases) c.print();
}

}  // namespace
}  // namespace shardwright::kernels

int main(int argc, char** argv) {
  const int cpus = static_cast<int>(shardwright::allowed_cpus().size());
  shardwright::kernels::run(argc > 1 ? std::atoi(argv[1]) : cpus,
                            argc > 2 ? std::atoi(argv[2]) : 3);
  return 0;
}
