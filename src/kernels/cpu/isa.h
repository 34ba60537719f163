// Which instruction set the kernels use: the best one that CPU and system have, or a forced one.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

namespace shardwright::kernels {

// In rising order; each contains those before it; the last has the dot instructions of bf16 and
// (VNNI) of bytes. The numbers are SHARDWRIGHT_ISA_LEVEL.
enum class Isa : int { kPortable = 0, kAvx2 = 1, kAvx512 = 2, kAvx512Bf16 = 3 };
inline constexpr int kIsaCount = 4;

// "portable", "avx2", "avx512", "avx512bf16".
std::string_view isa_name(Isa isa);
// What this machine can run, in rising order; the first is always kPortable.
std::vector<Isa> available_isas();
// The forced one if any, else the environment's SHARDWRIGHT_ISA, else the best available.
// Throws Error(kUsage) if the environment names one that is unknown or that this machine lacks.
Isa active_isa();
// For tests: from now on active_isa() gives `isa`, which must be available; nullopt ends it.
void force_isa(std::optional<Isa> isa);

}  // namespace shardwright::kernels
