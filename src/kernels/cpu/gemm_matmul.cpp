// The batched product of two activations: each b is packed into scratch, then multiplied.
#include "base/checked.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/gemm_part.h"

namespace shardwright::kernels {
namespace {

DType b_panel_dtype(const MatmulArgs& args) {
  // bf16 panels lose nothing of b; the rows of a may still be f32.
  return panel_dtype(args.b.dtype);
}

int64_t b_panel_bytes(const MatmulArgs& args) {
  return round_up(panel_bytes(b_panel_dtype(args), args.n, args.k), 64);
}

const void* matrix_at(const MatrixBatch& matrix, int64_t i0, int64_t i1) {
  const int64_t at = i0 * matrix.stride_batch[0] + i1 * matrix.stride_batch[1];
  return static_cast<const char*>(matrix.data) + at * dtype_bytes(matrix.dtype);
}

// Whole matrices are given to the threads if that keeps nearly all of them busy.
bool by_matrices(int64_t count, int64_t n_threads) {
  return count * 10 >= ceil_div(count, n_threads) * n_threads * 9;
}

struct Product {
  PackArgs pack;
  GemmInput input;
  GemmOutput output;
};

Product product_at(const MatmulArgs& args, int64_t index, char* panels) {
  const int64_t i0 = index / args.batch[1];
  const int64_t i1 = index % args.batch[1];
  const int64_t y = i0 * args.y_stride_batch[0] + i1 * args.y_stride_batch[1];
  return {.pack = {.n = args.n,
                   .k = args.k,
                   .w = matrix_at(args.b, i0, i1),
                   .w_dtype = args.b.dtype,
                   .stride_n = args.b.stride_column,
                   .stride_k = args.b.stride_row,
                   .panels = panels,
                   .panels_dtype = b_panel_dtype(args)},
          .input = {.m = args.m,
                    .k = args.k,
                    .x = matrix_at(args.a, i0, i1),
                    .x_dtype = args.a.dtype,
                    .x_row_stride = args.a.stride_row,
                    .x_k_stride = args.a.stride_column,
                    .panels_dtype = b_panel_dtype(args)},
          .output = {.n = args.n,
                     .panels = panels,
                     .y = static_cast<char*>(args.y) + y * dtype_bytes(args.y_dtype),
                     .y_dtype = args.y_dtype,
                     .y_row_stride = args.y_row_stride}};
}

}  // namespace

int64_t matmul_scratch_bytes(const MatmulArgs& args, int n_threads) {
  const bool one_each = by_matrices(args.batch[0] * args.batch[1], n_threads);
  return b_panel_bytes(args) * (one_each ? n_threads : 1) +
         n_threads * gemm_part_scratch_bytes(args.m, round_up(args.n, kPanelColumns), args.k);
}

void matmul(Member& member, const MatmulArgs& args) {
  const int64_t count = args.batch[0] * args.batch[1];
  const int64_t n_panels = ceil_div(args.n, kPanelColumns);
  char* panels = static_cast<char*>(args.scratch);
  if (by_matrices(count, member.n_threads())) {
    char* scratch =
        panels + member.n_threads() * b_panel_bytes(args) +
        member.thread() * gemm_part_scratch_bytes(args.m, round_up(args.n, kPanelColumns), args.k);
    panels += member.thread() * b_panel_bytes(args);
    const Range mine = member.share(count);
    for (int64_t i = mine.begin; i < mine.end; ++i) {
      const Product product = product_at(args, i, panels);
      pack_part(product.pack, {0, n_panels});
      gemm_part(product.input, {&product.output, 1}, {0, args.m}, {0, n_panels}, scratch);
    }
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    const Product product = product_at(args, i, panels);
    pack_panels(member, product.pack);
    member.barrier();
    gemm_share(member, product.input, {&product.output, 1}, panels + b_panel_bytes(args));
    if (i + 1 < count) member.barrier();  // the next b goes where this one is
  }
}

}  // namespace shardwright::kernels
