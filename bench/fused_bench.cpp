// Fused steps against their parts run one by one, with a barrier after each: the groups of a Llama
// layer at the sizes of SmolLM2-135M and TinyLlama-1.1B. Usage: fused_bench [threads [rounds [part
// of a group's name]]].
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/checked.h"
#include "base/team.h"
#include "kernels/cpu/gemm.h"
#include "ops/fused_text.h"

namespace shardwright::ops {
namespace {

constexpr int64_t kColdBytes = int64_t{64} << 20;  // of weights in turn, where rows are few

struct Bytes {
  explicit Bytes(int64_t size)
      : data(static_cast<std::byte*>(
            std::aligned_alloc(4096, static_cast<size_t>(round_up(size + 64, 4096))))) {
    // 0x3f80: bf16 1.0 twice, and an f32 just above 1.
    auto* words = reinterpret_cast<uint32_t*>(data);
    std::fill_n(words, (size + 64) / 4, 0x3f803f80U);
  }
  ~Bytes() { std::free(data); }
  Bytes(Bytes&& other) noexcept : data(std::exchange(other.data, nullptr)) {}
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;
  std::byte* data;
};

int64_t bytes_of(const OperandSpec& spec) {
  if (spec.layout != Layout::kPanels) return spec.type.bytes();
  return kernels::panel_bytes(kernels::panel_dtype(spec.type.dtype), spec.type.shape[0],
                              spec.type.shape[1]);
}

// A kernel with the places of its operands and results among the memory of the bench.
struct Call {
  std::unique_ptr<Kernel> kernel;
  std::vector<FusedValue> operands;
  std::vector<FusedValue> results;
};

class Bench {
 public:
  Bench(const std::string& text, int n_threads, bool cold) : case_(text, n_threads) {
    CHECK(why_not_fused(case_.spec).empty(), why_not_fused(case_.spec));
    int64_t weight_bytes = 1;
    for (const OperandSpec& spec : case_.operand_specs) weight_bytes += bytes_of(spec);
    const int64_t copies = cold ? std::clamp<int64_t>(kColdBytes / weight_bytes, 1, 64) : 1;
    for (int64_t copy = 0; copy < copies; ++copy) {
      operands_.emplace_back();
      for (const OperandSpec& spec : case_.operand_specs)
        operands_.back().emplace_back(bytes_of(spec));
    }
    for (const OperandSpec& spec : case_.result_specs) results_.emplace_back(spec.type.bytes());
    for (const int64_t bytes : case_.spec.scratch_bytes) scratch_values_.emplace_back(bytes);
    add_parts();
    Call call{.kernel = make_fused_kernel(case_.spec), .operands = {}, .results = {}};
    for (size_t i = 0; i < case_.operand_specs.size(); ++i)
      call.operands.push_back({.where = FusedValue::Where::kOperand,
                               .index = static_cast<int>(i),
                               .spec = case_.operand_specs[i]});
    for (size_t i = 0; i < case_.result_specs.size(); ++i)
      call.results.push_back({.where = FusedValue::Where::kResult,
                              .index = static_cast<int>(i),
                              .spec = case_.result_specs[i]});
    fused_.push_back(std::move(call));
    int64_t bytes = 0;
    for (const auto* calls : {&parts_, &fused_})
      for (const Call& one : *calls) bytes = std::max(bytes, one.kernel->scratch_bytes());
    scratch_.emplace_back(bytes);
  }

  // Best seconds of a step, of `rounds` in turn.
  void measure(Team& team, int rounds) {
    const int64_t calls = std::max<int64_t>(std::ssize(operands_), estimate(team));
    for (int round = 0; round < rounds; ++round) {
      parts_s = std::min(parts_s, seconds(team, parts_, calls));
      fused_s = std::min(fused_s, seconds(team, fused_, calls));
    }
  }

  double parts_s = 1e9;
  double fused_s = 1e9;

 private:
  // As the planner would, each part is a step.
  void add_parts() {
    for (const FusedPart& part : case_.spec.parts) {
      KernelSpec spec{.op = part.op,
                      .attrs = &part.attrs,
                      .operands = {},
                      .results = {},
                      .begins = {},
                      .n_threads = case_.spec.n_threads};
      for (const FusedValue& value : part.operands) {
        spec.operands.push_back(value.spec);
        spec.operands.back().present = value.where != FusedValue::Where::kAbsent;
      }
      for (const FusedValue& value : part.results) spec.results.push_back(value.spec);
      parts_.push_back({part.op->make_kernel(spec), part.operands, part.results});
    }
  }

  std::byte* place(const FusedValue& value, size_t copy) {
    const auto i = static_cast<size_t>(value.index);
    switch (value.where) {
      case FusedValue::Where::kOperand:
        return operands_[copy][i].data + value.offset_bytes;
      case FusedValue::Where::kResult:
        return results_[i].data + value.offset_bytes;
      case FusedValue::Where::kScratch:
        return scratch_values_[i].data + value.offset_bytes;
      default:
        return nullptr;
    }
  }

  double seconds(Team& team, const std::vector<Call>& calls, int64_t n) {
    const auto start = std::chrono::steady_clock::now();
    team.run([&](Member& member) {
      const void* operands[32];
      void* results[32];
      for (int64_t turn = 0; turn < n; ++turn)
        for (const Call& call : calls) {
          const auto copy = static_cast<size_t>(turn % std::ssize(operands_));
          for (size_t i = 0; i < call.operands.size(); ++i)
            operands[i] = place(call.operands[i], copy);
          for (size_t i = 0; i < call.results.size(); ++i)
            results[i] = place(call.results[i], copy);
          call.kernel->run(member, operands, results, scratch_[0].data);
          member.barrier();
        }
    });
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    return taken.count() / static_cast<double>(n);
  }

  int64_t estimate(Team& team) {  // calls that take about 5 ms
    seconds(team, parts_, 1);
    return std::clamp<int64_t>(static_cast<int64_t>(5e-3 / seconds(team, parts_, 1)), 1, 20'000);
  }

  FusedCase case_;
  std::vector<std::vector<Bytes>> operands_;  // of each copy
  std::vector<Bytes> results_, scratch_values_, scratch_;
  std::vector<Call> parts_, fused_;
};

struct Size {
  int64_t hidden, ffn, heads, kv_heads;
};

// The text of a group: M rows, H hidden, F of the FFN, Q and K columns of queries and keys, N
// heads.
std::string filled(std::string text, const char* dtype, int64_t m, const Size& size) {
  const std::pair<const char*, std::string> words[] = {{"$T", dtype},
                                                       {"$M", std::to_string(m)},
                                                       {"$H", std::to_string(size.hidden)},
                                                       {"$F", std::to_string(size.ffn)},
                                                       {"$Q", std::to_string(size.heads * 64)},
                                                       {"$K", std::to_string(size.kv_heads * 64)},
                                                       {"$N", std::to_string(size.heads)}};
  for (const auto& [word, value] : words)
    for (size_t at; (at = text.find(word)) != std::string::npos;) text.replace(at, 2, value);
  return text;
}

struct Group {
  const char* name;
  const char* text;
};
constexpr Group kGroups[] = {
    {"add, norm",
     "h = add(x: $T[1, $M, $H], r: $T[1, $M, $H]); y = rms_norm(h, w: $T[$H], eps=1e-05) -> h, y"},
    {"silu * up", "a = silu(x: $T[1, $M, $F]); y = mul(a, u: $T[1, $M, $F]) -> y"},
    {"rope",
     "q = ~permute(x: $T[1, $M, $N, 64], dims=[0, 2, 1, 3]); a = ~slice(q, dim=3, end=32); "
     "b = ~slice(q, dim=3, start=32); n = neg(b); r = cat(n, a, dim=-1); "
     "p = mul(q, cos: $T[1, 1, $M, 64]); s = mul(r, sin: $T[1, 1, $M, 64]); y = add(p, s) -> y"},
    {"norm, qkv",
     "n = rms_norm(x: $T[1, $M, $H], w: $T[$H], eps=1e-05); q = linear(n, a: panels $T[$Q, $H]); "
     "k = linear(n, b: panels $T[$K, $H]); v = linear(n, c: panels $T[$K, $H]) -> q, k, v"},
    {"o, add, norm",
     "o = linear(x: $T[1, $M, $Q], a: panels $T[$H, $Q]); h = add(r: $T[1, $M, $H], o); "
     "y = rms_norm(h, w: $T[$H], eps=1e-05) -> h, y"},
    {"gate * up",
     "g = linear(x: $T[1, $M, $H], a: panels $T[$F, $H]); u = linear(x, b: panels $T[$F, $H]); "
     "s = silu(g); y = mul(s, u) -> y"},
    {"down, add",
     "d = linear(x: $T[1, $M, $F], a: panels $T[$H, $F]); y = add(r: $T[1, $M, $H], d) -> y"},
};

void run(int n_threads, int rounds, const char* wanted) {
  Team team(n_threads, allowed_cpus());
  std::printf("us of a step fused, of its parts, and parts / fused; %d threads\n", n_threads);
  for (const char* dtype : {"f32", "bf16"})
    for (const Size& size : {Size{576, 1536, 9, 3}, Size{2048, 5632, 32, 4}})
      for (const Group& group : kGroups) {
        if (std::strstr(group.name, wanted) == nullptr) continue;
        std::printf("%-4s hidden %4ld %-13s", dtype, size.hidden, group.name);
        for (const int64_t m : {1, 16, 128, 512}) {
          Bench bench(filled(group.text, dtype, m, size), n_threads, m <= 16);
          bench.measure(team, rounds);
          std::printf("  M=%-3ld %8.1f %8.1f %5.2f", m, bench.fused_s * 1e6, bench.parts_s * 1e6,
                      bench.parts_s / bench.fused_s);
        }
        std::printf("\n");
      }
}

}  // namespace
}  // namespace shardwright::ops

int main(int argc, char** argv) {
  const int cpus = static_cast<int>(shardwright::allowed_cpus().size());
  shardwright::ops::run(argc > 1 ? std::atoi(argv[1]) : cpus, argc > 2 ? std::atoi(argv[2]) : 7,
                        argc > 3 ? argv[3] : "");
  return 0;
}
