// exchange as plain loops over pieces in double.
#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "ops/build.h"
#include "ops/exchange.h"

namespace shardwright::ops {
namespace {

Shape piece_shape(const Piece& piece) {
  Shape shape;
  for (const Range& range : piece) shape.push_back(range.size());
  return shape;
}

// Calls visit(position in the piece, position in the whole) for every element of the piece.
template <typename Visit>
void for_each_element(const Shape& whole, const Piece& piece, const Visit& visit) {
  CHECK(piece.size() == whole.size(), "a piece needs a range for each dimension");
  const Strides strides = contiguous_strides(whole);
  const Shape shape = piece_shape(piece);
  if (element_count(shape) == 0) return;
  int64_t begin = 0;
  for (size_t d = 0; d < piece.size(); ++d) {
    CHECK(0 <= piece[d].begin && piece[d].end <= whole[d], "a piece outside its tensor");
    begin += piece[d].begin * strides[d];
  }
  std::vector<int64_t> index(shape.size(), 0);
  size_t position = 0;
  do visit(position++, static_cast<size_t>(begin + position_of(index, strides)));
  while (next_index(shape, index));
}

// Copies come from the same arithmetic on different chips; matrix products may sum in another
// order.
bool agree(double a, double b) {
  constexpr double kTolerance = 1e-9;
  if (a == b || (std::isnan(a) && std::isnan(b))) return true;
  return std::abs(a - b) <= kTolerance * std::max({1.0, std::abs(a), std::abs(b)});
}

Piece piece_of(const Shape& shape, int dim, const std::vector<Range>& cuts, int chip) {
  Piece piece;
  for (const int64_t size : shape) piece.push_back({0, size});
  if (dim >= 0) piece[static_cast<size_t>(dim)] = cuts[static_cast<size_t>(chip)];
  return piece;
}

}  // namespace

RefTensor cut_piece(const RefTensor& whole, const Piece& piece) {
  RefTensor result(TensorType{whole.type.dtype, piece_shape(piece)});
  for_each_element(whole.type.shape, piece,
                   [&](size_t mine, size_t theirs) { result.data[mine] = whole.data[theirs]; });
  return result;
}

RefTensor join_pieces(const TensorType& whole, Combine combine,
                      std::span<const RefTensor* const> tensors, std::span<const Piece> pieces,
                      std::string_view name) {
  CHECK(tensors.size() == pieces.size());
  RefTensor result(whole);
  std::vector<int> holder(result.data.size(), -1);  // the first chip that holds the element
  for (size_t chip = 0; chip < tensors.size(); ++chip) {
    const std::string where = std::string(name) + ", chip " + std::to_string(chip);
    CHECK(tensors[chip]->type.shape == piece_shape(pieces[chip]),
          where + ": the piece is " + to_string(piece_shape(pieces[chip])) + ", the tensor " +
              to_string(tensors[chip]->type.shape));
    for_each_element(whole.shape, pieces[chip], [&](size_t mine, size_t theirs) {
      const double value = tensors[chip]->data[mine];
      double& all = result.data[theirs];
      if (holder[theirs] < 0) {
        holder[theirs] = static_cast<int>(chip);
        all = value;
      } else if (combine == Combine::kSum) {
        all += value;
      } else if (combine == Combine::kMax) {
        all = std::isnan(all) || all >= value ? all : value;
      } else {
        CHECK(agree(all, value), where + ": element " + std::to_string(theirs) + " is " +
                                     std::to_string(value) + ", but on chip " +
                                     std::to_string(holder[theirs]) + " " + std::to_string(all));
      }
    });
  }
  const auto missing = std::find(holder.begin(), holder.end(), -1);
  CHECK(missing == holder.end(),
        std::string(name) + ": no chip holds element " + std::to_string(missing - holder.begin()));
  return result;
}

std::vector<RefTensor> run_exchange(const Exchange& spec, std::span<const RefTensor* const> before,
                                    std::string_view name) {
  CHECK(static_cast<int>(before.size()) == spec.n, std::string(name) + ": a piece a chip");
  std::vector<Piece> pieces;
  for (int chip = 0; chip < spec.n; ++chip)
    pieces.push_back(piece_of(spec.shape, spec.from_dim, spec.from_cuts, chip));
  const TensorType type{before[0]->type.dtype, spec.shape};
  const RefTensor whole = join_pieces(type, spec.combine, before, pieces, name);
  std::vector<RefTensor> after;
  for (int chip = 0; chip < spec.n; ++chip)
    after.push_back(cut_piece(whole, piece_of(spec.shape, spec.to_dim, spec.to_cuts, chip)));
  return after;
}

}  // namespace shardwright::ops
