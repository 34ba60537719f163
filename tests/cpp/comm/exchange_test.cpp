// Exchanges between chips: every kind, uneven, empty and overlapping cuts, several threads a chip,
// against a plain loop; and failures.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <random>
#include <thread>

#include "base/error.h"
#include "comm/region.h"
#include "comm/threads.h"

namespace shardwright::comm {
namespace {

using ops::Combine;
using ops::Exchange;

std::vector<Range> cut(int64_t size, int n) {
  std::vector<Range> cuts;
  int64_t begin = 0;
  for (int i = 0; i < n; ++i) {
    const int64_t count = size / n + (i < size % n ? 1 : 0);
    cuts.push_back({begin, begin + count});
    begin += count;
  }
  return cuts;
}

// 3 KV heads over n chips: neighbours share rows.
std::vector<Range> overlapping(int64_t heads, int64_t share, int n) {
  std::vector<Range> cuts = cut(heads * share, n);
  for (Range& c : cuts)
    c = c.empty() ? Range{0, 0} : Range{c.begin / share, (c.end + share - 1) / share};
  return cuts;
}

bool inside(const Exchange& e, int dim, const std::vector<Range>& cuts, int chip,
            const Shape& index) {
  if (dim < 0) return true;
  const Range r = cuts[static_cast<size_t>(chip)];
  const int64_t i = index[static_cast<size_t>(dim)];
  (void)e;
  return i >= r.begin && i < r.end;
}

int64_t offset_in(const Exchange& e, int dim, const std::vector<Range>& cuts, int chip,
                  const Shape& index) {
  int64_t at = 0;
  for (size_t d = 0; d < e.shape.size(); ++d) {
    const bool is_cut = static_cast<int>(d) == dim;
    const Range r = is_cut ? cuts[static_cast<size_t>(chip)] : Range{0, e.shape[d]};
    at = at * r.size() + index[d] - r.begin;
  }
  return at;
}

template <typename F>
void for_each_index(const Shape& shape, F f) {
  Shape index(shape.size(), 0);
  for (int64_t i = 0; i < element_count(shape); ++i) {
    int64_t rest = i;
    for (size_t d = shape.size(); d-- > 0;) index[d] = rest % shape[d], rest /= shape[d];
    f(index);
  }
}

// The pieces of one exchange on all chips.
struct Pieces {
  Exchange exchange;
  std::vector<std::vector<float>> sources, targets;

  explicit Pieces(Exchange e) : exchange(std::move(e)) {
    std::mt19937 random(7);
    for (int chip = 0; chip < exchange.n; ++chip) {
      sources.emplace_back(static_cast<size_t>(element_count(exchange.from_shape(chip))));
      targets.emplace_back(static_cast<size_t>(element_count(exchange.to_shape(chip))), -999.0F);
      for (float& v : sources.back()) v = static_cast<float>(static_cast<int>(random() % 41) - 20);
    }
    if (exchange.combine == Combine::kCopy)  // copies agree
      for_each_index(exchange.shape, [&](const Shape& index) {
        const auto value = static_cast<float>(random() % 1000);
        for (int chip = 0; chip < exchange.n; ++chip)
          if (is_held(chip, index)) source(chip, index) = value;
      });
  }

  bool is_held(int chip, const Shape& index) const {
    return inside(exchange, exchange.from_dim, exchange.from_cuts, chip, index);
  }
  float& source(int chip, const Shape& index) {
    const Exchange& e = exchange;
    return sources[static_cast<size_t>(chip)]
                  [static_cast<size_t>(offset_in(e, e.from_dim, e.from_cuts, chip, index))];
  }

  // Compares every target element with the plain loop.
  void expect_whole() {
    const Exchange& e = exchange;
    for (int chip = 0; chip < e.n; ++chip)
      for_each_index(e.shape, [&](const Shape& index) {
        if (!inside(e, e.to_dim, e.to_cuts, chip, index)) return;
        float expected = 0;
        bool first = true;
        for (int from = 0; from < e.n; ++from) {
          if (!is_held(from, index)) continue;
          const float v = source(from, index);
          if (first)
            expected = v;
          else if (e.combine == Combine::kSum)
            expected += v;
          else if (e.combine == Combine::kMax)
            expected = std::max(expected, v);
          first = false;
        }
        const float got =
            targets[static_cast<size_t>(chip)]
                   [static_cast<size_t>(offset_in(e, e.to_dim, e.to_cuts, chip, index))];
        ASSERT_EQ(got, expected) << e.kind << " n " << e.n << " chip " << chip << " at "
                                 << to_string(index);
      });
  }
};

bool run_one(Communicator& communicator, Member& member, const Transfer& transfer) {
  int64_t waited = 0;
  return communicator.run(member, {&transfer, 1}, waited);
}

// Runs exchanges that meet together on real chips.
void check(const std::vector<Exchange>& exchanges, int n_threads) {
  const int n = exchanges[0].n;
  std::vector<Pieces> pieces(exchanges.begin(), exchanges.end());
  ThreadWorld world(n, 20'000);
  std::vector<std::unique_ptr<Team>> teams;
  std::vector<std::unique_ptr<Communicator>> communicators;
  std::vector<std::unique_ptr<PreparedExchange>> prepared;
  std::vector<std::vector<Transfer>> transfers(static_cast<size_t>(n));
  for (size_t chip = 0; chip < transfers.size(); ++chip) {
    teams.push_back(std::make_unique<Team>(n_threads));
    communicators.push_back(world.communicator(static_cast<int>(chip)));
    for (Pieces& p : pieces) {
      prepared.push_back(communicators.back()->prepare(p.exchange, DType::kF32, "x"));
      EXPECT_EQ(prepared.back()->received_bytes,  // what is moved, what was to be moved
                ops::received_bytes(p.exchange, DType::kF32, static_cast<int>(chip)))
          << p.exchange.kind;
      transfers[chip].push_back(
          {prepared.back().get(), p.sources[chip].data(), p.targets[chip].data()});
    }
  }
  for (int repeat = 0; repeat < 3; ++repeat) {
    for (size_t chip = 0; chip < teams.size(); ++chip)
      teams[chip]->start([&, chip](Member& member) {
        int64_t waited = 0;
        EXPECT_TRUE(communicators[chip]->run(member, transfers[chip], waited));
      });
    for (auto& team : teams) team->wait();
  }
  for (Pieces& p : pieces) p.expect_whole();
}
void check(const Exchange& exchange, int n_threads) { check(std::vector{exchange}, n_threads); }

Exchange make(std::string kind, Combine combine, int from, std::vector<Range> from_cuts, int to,
              std::vector<Range> to_cuts, Shape shape, int n) {
  Exchange e;
  e.kind = std::move(kind), e.combine = combine, e.from_dim = from, e.to_dim = to, e.n = n;
  e.from_cuts = std::move(from_cuts), e.to_cuts = std::move(to_cuts), e.shape = std::move(shape);
  return e;
}

class ExchangeTest : public ::testing::TestWithParam<std::tuple<int, int>> {};

TEST_P(ExchangeTest, EveryKindEqualsThePlainLoop) {
  const auto [n, threads] = GetParam();
  const Shape shape = {2, 7, 5, 3};
  for (Combine combine : {Combine::kSum, Combine::kMax}) {
    check(make("all_reduce", combine, -1, {}, -1, {}, shape, n), threads);
    for (int d = 0; d < 4; ++d)
      check(make("reduce_scatter", combine, -1, {}, d, cut(shape[static_cast<size_t>(d)], n), shape,
                 n),
            threads);
  }
  for (int d = 0; d < 4; ++d) {
    check(make("all_gather", Combine::kCopy, d, cut(shape[static_cast<size_t>(d)], n), -1, {},
               shape, n),
          threads);
    for (int e = 0; e < 4; ++e)
      if (e != d)
        check(make("all_to_all", Combine::kCopy, d, cut(shape[static_cast<size_t>(d)], n), e,
                   cut(shape[static_cast<size_t>(e)], n), shape, n),
              threads);
  }
  const Shape heads = {2, 3, 4};
  const std::vector<Range> cover = overlapping(3, 3, n);
  check(make("all_gather", Combine::kCopy, 1, cover, -1, {}, heads, n), threads);
  check(make("all_gather", Combine::kSum, 1, cover, -1, {}, heads, n), threads);
  check(make("overlap_reduce", Combine::kSum, 1, cover, 1, cover, heads, n), threads);
  check(make("all_to_all", Combine::kSum, 1, cover, 2, cut(4, n), heads, n), threads);
}

INSTANTIATE_TEST_SUITE_P(Chips, ExchangeTest,
                         ::testing::Combine(::testing::Values(1, 2, 3, 5, 8),
                                            ::testing::Values(1, 2)));

TEST(Exchange, LargeAllReduceInTwoSteps) {
  check(make("all_reduce", Combine::kSum, -1, {}, -1, {}, {301, 333}, 3), 2);
}

TEST(Exchange, ThoseThatAreReadyTogetherMeetOnce) {
  for (int threads : {1, 2}) {
    check({make("all_reduce", Combine::kSum, -1, {}, -1, {}, {301, 333}, 3),  // in two steps
           make("all_gather", Combine::kCopy, 0, cut(7, 3), -1, {}, {7, 2}, 3),
           make("all_reduce", Combine::kMax, -1, {}, -1, {}, {5}, 3),
           make("reduce_scatter", Combine::kSum, -1, {}, 1, cut(4, 3), {2, 4}, 3),
           make("all_reduce", Combine::kSum, -1, {}, -1, {}, {300, 334}, 3)},
          threads);
  }
}

TEST(Exchange, Bf16SumsInF32AndRoundsOnce) {
  const Exchange e = make("all_reduce", Combine::kSum, -1, {}, -1, {}, {1}, 3);
  // 256 + 1 + 1 in bf16: adding one at a time would stay at 256.
  const uint16_t pieces[3] = {f32_to_bf16(256), f32_to_bf16(1), f32_to_bf16(1)};
  const void* sources[3] = {&pieces[0], &pieces[1], &pieces[2]};
  uint16_t out = 0;
  combine_regions(regions_of(e, 0), Combine::kSum, DType::kBF16, sources, &out, 0, 1);
  EXPECT_EQ(bf16_to_f32(out), 258.0F);
}

// What happens on chip `odd_chip` of 3 while the others run one exchange.
std::optional<Failure> failure_when(
    const std::function<void(Communicator&, Member&, const PreparedExchange*,
                             const PreparedExchange*)>& odd,
    size_t odd_chip = 1) {
  const Exchange e = make("all_reduce", Combine::kSum, -1, {}, -1, {}, {8}, 3);
  const Exchange other = make("all_reduce", Combine::kSum, -1, {}, -1, {}, {4}, 3);
  ThreadWorld world(3, 200);
  std::vector<float> data(64);
  std::vector<std::unique_ptr<Team>> teams;
  std::vector<std::unique_ptr<Communicator>> communicators;
  std::vector<std::unique_ptr<PreparedExchange>> prepared, wrong;
  for (int chip = 0; chip < 3; ++chip) {
    teams.push_back(std::make_unique<Team>(2));
    communicators.push_back(world.communicator(chip));
    prepared.push_back(communicators.back()->prepare(e, DType::kF32, "layer 3"));
    wrong.push_back(communicators.back()->prepare(other, DType::kF32, "layer 9"));
  }
  for (size_t chip = 0; chip < 3; ++chip)
    teams[chip]->start([&, chip](Member& member) {
      if (chip == odd_chip)
        odd(*communicators[chip], member, prepared[chip].get(), wrong[chip].get());
      else
        EXPECT_FALSE(run_one(*communicators[chip], member,
                             {prepared[chip].get(), &data[chip * 16], &data[chip * 16 + 8]}));
    });
  for (auto& team : teams) team->wait();
  return world.failure();
}

TEST(ExchangeFailure, SkippedExchangeNamesTheLateChip) {
  const auto failure =
      failure_when([](Communicator&, Member&, const PreparedExchange*, const PreparedExchange*) {});
  ASSERT_TRUE(failure);
  EXPECT_EQ(failure->chip, 1);
  EXPECT_NE(failure->text.find("chip 1 did not reach all_reduce of layer 3"), std::string::npos)
      << failure->text;
}

TEST(ExchangeFailure, AnotherSizeIsSeenBeforeAnyByteMoves) {
  for (const size_t chip : {0U, 1U, 2U}) {
    const auto failure = failure_when(
        [](Communicator& c, Member& m, const PreparedExchange*, const PreparedExchange* wrong) {
          float a[4] = {}, b[4] = {};
          EXPECT_FALSE(run_one(c, m, {wrong, a, b}));
        },
        chip);
    ASSERT_TRUE(failure);
    EXPECT_EQ(failure->chip, static_cast<int>(chip));  // whichever chip sees it first
    EXPECT_EQ(failure->text,
              fmt::format("exchange 1 of chip {} (all_reduce of layer 9) is not that of chip {} "
                          "(all_reduce of layer 3): they differ in kind, shape or order",
                          chip, chip == 0 ? 1 : 0));
  }
}

TEST(ExchangeFailure, AbortReachesEveryone) {
  const auto failure = failure_when(
      [](Communicator& c, Member& m, const PreparedExchange*, const PreparedExchange*) {
        if (m.thread() == 0) c.abort({1, "chip 1 failed: out of ideas"});
      });
  ASSERT_TRUE(failure);
  EXPECT_EQ(failure->text, "chip 1 failed: out of ideas");
}

TEST(ExchangeFailure, WorldWorksAgainAfterReset) {
  const Exchange e = make("all_reduce", Combine::kSum, -1, {}, -1, {}, {8}, 2);
  ThreadWorld world(2, 100);
  Team a(1), b(1);
  auto ca = world.communicator(0), cb = world.communicator(1);
  auto pa = ca->prepare(e, DType::kF32, "x"), pb = cb->prepare(e, DType::kF32, "x");
  std::vector<float> in(8, 1.0F), out_a(8), out_b(8);
  a.run([&](Member& m) { EXPECT_FALSE(run_one(*ca, m, {pa.get(), in.data(), out_a.data()})); });
  ASSERT_TRUE(world.failure());
  world.reset();
  a.start([&](Member& m) { EXPECT_TRUE(run_one(*ca, m, {pa.get(), in.data(), out_a.data()})); });
  b.start([&](Member& m) { EXPECT_TRUE(run_one(*cb, m, {pb.get(), in.data(), out_b.data()})); });
  a.wait(), b.wait();
  EXPECT_FALSE(world.failure());
  EXPECT_EQ(out_b, std::vector<float>(8, 2.0F));
}

}  // namespace
}  // namespace shardwright::comm
