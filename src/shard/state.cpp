// States and the table of conversions between them.
#include "shard/state.h"

#include <algorithm>

#include "base/check.h"
#include "base/checked.h"

namespace shardwright::shard {

std::string to_string(const State& state) {
  switch (state.kind) {
    case StateKind::kWhole:
      return "whole";
    case StateKind::kPartialSum:
      return "partial(sum)";
    case StateKind::kPartialMax:
      return "partial(max)";
    case StateKind::kSplit:
      break;
  }
  constexpr const char* kNames[] = {"", ", sum", ", own", ", even"};
  return "split(" + std::to_string(state.dim) + kNames[static_cast<int>(state.variant)] + ")";
}

// Cuts begin in chip order, so a piece can only overlap what earlier chips have reached.
bool overlaps(const Cuts& cuts) {
  int64_t reached = 0;
  for (const Range& cut : cuts) {
    if (cut.begin < cut.end && cut.begin < reached) return true;
    reached = std::max(reached, cut.end);
  }
  return false;
}

Cuts own_cuts(const Cuts& cuts) {
  Cuts own;
  own.reserve(cuts.size());
  int64_t reached = 0;
  for (const Range& cut : cuts) {
    const int64_t begin = std::min(std::max(cut.begin, reached), std::max(cut.end, cut.begin));
    own.push_back({begin, std::max(begin, cut.end)});
    reached = std::max(reached, cut.end);
  }
  return own;
}

Cuts even_cuts(int64_t size, int n) {
  constexpr int64_t kPanelRows = 32;
  const int64_t unit = size >= kPanelRows * n ? kPanelRows : 1;
  const int64_t units = ceil_div(size, unit);
  Cuts cuts;
  for (int64_t i = 0, begin = 0; i < n; ++i) {
    const int64_t end = std::min(size, begin + (units / n + (i < units % n ? 1 : 0)) * unit);
    cuts.push_back({begin, end});
    begin = end;
  }
  return cuts;
}

int count_pieces(const Cuts& cuts) {
  return static_cast<int>(
      std::count_if(cuts.begin(), cuts.end(), [](const Range& r) { return r.end > r.begin; }));
}

int64_t largest_piece(const Cuts& cuts) {
  int64_t largest = 0;
  for (const Range& cut : cuts) largest = std::max(largest, cut.end - cut.begin);
  return largest;
}

bool converts_locally(const State& from, const State& to) {
  if (from == to || from.kind == StateKind::kWhole) return true;
  if (!from.is_split()) return false;
  if (to.kind == StateKind::kPartialSum) return true;
  if (!to.is_split() || to.dim != from.dim) return false;
  if (from.variant == Variant::kEven || to.variant == Variant::kEven) return false;
  if (from.variant == Variant::kSame) return true;
  return from.variant == Variant::kOwn && to.variant == Variant::kSum;
}

Conversion conversion(const State& from, const State& to) {
  if (converts_locally(from, to)) return {Transfer::kNone, from};
  // What is no target of an exchange is made from the whole value, or from owned rows.
  State reached = to;
  const bool same_dim = from.is_split() && to.is_split() && from.dim == to.dim;
  const bool even = same_dim && (from.variant == Variant::kEven || to.variant == Variant::kEven);
  if (to.is_partial() || (same_dim && from.variant == Variant::kOwn && !even))
    reached = kWhole;
  else if (to.is_split() && to.variant == Variant::kSum)
    reached.variant = Variant::kOwn;

  if (from.is_partial())
    return {reached.is_split() ? Transfer::kReduceScatter : Transfer::kAllReduce, reached};
  if (!reached.is_split()) return {Transfer::kAllGather, reached};
  if (even) return {Transfer::kRebalance, reached};
  return {same_dim ? Transfer::kOverlapReduce : Transfer::kAllToAll, reached};
}

const char* transfer_name(Transfer transfer) {
  constexpr const char* kNames[] = {"",           "all_reduce",     "reduce_scatter", "all_gather",
                                    "all_to_all", "overlap_reduce", "rebalance"};
  return kNames[static_cast<int>(transfer)];
}

}  // namespace shardwright::shard
