// Chips in one process. An exchange: publish the own piece, wait until all have, combine what
// others published, wait until all are done.
#include "comm/threads.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <vector>

#include <fmt/format.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/patience.h"
#include "comm/region.h"

namespace shardwright::comm {
namespace {

constexpr uint32_t kAbortBit = 0x8000'0000U;

struct Prepared : PreparedExchange {
  std::string what;          // for messages: "all_reduce of model.layers.3.mlp.down_proj"
  uint64_t fingerprint = 0;  // of kind, shape, dtype: equal on all chips
  ops::Combine combine = ops::Combine::kCopy;
  DType dtype = DType::kF32;
  int64_t count = 0;  // elements of the target
  bool two_shot = false;
  std::vector<Region> regions;
};

const Prepared& prepared_of(const Transfer& transfer) {
  return static_cast<const Prepared&>(*transfer.exchange);
}

uint64_t fingerprint_of(const ops::Exchange& e, DType dtype) {
  uint64_t hash = 1469598103934665603ULL;  // FNV-1a
  const auto mix = [&hash](int64_t v) {
    hash = (hash ^ static_cast<uint64_t>(v)) * 1099511628211ULL;
  };
  for (char c : e.kind) mix(c);
  mix(static_cast<int64_t>(e.combine));
  mix(static_cast<int64_t>(dtype));
  mix(e.from_dim);
  mix(e.to_dim);
  for (int64_t size : e.shape) mix(size);
  for (const Range& cut : e.from_cuts) mix(cut.begin), mix(cut.end);
  for (const Range& cut : e.to_cuts) mix(cut.begin), mix(cut.end);
  return hash;
}

}  // namespace

struct ThreadWorld::Shared {
  // What a chip shows to the others. `epoch` counts its meetings; the top bit says that the run was
  // aborted.
  struct alignas(64) Slot {
    WaitWord epoch;
    std::atomic<const Transfer*> transfers{nullptr};  // until the chip's run returns
    std::atomic<const Prepared*> first{nullptr};      // of them, for messages: stays
    std::atomic<uint64_t> stamp{0};
    // Of the chip's thread 0.
    uint32_t meetings = 0;
    uint64_t sequence = 0;
  };

  Shared(int n, int64_t deadline)
      : slots(static_cast<size_t>(n)), deadline_ns(deadline * 1'000'000) {}

  void abort(Failure f) {
    {
      const std::lock_guard lock(mutex);
      if (!failure) failure = std::move(f);
    }
    aborted.store(true, std::memory_order_release);
    for (Slot& slot : slots) slot.epoch.store_and_wake(slot.epoch.load() | kAbortBit);
  }

  std::vector<Slot> slots;
  int64_t deadline_ns;
  std::atomic<bool> aborted{false};
  mutable std::mutex mutex;  // of failure
  std::optional<Failure> failure;
};

namespace {

class ThreadCommunicator : public Communicator {
 public:
  ThreadCommunicator(ThreadWorld::Shared& shared, int chip)
      : shared_(shared), chip_(chip), slot_(shared.slots[static_cast<size_t>(chip)]) {}

  int chip() const override { return chip_; }
  int n_chips() const override { return static_cast<int>(shared_.slots.size()); }
  std::unique_ptr<PreparedExchange> prepare(const ops::Exchange& exchange, DType dtype,
                                            std::string what) override;
  bool run(Member& member, std::span<const Transfer> transfers, int64_t& waited_ns) override;
  bool barrier(Member& member) override;
  void abort(Failure failure) override { shared_.abort(std::move(failure)); }
  bool aborted() const override { return shared_.aborted.load(std::memory_order_acquire); }

 private:
  // Thread 0 shows that this chip is here and waits for all others; then the team meets. The same
  // answer on all threads.
  bool meet(Member& member, const std::string& what, int64_t& waited_ns);
  bool wait_for_all(const std::string& what);
  bool stamps_agree();
  const Transfer& transfer_of(int chip, size_t index) const {
    return shared_.slots[static_cast<size_t>(chip)].transfers.load(
        std::memory_order_relaxed)[index];
  }
  void combine(Member& member, size_t index, const Transfer& mine, Range elements) const;
  void gather_parts(Member& member, size_t index, const Transfer& mine) const;
  Range part_of(const Prepared& exchange, int chip) const;
  int64_t received_elements(const Prepared& exchange) const;

  ThreadWorld::Shared& shared_;
  int chip_;
  ThreadWorld::Shared::Slot& slot_;
  // Written by thread 0, read by all after a barrier. Two, because a thread may still read the one
  // when thread 0 writes the other.
  bool ok_ = true;
  bool agree_ = true;
};

std::unique_ptr<PreparedExchange> ThreadCommunicator::prepare(const ops::Exchange& exchange,
                                                              DType dtype, std::string what) {
  CHECK(exchange.n == n_chips());
  auto prepared = std::make_unique<Prepared>();
  prepared->what = exchange.kind + " of " + what;
  prepared->fingerprint = fingerprint_of(exchange, dtype);
  prepared->combine = exchange.combine;
  prepared->dtype = dtype;
  prepared->regions = regions_of(exchange, chip_);
  for (const Region& region : prepared->regions) prepared->count += region.count();
  prepared->two_shot = ops::in_two_phases(exchange, dtype);
  prepared->received_bytes = received_elements(*prepared) * dtype_bytes(dtype);
  return prepared;
}

// Counted from what combine() and gather_parts() read.
int64_t ThreadCommunicator::received_elements(const Prepared& exchange) const {
  const int64_t combined = exchange.two_shot ? part_of(exchange, chip_).size() : exchange.count;
  int64_t elements = exchange.two_shot ? exchange.count - combined : 0;
  for (const Region& region : exchange.regions) {
    const auto others = std::count_if(region.sources.begin(), region.sources.end(),
                                      [&](const Region::Source& s) { return s.chip != chip_; });
    elements += others * (exchange.two_shot ? combined : region.count());
  }
  return elements;
}

bool ThreadCommunicator::wait_for_all(const std::string& what) {
  Patience patience(shared_.deadline_ns, now_ns());
  for (size_t other = 0; other < shared_.slots.size(); ++other) {
    const WaitWord& word = shared_.slots[other].epoch;
    for (uint32_t seen = word.load();;) {
      if (shared_.aborted.load(std::memory_order_acquire)) return false;
      if (static_cast<int32_t>((seen << 1) - (slot_.meetings << 1)) >= 0)
        break;  // without the abort bit
      const uint32_t next = word.wait_while(seen, patience.wake_ns());
      if (patience.is_spent(now_ns()) && next == seen) {
        shared_.abort(
            {static_cast<int>(other),
             fmt::format("chip {} did not reach {} (exchange {}) within {} ms of chip {}; it is "
                         "stalled or far slower: "
                         "give a larger --deadline if it only is slow",
                         other, what, slot_.sequence, shared_.deadline_ns / 1'000'000, chip_)});
        return false;
      }
      seen = next;
    }
  }
  return true;
}

bool ThreadCommunicator::meet(Member& member, const std::string& what, int64_t& waited_ns) {
  if (member.thread() == 0) {
    const int64_t start = now_ns();
    slot_.meetings = (slot_.meetings + 1) & ~kAbortBit;
    if (shared_.aborted.load(std::memory_order_acquire)) {
      ok_ = false;
    } else {
      slot_.epoch.store_and_wake(slot_.meetings);
      ok_ = wait_for_all(what);
    }
    waited_ns += now_ns() - start;
  }
  member.barrier();
  return ok_;
}

bool ThreadCommunicator::stamps_agree() {
  const auto& slots = shared_.slots;
  const auto stamp = [&](size_t chip) { return slots[chip].stamp.load(std::memory_order_relaxed); };
  size_t odd = 1;
  while (odd < slots.size() && stamp(odd) == stamp(0)) ++odd;
  if (odd >= slots.size()) return true;
  // Every chip finds the same one, whoever is first: if all others agree with `odd`, it is chip 0.
  size_t even = 0;
  if (slots.size() > 2 && stamp(odd) == stamp(odd == 1 ? 2 : 1)) std::swap(odd, even);
  const auto what = [&](size_t chip) -> const std::string& {
    return slots[chip].first.load(std::memory_order_relaxed)->what;
  };
  shared_.abort({static_cast<int>(odd),
                 fmt::format("exchange {} of chip {} ({}) is not that of chip {} ({}): they differ "
                             "in kind, shape or order",
                             slot_.sequence, odd, what(odd), even, what(even))});
  return false;
}

// This team's share of some elements of exchange `index`, taken from all chips' sources.
void ThreadCommunicator::combine(Member& member, size_t index, const Transfer& mine,
                                 Range elements) const {
  const Prepared& exchange = prepared_of(mine);
  const void* sources[kMaxChips];
  for (int chip = 0; chip < n_chips(); ++chip) sources[chip] = transfer_of(chip, index).source;
  const Range share = member.share(elements.size(), 16);
  combine_regions(exchange.regions, exchange.combine, exchange.dtype, sources, mine.target,
                  elements.begin + share.begin, elements.begin + share.end);
}

// The part of an all_reduce in two steps that a chip adds up for all.
Range ThreadCommunicator::part_of(const Prepared& exchange, int chip) const {
  return ops::reduced_part(exchange.count, n_chips(), chip);
}

void ThreadCommunicator::gather_parts(Member& member, size_t index, const Transfer& mine) const {
  const Prepared& exchange = prepared_of(mine);
  const int64_t bytes = dtype_bytes(exchange.dtype);
  for (int step = 1; step < n_chips(); ++step) {  // each chip starts at another neighbour
    const int other = (chip_ + step) % n_chips();
    const auto* from = static_cast<const std::byte*>(transfer_of(other, index).target);
    const Range part = part_of(exchange, other);
    const Range share = member.share(part.size(), 16);
    const int64_t at = (part.begin + share.begin) * bytes;
    if (!share.empty())
      std::memcpy(static_cast<std::byte*>(mine.target) + at, from + at,
                  static_cast<size_t>(share.size() * bytes));
  }
}

bool ThreadCommunicator::run(Member& member, std::span<const Transfer> transfers,
                             int64_t& waited_ns) {
  const std::string& what = prepared_of(transfers[0]).what;
  if (member.thread() == 0) {
    ++slot_.sequence;
    uint64_t stamp = slot_.sequence * 0x9e3779b97f4a7c15ULL;
    for (const Transfer& transfer : transfers)
      stamp = stamp * 1099511628211ULL ^ prepared_of(transfer).fingerprint;
    slot_.first.store(&prepared_of(transfers[0]), std::memory_order_relaxed);
    slot_.transfers.store(transfers.data(), std::memory_order_relaxed);
    slot_.stamp.store(stamp, std::memory_order_relaxed);
  }
  if (!meet(member, what, waited_ns)) return false;
  if (member.thread() == 0) agree_ = stamps_agree();
  member.barrier();
  if (!agree_) return false;
  bool two_steps = false;
  for (size_t i = 0; i < transfers.size(); ++i) {
    const Prepared& exchange = prepared_of(transfers[i]);
    two_steps = two_steps || exchange.two_shot;
    combine(member, i, transfers[i],
            exchange.two_shot ? part_of(exchange, chip_) : Range{0, exchange.count});
  }
  if (two_steps) {
    member.barrier();
    if (!meet(member, what, waited_ns)) return false;
    for (size_t i = 0; i < transfers.size(); ++i)
      if (prepared_of(transfers[i]).two_shot) gather_parts(member, i, transfers[i]);
  }
  member.barrier();
  return meet(member, what, waited_ns);
}

bool ThreadCommunicator::barrier(Member& member) {
  int64_t waited_ns = 0;
  member.barrier();
  return meet(member, "a barrier", waited_ns);
}

}  // namespace

ThreadWorld::ThreadWorld(int n_chips, int64_t deadline_ms)
    : shared_(std::make_unique<Shared>(n_chips, deadline_ms)) {
  if (n_chips > kMaxChips)
    throw Error(ErrorCode::kUnsupported,
                fmt::format("{} chips: one process runs at most {}; choose a plan for fewer with "
                            "--n-chips",
                            n_chips, kMaxChips));
}

ThreadWorld::~ThreadWorld() = default;

std::unique_ptr<Communicator> ThreadWorld::communicator(int chip) {
  return std::make_unique<ThreadCommunicator>(*shared_, chip);
}

std::optional<Failure> ThreadWorld::failure() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->failure;
}

void ThreadWorld::abort(Failure failure) { shared_->abort(std::move(failure)); }

void ThreadWorld::reset() {
  const std::lock_guard lock(shared_->mutex);
  shared_->failure.reset();
  shared_->aborted.store(false, std::memory_order_release);
  for (Shared::Slot& slot : shared_->slots) {
    slot.meetings = 0;
    slot.sequence = 0;
    slot.epoch.store_and_wake(0);
  }
}

}  // namespace shardwright::comm
