// A team: the threads of one chip. They walk a program together; each does its part of every
// kernel.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace shardwright {

// The CPUs this process may use: affinity mask cut with the cgroup CPU quota. Never empty.
std::vector<int> allowed_cpus();
// Bytes of the L2 cache of one core (1 MiB if it can't be found out).
int64_t l2_cache_bytes();

// Waits until `word` no longer holds `old`: spins about 1 us (only where threads <= CPUs), then up
// to 200 sched_yield, then futex (which the waker calls only if somebody sleeps).
class WaitWord {
 public:
  uint32_t load() const { return word_.load(std::memory_order_acquire); }
  void store_and_wake(uint32_t value);
  void add_and_wake(uint32_t amount);
  // Returns the value that differs from `old`. `deadline_ns` is a std::chrono::steady_clock time in
  // ns (INT64_MAX: none); at the deadline it returns `old`.
  uint32_t wait_while(uint32_t old, int64_t deadline_ns = INT64_MAX) const;
  // The same without spinning and yielding: for a waiter that is not a thread of a team.
  uint32_t sleep_while(uint32_t old, int64_t deadline_ns = INT64_MAX) const;

 private:
  alignas(64) std::atomic<uint32_t> word_{0};
  mutable std::atomic<uint32_t> sleepers_{0};
};

struct Range {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
  bool empty() const { return begin >= end; }
};

class Team;

// What one thread of a team sees inside a kernel.
class Member {
 public:
  Member(Team& team, int thread) : team_(&team), thread_(thread) {}
  // A team of one, for a kernel that one thread runs on a part that is its alone.
  static Member alone() { return Member(); }
  int thread() const { return thread_; }
  int n_threads() const;
  // All threads of the team meet here; writes before it are visible to all after it.
  void barrier();
  // This thread's share of `count` items, in multiples of `grain` (the last may be smaller); may be
  // empty.
  Range share(int64_t count, int64_t grain = 1) const;

 private:
  Member() = default;

  Team* team_ = nullptr;  // null: alone
  int thread_ = 0;
};

// `n_threads` threads, pinned to `cpus[i % size]` if given. The threads live as long as the team
// and wait between jobs.
class Team {
 public:
  explicit Team(int n_threads, std::vector<int> cpus = {});
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int n_threads() const;
  // Starts `job` on all threads and returns at once. `job` must not throw (a team has no way to go
  // on). One job at a time.
  void start(std::function<void(Member&)> job);
  // Waits for the job to end on all threads. False if `deadline_ns` (steady clock) passed first.
  bool wait(int64_t deadline_ns = INT64_MAX);
  void run(std::function<void(Member&)> job) {
    start(std::move(job));
    wait();
  }

 private:
  friend class Member;
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace shardwright
