// Row kernels: each thread takes a share of the rows and calls its instruction set's function.
#include "kernels/cpu/rows.h"

#include <cstring>

#include "base/check.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/rows_isa.h"

namespace shardwright::kernels {
namespace {

static_assert(static_cast<int>(DType::kF32) == 0 && static_cast<int>(DType::kBF16) == 1 &&
                  static_cast<int>(DType::kF16) == 2 && static_cast<int>(DType::kBool) == 9,
              "vector.h has the same numbers");

const RowsTable& active_table() {
  static const RowsTable* const tables[] = {&portable::rows_table, &avx2::rows_table,
                                            &avx512::rows_table, &avx512bf16::rows_table};
  return *tables[static_cast<int>(active_isa())];
}

size_t storage(DType dtype) {
  const auto index = static_cast<size_t>(dtype);
  CHECK(index < 3, "row kernels take f32, bf16 and f16");
  return index;
}

const char* row_at(const void* base, int64_t row, int64_t stride, DType dtype) {
  return static_cast<const char*>(base) + row * stride * dtype_bytes(dtype);
}
char* row_at(void* base, int64_t row, int64_t stride, DType dtype) {
  return static_cast<char*>(base) + row * stride * dtype_bytes(dtype);
}

void norm(Member& member, const NormArgs& args, NormFunction function) {
  NormRow row{.x = nullptr,
              .y = nullptr,
              .weight = args.weight,
              .bias = args.bias,
              .add = nullptr,
              .sum = nullptr,
              .n = args.row_size,
              .eps = args.eps,
              .round_before_weight = args.round_before_weight,
              .weight_plus_one = args.weight_plus_one};
  const Range rows = member.share(args.n_rows);
  for (int64_t r = rows.begin; r < rows.end; ++r) {
    row.x = row_at(args.x, r, args.x_stride, args.dtype);
    row.y = row_at(args.y, r, args.y_stride, args.dtype);
    if (args.add != nullptr) {
      row.add = row_at(args.add, r, args.add_stride, args.dtype);
      row.sum = args.sum == nullptr ? row.y : row_at(args.sum, r, args.sum_stride, args.dtype);
    }
    function(row);
  }
}

}  // namespace

void rms_norm(Member& member, const NormArgs& args) {
  norm(member, args, active_table().rms_norm[storage(args.dtype)][storage(args.weight_dtype)]);
}

void layer_norm(Member& member, const NormArgs& args) {
  norm(member, args, active_table().layer_norm[storage(args.dtype)][storage(args.weight_dtype)]);
}

void softmax(Member& member, const SoftmaxArgs& args) {
  const SoftmaxFunction function =
      active_table().softmax[storage(args.x_dtype)][storage(args.y_dtype)];
  const Range rows = member.share(args.n_rows);
  for (int64_t r = rows.begin; r < rows.end; ++r)
    function(row_at(args.x, r, args.x_stride, args.x_dtype),
             row_at(args.y, r, args.y_stride, args.y_dtype), args.row_size);
}

void argmax(Member& member, const ArgMaxArgs& args) {
  const ArgMaxFunction function = active_table().argmax[storage(args.dtype)];
  const Range rows = member.share(args.n_rows);
  for (int64_t r = rows.begin; r < rows.end; ++r)
    args.y[r] = function(row_at(args.x, r, args.x_stride, args.dtype), args.row_size);
}

void combine_rows(Combining how, DType dtype, const void* const* sources, int64_t n_sources,
                  void* target, int64_t n) {
  active_table().combine[static_cast<int>(how)][storage(dtype)](sources, n_sources, target, n);
}

void gather_rows(Member& member, const GatherArgs& args) {
  CHECK(args.id_dtype == DType::kI64 || args.id_dtype == DType::kI32, "ids are i64 or i32");
  const Range ids = member.share(args.n_ids);
  for (int64_t i = ids.begin; i < ids.end; ++i) {
    const int64_t id = args.id_dtype == DType::kI64 ? static_cast<const int64_t*>(args.ids)[i]
                                                    : static_cast<const int32_t*>(args.ids)[i];
    const auto bytes = static_cast<size_t>(args.row_bytes);
    char* to = static_cast<char*>(args.y) + i * args.y_stride_bytes;
    const int64_t row = id - args.first_row;
    if (id < args.first_row || row >= args.row_count)
      std::memset(to, 0, bytes);
    else
      std::memcpy(to, static_cast<const char*>(args.table) + row * args.table_stride_bytes, bytes);
  }
}

}  // namespace shardwright::kernels
