// The state of a value over the chips, and the conversions between states (design: sharding.md).
#pragma once

#include <string>
#include <vector>

#include "base/team.h"
#include "ops/exchange.h"

namespace shardwright::shard {

enum class StateKind : uint8_t { kWhole, kPartialSum, kPartialMax, kSplit };
enum class Variant : uint8_t { kSame, kSum, kOwn };  // of a split; differ only where cuts overlap

struct State {
  StateKind kind = StateKind::kWhole;
  int dim = -1;                      // of a split
  Variant variant = Variant::kSame;  // of a split

  bool operator==(const State&) const = default;
  auto operator<=>(const State&) const = default;
};

inline constexpr State kWhole{};
inline State split(int dim, Variant variant = Variant::kSame) {
  return {StateKind::kSplit, dim, variant};
}
inline constexpr State kPartialSum{StateKind::kPartialSum, -1, Variant::kSame};
inline constexpr State kPartialMax{StateKind::kPartialMax, -1, Variant::kSame};

std::string to_string(const State& state);  // "whole", "partial(sum)", "split(1)", "split(1, sum)"

using Cuts = std::vector<Range>;  // one a chip; uneven, empty or overlapping

bool overlaps(const Cuts& cuts);
Cuts own_cuts(const Cuts& cuts);  // each row to the first chip that has it

}  // namespace shardwright::shard
