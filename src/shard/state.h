// The state of a value over the chips, and the conversions between states (design: sharding.md).
#pragma once

#include <string>
#include <vector>

#include "base/team.h"
#include "ops/exchange.h"

namespace shardwright::shard {

enum class StateKind : uint8_t { kWhole, kPartialSum, kPartialMax, kSplit };
// Of a split. The first three have the cuts of the dimension's colour and differ only where these
// overlap; without overlap every such split is kSame.
//   same  where cuts overlap the copies are equal
//   sum   a row's value is the sum over the chips that hold it
//   own   a row belongs to the first chip that has it
//   even  the rows of this dimension spread evenly, whatever its colour says: 9 heads of 64 rows
//         over 2 chips are 288 + 288 rows, not 5 + 4 heads
enum class Variant : uint8_t { kSame, kSum, kOwn, kEven };

struct State {
  StateKind kind = StateKind::kWhole;
  int dim = -1;                      // of a split
  Variant variant = Variant::kSame;  // of a split

  bool is_split() const { return kind == StateKind::kSplit; }
  bool is_partial() const {
    return kind == StateKind::kPartialSum || kind == StateKind::kPartialMax;
  }
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
// `size` rows over n chips, in multiples of the rows of a gemm's panel where there are enough.
Cuts even_cuts(int64_t size, int n);
int count_pieces(const Cuts& cuts);  // that are not empty
int64_t largest_piece(const Cuts& cuts);

// How a value goes from one state to another: at most one exchange, to the state `reached`, and
// then steps on each chip alone. Total: any state can become any other.
enum class Transfer : uint8_t {
  kNone,
  kAllReduce,
  kReduceScatter,
  kAllGather,
  kAllToAll,
  kOverlapReduce,
  kRebalance  // the same dimension, cut elsewhere
};
struct Conversion {
  Transfer transfer = Transfer::kNone;
  State reached;
};
Conversion conversion(const State& from, const State& to);
// True if no chip needs anything of another: slices, zero padding, "keep on chip 0".
bool converts_locally(const State& from, const State& to);
const char* transfer_name(Transfer transfer);  // "all_reduce", ...

}  // namespace shardwright::shard
