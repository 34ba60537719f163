// Detection of the instruction set: CPUID and what the system saves (libgcc checks XCR0).
#include "kernels/cpu/isa.h"

#include <atomic>
#include <cstdlib>
#include <string>

#include "base/check.h"
#include "base/error.h"

namespace shardwright::kernels {
namespace {

constexpr std::string_view kNames[kIsaCount] = {"portable", "avx2", "avx512", "avx512bf16"};
constexpr int kNotForced = -1;
std::atomic<int> forced_isa{kNotForced};

Isa best_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi2");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq");
  // Every processor with the one has the other.
  if (avx512 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni"))
    return Isa::kAvx512Bf16;
  if (avx512) return Isa::kAvx512;
  if (avx2) return Isa::kAvx2;
#endif
  return Isa::kPortable;
}

Isa isa_from_environment() {
  const char* wanted = std::getenv("SHARDWRIGHT_ISA");
  if (wanted == nullptr || *wanted == '\0') return best_isa();
  std::string names;
  for (const Isa isa : available_isas()) {
    if (isa_name(isa) == wanted) return isa;
    names += (names.empty() ? "" : ", ") + std::string(isa_name(isa));
  }
  throw Error(ErrorCode::kUsage,
              "SHARDWRIGHT_ISA=" + std::string(wanted) +
                  " is not an instruction set of this machine; it has: " + names);
}

}  // namespace

std::string_view isa_name(Isa isa) { return kNames[static_cast<int>(isa)]; }

std::vector<Isa> available_isas() {
  std::vector<Isa> isas;
  const int best = static_cast<int>(best_isa());
  for (int level = 0; level <= best; ++level) isas.push_back(static_cast<Isa>(level));
  return isas;
}

Isa active_isa() {
  const int forced = forced_isa.load(std::memory_order_relaxed);
  if (forced != kNotForced) return static_cast<Isa>(forced);
  static const Isa chosen = isa_from_environment();
  return chosen;
}

void force_isa(std::optional<Isa> isa) {
  CHECK(!isa || *isa <= best_isa(), "this machine can't run a forced instruction set");
  forced_isa.store(isa ? static_cast<int>(*isa) : kNotForced, std::memory_order_relaxed);
}

}  // namespace shardwright::kernels
