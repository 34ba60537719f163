// Memory of a chip's program: lifetimes, offsets, barriers.
#include "plan/arena.h"

#include <algorithm>
#include <numeric>

#include "base/checked.h"
#include "ops/exchange.h"

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
