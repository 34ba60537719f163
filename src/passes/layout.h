// How the elements of a value that went through reshapes and permutes lie in the value it came
// from.
#pragma once

#include <optional>
#include <vector>

#include "ir/graph.h"

namespace shardwright::passes {

// Every dimension as digits of a mixed radix, which reshapes split and permutes move about. The
// digits of the last dimension of the value where it all began are its features.
class Layout {
 public:
  struct Digit {
    int64_t size = 1;
    bool is_feature = false;
  };
  // One digit of the features cut to [begin, end).
  struct Cut {
    size_t digit = 0;
    int64_t begin = 0;
    int64_t end = 0;
    int64_t size = 0;  // before
  };

  explicit Layout(const Shape& shape);

  // False where the digits don't come out even.
  bool reshape(const Shape& shape);
  void permute(const std::vector<int64_t>& dims);
  // The rows [begin, end) of a dimension that is features alone; nothing where that is not one
  // range of one digit. Afterwards the digit has the size that is left.
  std::optional<Cut> slice(size_t dim, int64_t begin, int64_t end);

  bool is_original() const { return is_original_; }
  // Sizes of the digits, in the order of the value where it began.
  Shape origin_sizes() const;
  // For each digit as they lie now, its position in the order of the beginning.
  std::vector<int64_t> order() const;
  // Products of the sizes of the features before and after a digit.
  int64_t features_before(size_t digit) const;
  int64_t features_after(size_t digit) const;

 private:
  using Digits = std::vector<size_t>;  // indices into digits_, major first

  // Keeps `size` as the major part of the digit; the rest becomes a new one behind it.
  size_t split(size_t digit, int64_t size);

  std::vector<Digit> digits_;
  Digits origin_;             // all digits, in the order of the beginning
  std::vector<Digits> dims_;  // what each dimension is now
  bool is_original_ = true;
};

}  // namespace shardwright::passes
