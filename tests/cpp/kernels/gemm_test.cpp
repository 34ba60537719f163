// gemm against plain loops: every instruction set, dtype, body and ragged shape.
#include "kernels/gemm_case.h"

namespace shardwright::kernels {
namespace {

TEST(Gemm, IsExactOnSmallIntegersInEveryRaggedShape) {
  std::mt19937 random(1);
  Team teams[] = {Team(1), Team(2), Team(3)};
  for_every_isa([&] {
    int turn = 0;  // walks through teams and dtypes, so that the shapes meet them all
    for (const int64_t n : {1, 31, 33, 70})
      for (const int64_t k : {0, 1, 7, 131})
        for (const int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 129}) {
          ++turn;
          for (const DType w : {DType::kF32, DType::kBF16, DType::kI8})
            check_case(teams[turn % 3],
                       {.m = m,
                        .n = n,
                        .k = k,
                        .x = kDtypes[turn % (w == DType::kI8 ? 3 : 2)],
                        .w = w,
                        .y = kDtypes[turn / 2 % 3],
                        .bias = turn % 3 == 1,
                        .residual = turn % 5 == 1,
                        .accumulate = turn % 7 == 1},
                       0, small_integers(random));
          if (testing::Test::HasFatalFailure()) return;
        }
  });
}

TEST(Gemm, TakesAllDtypesInAllCombinations) {
  std::mt19937 random(2);
  Team team(2);
  for_every_isa([&] {
    for (const DType x : kDtypes)
      for (const DType w : kDtypes)
        for (const DType y : kDtypes)
          check_case(team, {.m = 20, .n = 70, .k = 67, .x = x, .w = w, .y = y, .bias = true}, 2e-6,
                     normal(random));
  });
}

// Rows whose numbers differ by many powers of two: x in bytes must be as good as x.
TEST(Gemm, Int8WeightsTakeRowsOfAnyMagnitude) {
  std::mt19937 random(9);
  std::normal_distribution<float> number(0, 1);
  Team team(2);
  for_every_isa([&] {
    for (const DType x : kDtypes)
      for (const float size : {1e-30F, 1e-6F, 1.0F, 3e4F}) {
        if (x == DType::kF16 && size == 1e-30F) continue;
        int64_t i = 0;
        // A weight of whole numbers up to 127, and one x in a hundred that is a hundred times as
        // large: `matrix` draws x first.
        const auto draw = [&]() -> float {
          const bool in_x = i++ < 9 * (203 + 3);
          if (!in_x) return static_cast<float>(static_cast<int>(random() % 255) - 127);
          return number(random) * size * (x != DType::kF16 && i % 101 == 0 ? 100.0F : 1.0F) / 3;
        };
        // In one byte less each would be 256 times as far off.
        const double tolerance = x == DType::kF32 ? 1e-5 : 1e-3;
        check_case(team, {.m = 9, .n = 40, .k = 203, .x = x, .w = DType::kI8}, tolerance, draw);
      }
  });
}

TEST(Gemm, Int8WeightsKeepWhatIsNotFinite) {
  Team team(1);
  for_every_isa([&] {
    for (const float bad : {std::nanf(""), INFINITY, -INFINITY}) {
      Buffer x = matrix(DType::kF32, 3, 20, 20, [] { return 1.0F; });
      x.set(1 * 20 + 7, bad);
      Buffer w = matrix(DType::kI8, 5, 20, 20, [] { return 3.0F; });
      Buffer panels(DType::kF32, panel_bytes(DType::kI8, 5, 20) / 4);
      Buffer y(DType::kF32, 15);
      GemmArgs args{.m = 3,
                    .n = 5,
                    .k = 20,
                    .x = x.data(),
                    .x_row_stride = 20,
                    .panels = panels.data(),
                    .panels_dtype = DType::kI8,
                    .y = y.data(),
                    .y_row_stride = 5};
      Buffer scratch(DType::kF32, gemm_scratch_bytes(args, 1) / 4);
      args.scratch = scratch.data();
      team.run([&](Member& member) {
        pack_panels(member, {.n = 5,
                             .k = 20,
                             .w = w.data(),
                             .w_dtype = DType::kI8,
                             .stride_n = 20,
                             .panels = panels.data(),
                             .panels_dtype = DType::kI8});
        gemm(member, args);
      });
      for (int64_t i = 0; i < 15; ++i)
        if (i / 5 == 1)
          EXPECT_FALSE(std::isfinite(y.get(i))) << isa_name(active_isa());
        else
          EXPECT_EQ(y.get(i), 60) << isa_name(active_isa());
    }
  });
}

TEST(Gemm, CutsLargeProblemsIntoBlocksOfAllDims) {
  std::mt19937 random(3);
  Team team(2);
  force_isa(available_isas().back());
  const auto check_all = [&](DType x, DType w) {
    check_case(team, {.m = 110, .n = 33, .k = 4501, .x = x, .w = w, .accumulate = true}, 0,
               small_integers(random));
    check_case(team, {.m = 12, .n = 40, .k = 12001, .x = x, .w = w, .bias = true}, 0,
               small_integers(random));
    check_case(team, {.m = 800, .n = 33, .k = 300, .x = x, .w = w}, 0, small_integers(random));
  };
  force_bf16_body(Bf16Body::kWiden);
  for (const DType x : {DType::kF32, DType::kBF16})
    for (const DType w : {DType::kF32, DType::kBF16, DType::kI8}) check_all(x, w);
  force_bf16_body(Bf16Body::kDot);
  check_all(DType::kBF16, DType::kBF16);
  force_bf16_body(Bf16Body::kMeasured);
  force_isa(std::nullopt);
}

TEST(Gemm, AppliesActivations) {
  std::mt19937 random(4);
  Team team(2);
  for_every_isa([&] {
    for (const Activation activation :
         {Activation::kRelu, Activation::kGelu, Activation::kGeluTanh, Activation::kSilu})
      check_case(
          team,
          {.m = 15, .n = 45, .k = 40, .bias = true, .residual = true, .activation = activation},
          1e-6, normal(random));
  });
}

// Weights beside each other, of which the second is a pair: y1 = relu(x w1^T + b) * (x u^T) + r.
void check_several(Team& team, DType dtype, DType w_dtype, int64_t m, int64_t k) {
  std::mt19937 random(7);
  const auto draw = [&] { return static_cast<float>(static_cast<int>(random() % 3) - 1); };
  constexpr int64_t kN[] = {40, 70, 5};
  Buffer x = matrix(dtype, m, k, k + 3, draw);
  std::vector<Buffer> w;
  std::vector<Buffer> panels;
  std::vector<Buffer> y;
  for (const int64_t n : {kN[0], kN[1], kN[2], kN[1]}) {  // the last is `up` of the second
    w.push_back(matrix(w_dtype, n, k, k, draw));
    panels.emplace_back(DType::kF32, panel_bytes(panel_dtype(w_dtype), n, k) / 4);
    y.push_back(matrix(DType::kF32, m, n, n + 1, draw));
  }
  Buffer bias = matrix(DType::kF32, 1, kN[1], kN[1], draw);
  Buffer residual = matrix(dtype, m, kN[1], kN[1] + 2, draw);
  const GemmInput input{.m = m,
                        .k = k,
                        .x = x.data(),
                        .x_dtype = dtype,
                        .x_row_stride = k + 3,
                        .panels_dtype = panel_dtype(w_dtype)};
  // Of the second and of its pair; 1 at every third column.
  std::vector<float> scale;
  for (int64_t i = 0; i < kN[1]; ++i) scale.push_back(i % 3 == 0 ? 1.0F : 2.0F);
  const std::vector<float> up_scale(scale.rbegin(), scale.rend());
  std::vector<GemmOutput> outputs(3);
  for (size_t i = 0; i < 3; ++i)
    outputs[i] = {
        .n = kN[i], .panels = panels[i].data(), .y = y[i].data(), .y_row_stride = kN[i] + 1};
  outputs[1].up_panels = panels[3].data();
  outputs[1].scale = scale.data();
  outputs[1].up_scale = up_scale.data();
  outputs[1].bias = bias.data();
  outputs[1].activation = Activation::kRelu;
  outputs[1].residual = residual.data();
  outputs[1].residual_dtype = dtype;
  outputs[1].residual_row_stride = kN[1] + 2;
  Buffer scratch(DType::kF32, gemm_scratch_bytes(input, outputs, team.n_threads()) / 4);
  team.run([&](Member& member) {
    for (size_t i = 0; i < w.size(); ++i)
      pack_panels(member, {.n = i == 3 ? kN[1] : kN[i],
                           .k = k,
                           .w = w[i].data(),
                           .w_dtype = w_dtype,
                           .stride_n = k,
                           .panels = panels[i].data(),
                           .panels_dtype = panel_dtype(w_dtype)});
    member.barrier();
    gemm(member, input, outputs, scratch.data());
  });
  const auto dot = [&](size_t i, int64_t row, int64_t column) {
    double sum = 0;
    for (int64_t j = 0; j < k; ++j) sum += x.get(row * (k + 3) + j) * w[i].get(column * k + j);
    return sum;
  };
  for (size_t i = 0; i < 3; ++i)
    for (int64_t row = 0; row < m; row += std::max<int64_t>(1, m / 5))
      for (int64_t column = 0; column<kN[i]; column += k> 1000 ? 13 : 1) {
        double want = dot(i, row, column);
        const auto c = static_cast<size_t>(column);
        if (i == 1)
          want = std::max(0.0, want * scale[c] + bias.get(column)) * dot(3, row, column) *
                     up_scale[c] +
                 residual.get(row * (kN[1] + 2) + column);
        ASSERT_EQ(y[i].get(row * (kN[i] + 1) + column), want)
            << "output " << i << " row " << row << " column " << column << ", m=" << m << " k=" << k
            << " " << dtype_name(dtype) << " " << isa_name(active_isa());
      }
}

TEST(Gemm, MultipliesSeveralWeightsAndPairsAtOnce) {
  for_every_isa([&] {
    for (int n_threads = 1; n_threads <= 3; ++n_threads) {
      Team team(n_threads);
      for (const DType dtype : kDtypes)
        for (const DType w : {dtype, DType::kI8}) {
          check_several(team, dtype, w, 1, 33);
          check_several(team, dtype, w, 7, 64);
          check_several(team, dtype, w, 50, 20);
        }
      // Several blocks of k, whose sums are kept for both of a pair.
      check_several(team, DType::kF32, DType::kF32, 41, 2500);
      check_several(team, DType::kBF16, DType::kBF16, 41, 5001);
      check_several(team, DType::kF32, DType::kI8, 41, 5001);
    }
  });
}

TEST(Gemm, MeasuredBodyIsExactToo) {
  std::mt19937 random(5);
  Team team(2);
  check_case(team, {.m = 33, .n = 70, .k = 64, .x = DType::kBF16, .w = DType::kBF16}, 0,
             small_integers(random));
}

TEST(Panels, GiveBackTheirRowsAndTheWhole) {
  std::mt19937 random(6);
  Team team(2);
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kI8})
    for (const int64_t n : {1, 32, 70})
      for (const int64_t k : {1, 16, 37}) {
        const float size = dtype == DType::kI8 ? 40 : 1;
        Buffer w = matrix(dtype, n, k, k, [&, draw = normal(random)]() mutable {
          return std::clamp(size * draw(), -128.0F, 127.0F);
        });
        const DType panels_dtype = panel_dtype(dtype);
        Buffer panels(DType::kF32, panel_bytes(panels_dtype, n, k) / 4);
        Buffer back(dtype, n * k);
        Buffer row(DType::kF32, k);
        team.run([&](Member& member) {
          pack_panels(member, {.n = n,
                               .k = k,
                               .w = w.data(),
                               .w_dtype = dtype,
                               .stride_n = k,
                               .stride_k = 1,
                               .panels = panels.data(),
                               .panels_dtype = panels_dtype});
          member.barrier();
          unpack_panels(member, panels_dtype, panels.data(), n, k, back.data(), dtype);
        });
        for (int64_t i = 0; i < n * k; ++i) ASSERT_EQ(back.get(i), w.get(i));
        read_panel_row(panels_dtype, panels.data(), k, n - 1, row.data(), DType::kF32);
        for (int64_t i = 0; i < k; ++i) ASSERT_EQ(row.get(i), w.get((n - 1) * k + i));
        read_panel_row(panels_dtype, panels.data(), k, n - 1, row.data(), DType::kF32, 0.5F);
        for (int64_t i = 0; i < k; ++i) ASSERT_EQ(row.get(i), w.get((n - 1) * k + i) * 0.5F);
      }
}

TEST(Panels, PackATransposedWeightToTheSameBytes) {
  std::mt19937 random(7);
  Team team(1);
  for (const DType panels_dtype : {DType::kF32, DType::kBF16, DType::kI8}) {
    const int64_t n = 45;
    const int64_t k = 39;
    Buffer w = matrix(panels_dtype, n, k, k, normal(random));
    Buffer transposed(panels_dtype, n * k);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < k; ++j) transposed.set(j * n + i, w.get(i * k + j));
    const int64_t bytes = panel_bytes(panels_dtype, n, k);
    Buffer a(DType::kF32, bytes / 4);
    Buffer b(DType::kF32, bytes / 4);
    team.run([&](Member& member) {
      pack_panels(member, {.n = n,
                           .k = k,
                           .w = w.data(),
                           .w_dtype = panels_dtype,
                           .stride_n = k,
                           .stride_k = 1,
                           .panels = a.data(),
                           .panels_dtype = panels_dtype});
      pack_panels(member, {.n = n,
                           .k = k,
                           .w = transposed.data(),
                           .w_dtype = panels_dtype,
                           .stride_n = 1,
                           .stride_k = n,
                           .panels = b.data(),
                           .panels_dtype = panels_dtype});
    });
    EXPECT_EQ(std::memcmp(a.data(), b.data(), static_cast<size_t>(bytes)), 0);
  }
}

}  // namespace
}  // namespace shardwright::kernels
