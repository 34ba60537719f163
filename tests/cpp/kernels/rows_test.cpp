// Row kernels against obvious loops in double.
#include "kernels/cpu/rows.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "kernels/teams.h"

namespace shardwright::kernels {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr DType kStorages[] = {DType::kF32, DType::kBF16, DType::kF16};

// Half a unit in the last place of the storage, and f32's error before it.
double tolerance(DType dtype) {
  return dtype == DType::kF32 ? 2e-6 : dtype == DType::kBF16 ? 0x1p-8 : 0x1p-11;
}
double round_to(double value, DType dtype) {
  Elements one(dtype, 1);
  one.set(0, value);
  return one.get(0);
}

TEST(Rows, RmsNorm) {
  std::mt19937 random(kSeed);
  for_each_team([&](Team& team) {
    for (const DType dtype : kStorages) {
      for (const int64_t n : {1, 15, 64, 100, 576}) {
        const DType weight_dtype = n == 100 ? DType::kF32 : dtype;
        const int64_t rows = 5, stride = n + 3;
        const Elements x = random_elements(dtype, rows * stride, random);
        const Elements weight = random_elements(weight_dtype, n, random);
        for (const bool plus_one : {false, true}) {
          for (const bool with_weight : {false, true}) {
            Elements y(dtype, rows * stride);
            const NormArgs args{.n_rows = rows,
                                .row_size = n,
                                .dtype = dtype,
                                .weight_dtype = weight_dtype,
                                .x = x.data(),
                                .x_stride = stride,
                                .y = y.data(),
                                .y_stride = stride,
                                .weight = with_weight ? weight.data() : nullptr,
                                .eps = 1e-3F,
                                .weight_plus_one = plus_one};
            team.run([&](Member& member) { rms_norm(member, args); });
            for (int64_t r = 0; r < rows; ++r) {
              double squares = 0;
              for (int64_t i = 0; i < n; ++i) squares += std::pow(x.get(r * stride + i), 2);
              const double scale = 1 / std::sqrt(squares / n + static_cast<double>(1e-3F));
              for (int64_t i = 0; i < n; ++i) {
                const double w = with_weight ? weight.get(i) + (plus_one ? 1 : 0) : 1;
                const double want = x.get(r * stride + i) * scale * w;
                ASSERT_NEAR(y.get(r * stride + i), want, tolerance(dtype) * std::fabs(want) + 1e-7);
              }
              for (int64_t i = n; i < stride; ++i) ASSERT_EQ(y.get(r * stride + i), 0);
            }
          }
        }
      }
    }
  });
}

// Llama's order: the normalised value is a bf16 before the weight multiplies it. With x = (3, 4)
// scaled by 1 / sqrt(12.5) the two orders differ.
TEST(Rows, RmsNormRoundsBeforeWeight) {
  for_each_isa([] {
    Team team(1);
    const Elements x(DType::kBF16, std::vector<double>{3, 4});
    const Elements weight(DType::kBF16, std::vector<double>{1.0078125, 1.0390625});
    Elements y(DType::kBF16, 2);
    NormArgs args{.n_rows = 1,
                  .row_size = 2,
                  .dtype = DType::kBF16,
                  .weight_dtype = DType::kBF16,
                  .x = x.data(),
                  .y = y.data(),
                  .weight = weight.data(),
                  .eps = 0,
                  .round_before_weight = true};
    team.run([&](Member& member) { rms_norm(member, args); });
    for (int64_t i = 0; i < 2; ++i)
      EXPECT_EQ(y.get(i),
                round_to(round_to(x.get(i) / std::sqrt(12.5), DType::kBF16) * weight.get(i),
                         DType::kBF16));
  });
}

TEST(Rows, LayerNorm) {
  std::mt19937 random(kSeed);
  for_each_team([&](Team& team) {
    for (const DType dtype : kStorages) {
      for (const int64_t n : {1, 7, 48, 200}) {
        const int64_t rows = 4;
        Elements x = random_elements(dtype, rows * n, random, 90, 110);  // a large mean
        const Elements weight = random_elements(dtype, n, random);
        const Elements bias = random_elements(dtype, n, random);
        Elements y = x;
        const NormArgs args{.n_rows = rows,
                            .row_size = n,
                            .dtype = dtype,
                            .weight_dtype = dtype,
                            .x = y.data(),  // in place
                            .x_stride = n,
                            .y = y.data(),
                            .y_stride = n,
                            .weight = weight.data(),
                            .bias = bias.data()};
        team.run([&](Member& member) { layer_norm(member, args); });
        for (int64_t r = 0; r < rows; ++r) {
          double mean = 0, variance = 0;
          for (int64_t i = 0; i < n; ++i) mean += x.get(r * n + i) / n;
          for (int64_t i = 0; i < n; ++i) variance += std::pow(x.get(r * n + i) - mean, 2) / n;
          for (int64_t i = 0; i < n; ++i) {
            const double scaled =
                (x.get(r * n + i) - mean) / std::sqrt(variance + static_cast<double>(1e-5F));
            const double want = scaled * weight.get(i) + bias.get(i);
            ASSERT_NEAR(y.get(r * n + i), want, tolerance(dtype) * std::fabs(want) + 5e-5);
          }
        }
      }
    }
  });
}

TEST(Rows, Softmax) {
  std::mt19937 random(kSeed);
  for_each_team([&](Team& team) {
    for (const DType from : kStorages) {
      for (const DType to : kStorages) {
        for (const int64_t n : {1, 16, 33, 500}) {
          const int64_t rows = 3;
          Elements x = random_elements(from, rows * n, random, -20, 20);
          if (n > 1) x.set(n - 1, -kInf);
          Elements y(to, rows * n);
          const SoftmaxArgs args{.n_rows = rows,
                                 .row_size = n,
                                 .x_dtype = from,
                                 .y_dtype = to,
                                 .x = x.data(),
                                 .x_stride = n,
                                 .y = y.data(),
                                 .y_stride = n};
          team.run([&](Member& member) { softmax(member, args); });
          for (int64_t r = 0; r < rows; ++r) {
            double max = -kInf, sum = 0;
            for (int64_t i = 0; i < n; ++i) max = std::max(max, x.get(r * n + i));
            for (int64_t i = 0; i < n; ++i) sum += std::exp(x.get(r * n + i) - max);
            for (int64_t i = 0; i < n; ++i) {
              const double want = std::exp(x.get(r * n + i) - max) / sum;
              ASSERT_NEAR(y.get(r * n + i), want, tolerance(to) * want + 6e-8);
            }
          }
        }
      }
    }
  });
}

TEST(Rows, ArgMaxTakesTheFirstAndNaN) {
  std::mt19937 random(kSeed);
  for_each_team([&](Team& team) {
    for (const DType dtype : kStorages) {
      for (const int64_t n : {1, 17, 300}) {
        const int64_t rows = 6;
        Elements x = random_integers(dtype, rows * n, random, 5);
        for (int64_t i = 0; i < n; ++i) x.set(i, -kInf);
        if (n == 17) x.set(4 * n + 11, std::nan("")), x.set(4 * n + 13, std::nan(""));
        std::vector<int64_t> y(rows);
        const ArgMaxArgs args{.n_rows = rows,
                              .row_size = n,
                              .dtype = dtype,
                              .x = x.data(),
                              .x_stride = n,
                              .y = y.data()};
        team.run([&](Member& member) { argmax(member, args); });
        for (int64_t r = 0; r < rows; ++r) {
          int64_t want = 0;
          for (int64_t i = 1; i < n; ++i)
            if (x.get(r * n + i) > x.get(r * n + want)) want = i;
          if (n == 17 && r == 4) want = 11;
          ASSERT_EQ(y[r], want);
        }
      }
    }
  });
}

TEST(Rows, CombineAddsInOrderAndRoundsOnce) {
  std::mt19937 random(kSeed);
  for_each_isa([&] {
    for (const DType dtype : kStorages)
      for (const int64_t n : {1, 7, 64, 150})
        for (const int64_t n_sources : {1, 2, 5}) {
          std::vector<Elements> pieces;
          std::vector<const void*> sources;
          for (int64_t s = 0; s < n_sources; ++s)
            pieces.push_back(random_elements(dtype, n, random));
          pieces.back().set(n / 2, std::nan(""));
          for (const Elements& piece : pieces) sources.push_back(piece.data());
          Elements sum(dtype, n + 1), most(dtype, n + 1);
          combine_rows(Combining::kSum, dtype, sources.data(), n_sources, sum.data(), n);
          combine_rows(Combining::kMax, dtype, sources.data(), n_sources, most.data(), n);
          for (int64_t i = 0; i < n; ++i) {
            if (i == n / 2) {
              ASSERT_TRUE(std::isnan(sum.get(i)) && std::isnan(most.get(i)));
              continue;
            }
            float total = static_cast<float>(pieces[0].get(i));
            double largest = pieces[0].get(i);
            for (size_t s = 1; s < pieces.size(); ++s) {
              total += static_cast<float>(pieces[s].get(i));
              largest = std::max(largest, pieces[s].get(i));
            }
            ASSERT_EQ(sum.get(i), round_to(total, dtype))
                << n_sources << " sources, seed " << kSeed;
            ASSERT_EQ(most.get(i), largest);
          }
          ASSERT_EQ(sum.get(n), 0);
          ASSERT_EQ(most.get(n), 0);
        }
  });
}

TEST(Rows, GatherGivesZerosOutsideTheWindow) {
  for_each_team([](Team& team) {
    constexpr int64_t kWidth = 5;
    const std::vector<int64_t> ids = {0, 3, 9, 4, 100, -1, 5, 6};
    std::vector<int32_t> narrow(ids.begin(), ids.end());
    std::vector<float> table(3 * kWidth);  // rows 4, 5, 6 of the whole table
    std::iota(table.begin(), table.end(), 1.0F);
    for (const bool wide : {true, false}) {
      std::vector<float> y(ids.size() * kWidth, -1.0F);
      const GatherArgs args{.n_ids = static_cast<int64_t>(ids.size()),
                            .id_dtype = wide ? DType::kI64 : DType::kI32,
                            .ids = wide ? static_cast<const void*>(ids.data()) : narrow.data(),
                            .table = table.data(),
                            .table_stride_bytes = kWidth * 4,
                            .row_bytes = kWidth * 4,
                            .first_row = 4,
                            .row_count = 3,
                            .y = y.data(),
                            .y_stride_bytes = kWidth * 4};
      team.run([&](Member& member) { gather_rows(member, args); });
      for (size_t i = 0; i < ids.size(); ++i)
        for (int64_t j = 0; j < kWidth; ++j) {
          const int64_t row = ids[i] - 4;
          const float want = row >= 0 && row < 3 ? table[row * kWidth + j] : 0.0F;
          ASSERT_EQ(y[i * kWidth + j], want) << "id " << ids[i];
        }
    }
  });
}

TEST(Rows, StridedCopyOfAnyLayout) {
  struct Case {
    Shape shape;
    Strides from, to;
  };
  const Case cases[] = {
      {{}, {}, {}},
      {{7}, {1}, {1}},
      {{7}, {0}, {1}},
      {{40000}, {1}, {1}},
      {{100, 130}, {1, 100}, {130, 1}},                  // transposed
      {{2, 5, 3, 8}, {120, 24, 8, 1}, {120, 8, 40, 1}},  // swap the middle
      {{3, 70, 4, 66}, {18480, 1, 4620, 70}, {18480, 264, 66, 1}},
      {{4, 3, 5}, {0, 5, 1}, {30, 10, 2}},  // expand into a strided slice
      {{6, 1, 9}, {9, 77, 1}, {1, 33, 6}},
      {{3, 0}, {1, 1}, {1, 1}},
  };
  for_each_team([&](Team& team) {
    for (const int64_t bytes : {1, 2, 4, 8}) {
      for (const Case& c : cases) {
        const auto extent = [&](const Strides& strides) {
          int64_t last = 0;
          for (size_t d = 0; d < c.shape.size(); ++d)
            last += strides[d] * std::max<int64_t>(0, c.shape[d] - 1);
          return last + 1;
        };
        std::vector<unsigned char> from(extent(c.from) * bytes);
        for (size_t i = 0; i < from.size(); ++i)
          from[i] = static_cast<unsigned char>(i * 7 + i / 256);
        std::vector<unsigned char> to(extent(c.to) * bytes, 0), want = to;
        for (int64_t i = 0; i < element_count(c.shape); ++i) {
          int64_t source = 0, target = 0, rest = i;
          for (size_t d = c.shape.size(); d-- > 0; rest /= c.shape[d]) {
            source += rest % c.shape[d] * c.from[d];
            target += rest % c.shape[d] * c.to[d];
          }
          std::memcpy(&want[target * bytes], &from[source * bytes], bytes);
        }
        const StridedCopy copy(bytes, c.shape, c.from, c.to);
        team.run([&](Member& member) { copy.run(member, from.data(), to.data()); });
        ASSERT_EQ(to, want) << to_string(c.shape) << " of " << bytes << " bytes";
      }
    }
  });
}

}  // namespace
}  // namespace shardwright::kernels
