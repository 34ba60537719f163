// Memory of a chip's program: lifetimes, offsets, barriers.
#include "plan/arena.h"

#include <algorithm>
#include <numeric>

#include "base/checked.h"
#include "ops/exchange.h"
#include "pef/fused.h"

namespace shardwright::plan {
namespace {

constexpr int64_t kAlignBytes = 64;

template <typename Visit>
void for_buffers(std::vector<pef::Step>& steps, Visit visit) {
  for (size_t i = 0; i < steps.size(); ++i)
    for (auto* list : {&steps[i].operands, &steps[i].results})
      for (pef::Buffer& buffer : *list)
        if (buffer.space == pef::Space::kArena) visit(static_cast<int>(i), buffer);
}

// The lowest offset where `bytes` fit between the ranges in use.
int64_t lowest_gap(std::vector<Range> in_use, int64_t bytes) {
  std::sort(in_use.begin(), in_use.end(),
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
  int64_t offset = 0;
  for (const Range& range : in_use) {
    if (offset + bytes <= range.begin) break;
    offset = std::max(offset, round_up(range.end, kAlignBytes));
  }
  return offset;
}

// Large storages first: the small ones fill the gaps between them.
std::vector<int64_t> offsets_of(const std::vector<Storage>& storages, size_t chip) {
  std::vector<size_t> order;
  for (size_t i = 0; i < storages.size(); ++i)
    if (storages[i].first_step >= 0 && storages[i].bytes[chip] > 0) order.push_back(i);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return storages[a].bytes[chip] > storages[b].bytes[chip];
  });
  std::vector<int64_t> offsets(storages.size(), 0);
  for (size_t k = 0; k < order.size(); ++k) {
    const Storage& storage = storages[order[k]];
    std::vector<Range> in_use;
    for (size_t j = 0; j < k; ++j) {
      const Storage& other = storages[order[j]];
      if (other.first_step <= storage.last_step && storage.first_step <= other.last_step)
        in_use.push_back({offsets[order[j]], offsets[order[j]] + other.bytes[chip]});
    }
    offsets[order[k]] = lowest_gap(std::move(in_use), storage.bytes[chip]);
  }
  return offsets;
}

int64_t peak_transfer_bytes(const std::vector<Storage>& storages, size_t chip, size_t n_steps) {
  std::vector<int64_t> change(n_steps + 1, 0);
  for (const Storage& storage : storages) {
    if (!storage.exchanged || storage.first_step < 0) continue;
    change[static_cast<size_t>(storage.first_step)] += storage.bytes[chip];
    change[static_cast<size_t>(storage.last_step) + 1] -= storage.bytes[chip];
  }
  int64_t now = 0;
  int64_t peak = 0;
  for (int64_t bytes : change) peak = std::max(peak, now += bytes);
  return peak;
}

struct Access {
  pef::Space space;
  int index;
  Range bytes;
};

std::vector<Access> accesses(const std::vector<pef::Buffer>& buffers) {
  std::vector<Access> result;
  for (const pef::Buffer& buffer : buffers)
    // Inputs are never written.
    if (buffer.space != pef::Space::kNone && buffer.space != pef::Space::kInput)
      result.push_back({buffer.space, buffer.index, pef::byte_range(buffer)});
  return result;
}

bool meet(const std::vector<Access>& some, const std::vector<Access>& others) {
  for (const Access& a : some)
    for (const Access& b : others)
      if (a.space == b.space && a.index == b.index &&
          std::max(a.bytes.begin, b.bytes.begin) < std::min(a.bytes.end, b.bytes.end))
        return true;
  return false;
}

int storage_of(const pef::Buffer& buffer) {
  return buffer.space == pef::Space::kArena ? buffer.index : -1;
}

// Result `r` of step `i` may lie in `memory`, on this chip: no other result does, and whatever the
// step reads there it reads in place.
bool fits_in(int memory, const pef::Step& step, size_t r) {
  for (const pef::Buffer& result : step.results)
    if (storage_of(result) == memory) return false;
  for (size_t o = 0; o < step.operands.size(); ++o)
    if (storage_of(step.operands[o]) == memory && !pef::may_share(step, o, r)) return false;
  return true;
}

// The memory of an operand of step `i` that its result `r` can take, or -1.
int memory_for(const std::vector<std::vector<pef::Step>>& steps,
               const std::vector<Storage>& storages, size_t i, size_t r) {
  const auto now = static_cast<int>(i);
  const int fresh = storage_of(steps[0][i].results[r]);
  if (fresh < 0 || storages[static_cast<size_t>(fresh)].first_step != now) return -1;
  for (const pef::Buffer& operand : steps[0][i].operands) {
    const int memory = storage_of(operand);
    if (memory < 0) continue;
    const Storage& storage = storages[static_cast<size_t>(memory)];
    if (storage.last_step != now || storage.bytes != storages[static_cast<size_t>(fresh)].bytes)
      continue;
    if (std::all_of(steps.begin(), steps.end(), [&](const std::vector<pef::Step>& chip) {
          return r < chip[i].results.size() && storage_of(chip[i].results[r]) == fresh &&
                 std::any_of(chip[i].operands.begin(), chip[i].operands.end(),
                             [&](const pef::Buffer& b) { return storage_of(b) == memory; }) &&
                 fits_in(memory, chip[i], r);
        }))
      return memory;
  }
  return -1;
}

// Exchanges that meet together read and write at once; any other step is alone.
struct Meeting {
  int first = 0;
  int last = 0;
};

std::vector<Meeting> meetings_of(const std::vector<pef::Step>& steps) {
  std::vector<Meeting> meetings;
  for (size_t i = 0; i < steps.size(); ++i) {
    const int step = static_cast<int>(i);
    meetings.push_back({step, step});
    if (i == 0 || !steps[i].attrs.boolean("with_previous", false)) continue;
    meetings[i].first = meetings[i - 1].first;
    for (int j = meetings[i].first; j < step; ++j) meetings[static_cast<size_t>(j)].last = step;
  }
  return meetings;
}

}  // namespace

void share_in_place(std::vector<std::vector<pef::Step>>& steps, std::vector<Storage>& storages) {
  for (size_t i = 0; i < steps[0].size(); ++i)
    for (size_t r = 0; r < steps[0][i].results.size(); ++r) {
      const int memory = memory_for(steps, storages, i, r);
      if (memory < 0) continue;
      const int fresh = steps[0][i].results[r].index;
      Storage& taken = storages[static_cast<size_t>(memory)];
      Storage& gone = storages[static_cast<size_t>(fresh)];
      taken.last_step = gone.last_step;
      taken.exchanged |= gone.exchanged;
      for (auto& chip : steps)
        for (auto step = static_cast<int>(i); step <= gone.last_step; ++step)
          for (auto* buffers : {&chip[static_cast<size_t>(step)].operands,
                                &chip[static_cast<size_t>(step)].results})
            for (pef::Buffer& buffer : *buffers)
              if (storage_of(buffer) == fresh) buffer.index = memory;
      gone.first_step = gone.last_step = -1;
    }
}

void find_lifetimes(const std::vector<pef::Step>& steps, std::vector<Storage>& storages) {
  const std::vector<Meeting> meetings = meetings_of(steps);
  for (size_t i = 0; i < steps.size(); ++i)
    for (const auto* list : {&steps[i].operands, &steps[i].results})
      for (const pef::Buffer& buffer : *list) {
        if (buffer.space != pef::Space::kArena) continue;
        Storage& storage = storages[static_cast<size_t>(buffer.index)];
        if (storage.first_step < 0) storage.first_step = meetings[i].first;
        storage.last_step = std::max(storage.last_step, meetings[i].last);
        storage.exchanged |= steps[i].op == ops::exchange.name;
      }
}

ArenaUse place_storages(const std::vector<Storage>& storages, size_t chip,
                        std::vector<pef::Step>& steps) {
  const std::vector<int64_t> offsets = offsets_of(storages, chip);
  ArenaUse use;
  for (size_t i = 0; i < storages.size(); ++i)
    if (storages[i].first_step >= 0)
      use.arena_bytes = std::max(use.arena_bytes, offsets[i] + storages[i].bytes[chip]);
  use.arena_bytes = round_up(use.arena_bytes, kAlignBytes);
  use.transfer_bytes = peak_transfer_bytes(storages, chip, steps.size());
  for_buffers(steps, [&](int, pef::Buffer& buffer) {
    buffer.offset_bytes += offsets[static_cast<size_t>(buffer.index)];
    buffer.index = -1;
  });
  return use;
}

void drop_barriers(std::vector<pef::Step>& steps) {
  std::vector<Access> reads;
  std::vector<Access> writes;
  for (pef::Step& step : steps) {
    const std::vector<Access> step_reads = accesses(step.operands);
    const std::vector<Access> step_writes = accesses(step.results);
    step.barrier_before =
        meet(step_reads, writes) || meet(step_writes, writes) || meet(step_writes, reads);
    if (step.barrier_before) {
      reads.clear();
      writes.clear();
    }
    reads.insert(reads.end(), step_reads.begin(), step_reads.end());
    writes.insert(writes.end(), step_writes.begin(), step_writes.end());
  }
}

}  // namespace shardwright::plan
