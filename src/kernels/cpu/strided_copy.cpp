// StridedCopy: dims are put in the order of the target, and the last two are copied as blocks.
#include <algorithm>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "base/checked.h"
#include "kernels/cpu/rows.h"

namespace shardwright::kernels {
namespace {

// Columns of a block where one of the two layouts jumps: with strides that are powers of two, more
// lines than this fall out of L1 before they are used up.
constexpr int64_t kBlockColumns = 16;
// Elements of a row that a thread copies at a time where both layouts are contiguous.
constexpr int64_t kLongRow = 1 << 14;

struct Block {
  int64_t rows, columns;
  int64_t from_row, to_row;  // strides in elements
  int64_t from_column, to_column;
};

template <typename T>
void copy_block(const Block& block, const void* from, void* to) {
  const T* source = static_cast<const T*>(from);
  T* target = static_cast<T*>(to);
  const bool contiguous = block.from_column == 1 && block.to_column == 1;
  for (int64_t i = 0; i < block.rows; ++i, source += block.from_row, target += block.to_row) {
    if (contiguous) {
      std::memcpy(target, source, static_cast<size_t>(block.columns) * sizeof(T));
    } else {
      for (int64_t j = 0; j < block.columns; ++j)
        target[j * block.to_column] = source[j * block.from_column];
    }
  }
}

}  // namespace

StridedCopy::StridedCopy(int64_t element_bytes, const Shape& shape, const Strides& from_strides,
                         const Strides& to_strides)
    : element_bytes_(element_bytes) {
  CHECK(element_bytes == 1 || element_bytes == 2 || element_bytes == 4 || element_bytes == 8);
  CHECK(shape.size() <= kMaxDims && from_strides.size() == shape.size() &&
        to_strides.size() == shape.size());
  std::vector<Dim> dims;
  for (size_t i = 0; i < shape.size(); ++i)
    if (shape[i] != 1) dims.push_back({shape[i], from_strides[i], to_strides[i]});
  std::stable_sort(dims.begin(), dims.end(),
                   [](const Dim& a, const Dim& b) { return a.to > b.to; });
  std::vector<Dim> merged;
  for (const Dim& dim : dims) {
    if (!merged.empty() && merged.back().from == dim.from * dim.size &&
        merged.back().to == dim.to * dim.size) {
      merged.back() = {merged.back().size * dim.size, dim.from, dim.to};
    } else {
      merged.push_back(dim);
    }
  }
  while (merged.size() < 2) merged.insert(merged.begin(), Dim{});
  // A transposition: the dim in which the source is contiguous becomes the rows of the block.
  const auto is_contiguous = [](const Dim& dim) { return dim.from == 1 && dim.size > 1; };
  const auto source_dim = std::find_if(merged.begin(), merged.end(), is_contiguous);
  if (source_dim < merged.end() - 2) std::rotate(source_dim, source_dim + 1, merged.end() - 1);
  n_dims_ = static_cast<int>(merged.size());
  std::copy(merged.begin(), merged.end(), dims_);
}

void StridedCopy::run(Member& member, const void* from, void* to) const {
  const Dim& rows = dims_[n_dims_ - 2];
  const Dim& columns = dims_[n_dims_ - 1];
  const bool contiguous = columns.from == 1 && columns.to == 1;
  const int64_t column_chunk = contiguous ? kLongRow : kBlockColumns;
  const int64_t row_chunk =
      contiguous ? std::max<int64_t>(1, kLongRow / std::max<int64_t>(1, columns.size))
                 : 64 / element_bytes_;  // a cache line
  const int64_t row_blocks = ceil_div(rows.size, row_chunk);
  const int64_t column_blocks = ceil_div(columns.size, column_chunk);
  int64_t count = row_blocks * column_blocks;
  for (int d = 0; d < n_dims_ - 2; ++d) count *= dims_[d].size;
  const auto copy = element_bytes_ == 1   ? copy_block<uint8_t>
                    : element_bytes_ == 2 ? copy_block<uint16_t>
                    : element_bytes_ == 4 ? copy_block<uint32_t>
                                          : copy_block<uint64_t>;
  const Range share = member.share(count);
  for (int64_t index = share.begin; index < share.end; ++index) {
    const int64_t column = index % column_blocks * column_chunk;
    int64_t rest = index / column_blocks;
    const int64_t row = rest % row_blocks * row_chunk;
    rest /= row_blocks;
    int64_t from_offset = column * columns.from + row * rows.from;
    int64_t to_offset = column * columns.to + row * rows.to;
    for (int d = n_dims_ - 3; d >= 0; rest /= dims_[d].size, --d) {
      from_offset += rest % dims_[d].size * dims_[d].from;
      to_offset += rest % dims_[d].size * dims_[d].to;
    }
    const Block block{std::min(row_chunk, rows.size - row),
                      std::min(column_chunk, columns.size - column),
                      rows.from,
                      rows.to,
                      columns.from,
                      columns.to};
    copy(block, static_cast<const char*>(from) + from_offset * element_bytes_,
         static_cast<char*>(to) + to_offset * element_bytes_);
  }
}

}  // namespace shardwright::kernels
