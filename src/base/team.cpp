// Teams of threads, and how they wait (design: spin in time, then yield, then futex).
#include "base/team.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

#include "base/check.h"
#include "base/clock.h"

namespace shardwright {
namespace {

// A partner that runs answers within a barrier's time; longer spins only steal from others.
constexpr int64_t kSpinNs = 1000;
// A yield costs 0.3 us alone; a futex wake costs 16 us in a virtual machine.
constexpr int kYields = 200;

// Threads of all living teams: spinning helps only while each has a CPU of its own.
std::atomic<int> live_threads{0};

int allowed_cpu_count() {
  static const int count = static_cast<int>(allowed_cpus().size());
  return count;
}

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Sleeps while `word` holds `old`, at most until `deadline_ns`. May return early.
void futex_wait(const std::atomic<uint32_t>& word, uint32_t old, int64_t deadline_ns) {
  static_assert(sizeof(word) == sizeof(uint32_t));
  constexpr int64_t kNsPerS = 1'000'000'000;
  const timespec time{.tv_sec = deadline_ns / kNsPerS, .tv_nsec = deadline_ns % kNsPerS};
  syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE, old,
          deadline_ns == INT64_MAX ? nullptr : &time, nullptr, FUTEX_BITSET_MATCH_ANY);
}

void futex_wake_all(const std::atomic<uint32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
}

// CPUs that a quota of `quota` out of `period` microseconds is worth; 0 = no limit.
int64_t quota_cpus(int64_t quota, int64_t period) {
  return quota > 0 && period > 0 ? std::max<int64_t>(1, (quota + period - 1) / period) : 0;
}

int64_t read_int(const std::string& path) {
  int64_t value = 0;
  std::ifstream(path) >> value;
  return value;
}

// The smallest CPU quota of a cgroup (`group`, as /proc/self/cgroup names it) and those above it.
int64_t group_quota_cpus(const std::string& mount, std::string group, bool v2) {
  int64_t least = 0;
  while (true) {
    const std::string dir = mount + group;
    int64_t cpus = 0;
    if (v2) {
      int64_t quota = 0;
      int64_t period = 0;
      std::ifstream(dir + "/cpu.max") >> quota >> period;  // "max 100000" leaves both 0
      cpus = quota_cpus(quota, period);
    } else {
      cpus = quota_cpus(read_int(dir + "/cpu.cfs_quota_us"), read_int(dir + "/cpu.cfs_period_us"));
    }
    if (cpus > 0) least = least == 0 ? cpus : std::min(least, cpus);
    const size_t slash = group.rfind('/');
    if (slash == std::string::npos) return least;
    group.resize(slash);
  }
}

// How many CPUs the cgroup quota gives this process; 0 = no limit.
int64_t cgroup_cpus() {
  int64_t least = 0;
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {  // "4:cpu,cpuacct:/path" or "0::/path"
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const bool v2 = controllers == ",,";
    if (!v2 && controllers.find(",cpu,") == std::string::npos) continue;
    std::string group = line.substr(second + 1);
    if (group == "/") group.clear();
    const int64_t cpus =
        group_quota_cpus(v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/cpu", std::move(group), v2);
    if (cpus > 0) least = least == 0 ? cpus : std::min(least, cpus);
  }
  return least;
}

void pin_this_thread(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  // A CPU may have gone since the list was made: then the thread stays unpinned, slower but right.
  pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

}  // namespace

std::vector<int> allowed_cpus() {
  std::vector<int> cpus;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(getpid(), sizeof(set), &set) == 0)  // the process, not this pinned thread
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
      if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  if (cpus.empty()) {  // more CPUs than cpu_set_t has bits for
    const auto count = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
    for (int cpu = 0; cpu < count; ++cpu) cpus.push_back(cpu);
  }
  const int64_t quota = cgroup_cpus();
  if (quota > 0 && quota < std::ssize(cpus)) cpus.resize(static_cast<size_t>(quota));
  return cpus;
}

int64_t l2_cache_bytes() {
  static const int64_t bytes = [] {
    const int64_t from_libc = sysconf(_SC_LEVEL2_CACHE_SIZE);
    if (from_libc > 0) return from_libc;
    const int64_t kib = read_int("/sys/devices/system/cpu/cpu0/cache/index2/size");  // "1024K"
    return kib > 0 ? kib * 1024 : int64_t{1} << 20;
  }();
  return bytes;
}

// A waiter adds itself to sleepers_ before the kernel compares the word, and a waker writes the
// word before it reads sleepers_, all in one total order: one of the two sees the other.
void WaitWord::store_and_wake(uint32_t value) {
  word_.store(value, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) != 0) futex_wake_all(word_);
}

void WaitWord::add_and_wake(uint32_t amount) {
  word_.fetch_add(amount, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) != 0) futex_wake_all(word_);
}

uint32_t WaitWord::wait_while(uint32_t old, int64_t deadline_ns) const {
  uint32_t value = load();
  if (value != old) return value;
  if (live_threads.load(std::memory_order_relaxed) <= allowed_cpu_count()) {
    const int64_t spin_end_ns = now_ns() + kSpinNs;
    do {
      for (int i = 0; i < 8; ++i) {
        pause();
        value = load();
        if (value != old) return value;
      }
    } while (now_ns() < spin_end_ns);
  }
  for (int i = 0; i < kYields; ++i) {
    sched_yield();
    value = load();
    if (value != old || (deadline_ns != INT64_MAX && now_ns() >= deadline_ns)) return value;
  }
  return sleep_while(old, deadline_ns);
}

uint32_t WaitWord::sleep_while(uint32_t old, int64_t deadline_ns) const {
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  uint32_t value = word_.load(std::memory_order_seq_cst);
  while (value == old && (deadline_ns == INT64_MAX || now_ns() < deadline_ns)) {
    futex_wait(word_, old, deadline_ns);
    value = word_.load(std::memory_order_seq_cst);
  }
  sleepers_.fetch_sub(1, std::memory_order_relaxed);
  return value;
}

struct Team::State {
  int n_threads = 0;
  std::function<void(Member&)> job;
  uint32_t n_jobs = 0;  // started so far; only the owner writes it
  bool stop = false;    // written before `started`, read after it
  WaitWord started;     // n_jobs of the newest job
  WaitWord finished;    // n_jobs of the newest job that all threads have finished
  WaitWord barrier_round;
  alignas(64) std::atomic<int> arrived{0};  // threads that wait in the barrier
  alignas(64) std::atomic<int> running{0};  // threads still in the job
  std::vector<std::thread> threads;

  void thread_main(Team& team, int thread) noexcept {
    Member member(team, thread);
    uint32_t seen = 0;
    while (true) {
      seen = started.wait_while(seen);
      if (stop) return;
      job(member);
      if (running.fetch_sub(1, std::memory_order_acq_rel) == 1) finished.store_and_wake(seen);
    }
  }
};

Team::Team(int n_threads, std::vector<int> cpus) : state_(std::make_unique<State>()) {
  CHECK(n_threads >= 1);
  state_->n_threads = n_threads;
  live_threads.fetch_add(n_threads, std::memory_order_relaxed);
  for (int thread = 0; thread < n_threads; ++thread) {
    const int cpu = cpus.empty() ? -1 : cpus[static_cast<size_t>(thread) % cpus.size()];
    state_->threads.emplace_back([this, thread, cpu] {
      if (cpu >= 0) pin_this_thread(cpu);
      state_->thread_main(*this, thread);
    });
  }
}

Team::~Team() {
  wait();
  state_->stop = true;
  state_->started.store_and_wake(state_->n_jobs + 1);
  for (std::thread& thread : state_->threads) thread.join();
  live_threads.fetch_sub(state_->n_threads, std::memory_order_relaxed);
}

int Team::n_threads() const { return state_->n_threads; }

void Team::start(std::function<void(Member&)> job) {
  CHECK(state_->finished.load() == state_->n_jobs, "a team runs one job at a time");
  state_->job = std::move(job);
  state_->running.store(state_->n_threads, std::memory_order_relaxed);
  state_->started.store_and_wake(++state_->n_jobs);
}

bool Team::wait(int64_t deadline_ns) {
  const WaitWord& finished = state_->finished;
  const uint32_t job = state_->n_jobs;
  const uint32_t previous = job - 1;  // what `finished` holds until the job is done
  if (finished.load() == job) return true;
  // The caller is one thread more: where that is one too many, it must not keep a worker waiting.
  const bool has_cpu = live_threads.load(std::memory_order_relaxed) < allowed_cpu_count();
  const uint32_t value = has_cpu ? finished.wait_while(previous, deadline_ns)
                                 : finished.sleep_while(previous, deadline_ns);
  return value == job;
}

int Member::n_threads() const { return team_ == nullptr ? 1 : team_->state_->n_threads; }

void Member::barrier() {
  if (team_ == nullptr) return;
  Team::State& state = *team_->state_;
  if (state.n_threads == 1) return;
  const uint32_t round = state.barrier_round.load();
  if (state.arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == state.n_threads) {
    state.arrived.store(0, std::memory_order_relaxed);
    state.barrier_round.store_and_wake(round + 1);
  } else {
    state.barrier_round.wait_while(round);
  }
}

Range Member::share(int64_t count, int64_t grain) const {
  const int64_t units = (count + grain - 1) / grain;
  const int64_t n = n_threads();
  return {.begin = std::min(count, units * thread_ / n * grain),
          .end = std::min(count, units * (thread_ + 1) / n * grain)};
}

}  // namespace shardwright
