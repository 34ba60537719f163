// matmul, the product of two activations, against plain loops.
#include "kernels/gemm_case.h"

namespace shardwright::kernels {
namespace {

struct MatmulCase {
  int64_t batch0, batch1, m, n, k;
  DType a, b, y;
  bool a_transposed, b_transposed, b_shared;
};

void check_matmul(Team& team, const MatmulCase& c, std::mt19937& random) {
  const int64_t count = c.batch0 * c.batch1;
  Buffer a = matrix(c.a, count, c.m * c.k, c.m * c.k, small_integers(random));
  Buffer b = matrix(c.b, count, c.k * c.n, c.k * c.n, small_integers(random));
  Buffer y(c.y, count * c.m * c.n);
  // y is laid out [batch1, batch0]: the batch strides must be taken, not guessed.
  MatmulArgs args{.batch = {c.batch0, c.batch1},
                  .m = c.m,
                  .n = c.n,
                  .k = c.k,
                  .a = {.data = a.data(),
                        .dtype = c.a,
                        .stride_batch = {c.batch1 * c.m * c.k, c.m * c.k},
                        .stride_row = c.a_transposed ? 1 : c.k,
                        .stride_column = c.a_transposed ? c.m : 1},
                  .b = {.data = b.data(),
                        .dtype = c.b,
                        .stride_batch = {c.b_shared ? 0 : c.batch1 * c.k * c.n, c.k * c.n},
                        .stride_row = c.b_transposed ? 1 : c.n,
                        .stride_column = c.b_transposed ? c.k : 1},
                  .y = y.data(),
                  .y_dtype = c.y,
                  .y_stride_batch = {c.m * c.n, c.batch0 * c.m * c.n},
                  .y_row_stride = c.n};
  Buffer scratch(DType::kF32, matmul_scratch_bytes(args, team.n_threads()) / 4);
  args.scratch = scratch.data();
  team.run([&](Member& member) { matmul(member, args); });
  for (int64_t i0 = 0; i0 < c.batch0; ++i0)
    for (int64_t i1 = 0; i1 < c.batch1; ++i1)
      for (int64_t i = 0; i < c.m; ++i)
        for (int64_t j = 0; j < c.n; ++j) {
          float want = 0;
          for (int64_t l = 0; l < c.k; ++l)
            want += a.get(i0 * args.a.stride_batch[0] + i1 * args.a.stride_batch[1] +
                          i * args.a.stride_row + l * args.a.stride_column) *
                    b.get(i0 * args.b.stride_batch[0] + i1 * args.b.stride_batch[1] +
                          l * args.b.stride_row + j * args.b.stride_column);
          ASSERT_EQ(y.get((i1 * c.batch0 + i0) * c.m * c.n + i * c.n + j), want)
              << "m=" << c.m << " n=" << c.n << " k=" << c.k << " batch " << count << " threads "
              << team.n_threads() << " at " << i << ", " << j;
        }
}

TEST(Matmul, IsExactForAnyLayoutBatchAndTeam) {
  std::mt19937 random(8);
  Team teams[] = {Team(1), Team(2), Team(3)};
  for_every_isa([&] {
    int turn = 0;
    for (const int64_t batch : {1, 2, 5})
      for (const int64_t m : {1, 16, 37})
        for (const int64_t n : {5, 64})
          for (const int64_t k : {3, 50}) {
            ++turn;
            check_matmul(teams[turn % 3],
                         {batch, turn % 2 + 1, m, n, k, kDtypes[turn % 3], kDtypes[turn / 3 % 3],
                          kDtypes[turn / 9 % 3], turn % 4 == 1, turn % 3 == 1, turn % 5 == 1},
                         random);
          }
  });
}

}  // namespace
}  // namespace shardwright::kernels
