// Arena layout: greedy by size.
#include "plan/arena.h"

#include <algorithm>
#include <numeric>

#include "base/checked.h"

namespace shardwright::plan {

ArenaLayout lay_out(const std::vector<Lifetime>& blocks) {
  ArenaLayout layout;
  layout.offsets.assign(blocks.size(), 0);
  std::vector<size_t> order(blocks.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return blocks[a].bytes > blocks[b].bytes; });
  std::vector<size_t> placed;  // by offset
  for (size_t i : order) {
    const int64_t bytes = round_up(blocks[i].bytes, kArenaAlignment);
    if (bytes == 0) continue;
    int64_t at = 0;
    for (size_t other : placed) {
      if (blocks[other].first > blocks[i].last || blocks[other].last < blocks[i].first) continue;
      if (layout.offsets[other] >= at + bytes) break;
      at = std::max(at, layout.offsets[other] + round_up(blocks[other].bytes, kArenaAlignment));
    }
    layout.offsets[i] = at;
    layout.bytes = std::max(layout.bytes, at + bytes);
    placed.insert(
        std::upper_bound(placed.begin(), placed.end(), i,
                         [&](size_t a, size_t b) { return layout.offsets[a] < layout.offsets[b]; }),
        i);
  }
  return layout;
}

}  // namespace shardwright::plan
