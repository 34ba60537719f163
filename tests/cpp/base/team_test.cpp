// Teams, their barrier and their waits, also with more threads than CPUs.
#include "base/team.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace shardwright {
namespace {

int64_t steady_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

TEST(AllowedCpus, IsNeverEmptyAndSorted) {
  const std::vector<int> cpus = allowed_cpus();
  ASSERT_FALSE(cpus.empty());
  for (size_t i = 1; i < cpus.size(); ++i) EXPECT_LT(cpus[i - 1], cpus[i]);
}

TEST(L2CacheBytes, IsOfAPlausibleSize) {
  EXPECT_GE(l2_cache_bytes(), 64 << 10);
  EXPECT_LE(l2_cache_bytes(), 1 << 28);
}

TEST(Team, EveryThreadRunsEachJobOnce) {
  for (const int n : {1, 2, 3, 9}) {
    Team team(n, allowed_cpus());
    ASSERT_EQ(team.n_threads(), n);
    std::vector<int> runs(static_cast<size_t>(n));  // plain ints: run() must order the accesses
    for (int job = 1; job <= 20; ++job) {
      team.run([&](Member& member) { ++runs[static_cast<size_t>(member.thread())]; });
      for (const int count : runs) ASSERT_EQ(count, job);
    }
  }
}

TEST(Team, EndsWithoutAJob) { Team team(3); }

TEST(Team, WaitsForItsJobWhenItEnds) {
  std::atomic<int> done{0};
  {
    Team team(2);
    team.start([&](Member& member) {
      member.barrier();
      ++done;
    });
  }
  EXPECT_EQ(done, 2);
}

TEST(Team, BarrierShowsAllWritesOfTheRoundBefore) {
  for (const int n : {1, 2, 3, 8}) {
    Team team(n);
    std::vector<int> round_of(static_cast<size_t>(n));
    std::atomic<int> faults{0};
    team.run([&](Member& member) {
      for (int round = 1; round <= 200; ++round) {
        round_of[static_cast<size_t>(member.thread())] = round;
        member.barrier();
        for (const int seen : round_of) faults += seen != round;
        member.barrier();
      }
    });
    EXPECT_EQ(faults, 0) << n << " threads";
  }
}

TEST(Team, ManyTeamsTakeTurnsOnFewCpus) {
  constexpr int kTeams = 6;
  std::vector<std::unique_ptr<Team>> teams;
  for (int i = 0; i < kTeams; ++i) teams.push_back(std::make_unique<Team>(2));
  std::vector<WaitWord> turns(1);
  int total = 0;  // written by one thread at a time
  for (int i = 0; i < kTeams; ++i)
    teams[static_cast<size_t>(i)]->start([&, i](Member& member) {
      for (int round = 0; round < 50; ++round) {
        if (member.thread() == 0) {
          const auto mine = static_cast<uint32_t>(round * kTeams + i);
          for (uint32_t now = turns[0].load(); now != mine; now = turns[0].load())
            turns[0].wait_while(now);
          ++total;
          turns[0].store_and_wake(mine + 1);
        }
        member.barrier();
      }
    });
  for (auto& team : teams) team->wait();
  EXPECT_EQ(total, kTeams * 50);
}

TEST(Team, WaitGivesUpAtTheDeadline) {
  WaitWord go;
  Team team(2);
  team.start([&](Member&) { go.wait_while(0); });
  EXPECT_FALSE(team.wait(steady_ns() + 2'000'000));
  go.store_and_wake(1);
  EXPECT_TRUE(team.wait());
}

TEST(WaitWord, GivesTheOldValueAtTheDeadline) {
  WaitWord word;
  const int64_t deadline_ns = steady_ns() + 1'000'000;
  EXPECT_EQ(word.wait_while(0, deadline_ns), 0U);
  EXPECT_GE(steady_ns(), deadline_ns);
  EXPECT_EQ(word.wait_while(0, 0), 0U);  // a deadline long past
}

TEST(WaitWord, AddsFromManyThreadsWakeTheWaiter) {
  WaitWord word;
  Team team(4);
  team.start([&](Member&) {
    for (int i = 0; i < 100; ++i) word.add_and_wake(1);
  });
  uint32_t value = 0;
  while (value != 400) value = word.sleep_while(value);
  team.wait();
  EXPECT_EQ(word.load(), 400U);
}

TEST(Member, SharesCoverEverythingOnceInGrains) {
  for (const int n : {1, 2, 3, 7}) {
    Team team(n);
    for (const int64_t count : {0, 1, 5, 64, 1000}) {
      for (const int64_t grain : {1, 8, 32}) {
        std::vector<Range> shares(static_cast<size_t>(n));
        team.run(
            [&](Member& m) { shares[static_cast<size_t>(m.thread())] = m.share(count, grain); });
        int64_t next = 0;
        for (const Range& share : shares) {
          EXPECT_EQ(share.begin, next);
          EXPECT_TRUE(share.begin % grain == 0 || share.begin == count);
          next = share.end;
        }
        EXPECT_EQ(next, count);
      }
    }
  }
}

}  // namespace
}  // namespace shardwright
