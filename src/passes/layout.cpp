// Layout.
#include "passes/layout.h"

#include <algorithm>

namespace shardwright::passes {

Layout::Layout(const Shape& shape) {
  for (size_t d = 0; d < shape.size(); ++d) {
    dims_.emplace_back();
    if (shape[d] == 1) continue;
    origin_.push_back(digits_.size());
    dims_.back().push_back(digits_.size());
    digits_.push_back({shape[d], d + 1 == shape.size()});
  }
}

size_t Layout::split(size_t digit, int64_t size) {
  const size_t rest = digits_.size();
  digits_.push_back({digits_[digit].size / size, digits_[digit].is_feature});
  digits_[digit].size = size;
  origin_.insert(std::find(origin_.begin(), origin_.end(), digit) + 1, rest);
  return rest;
}

bool Layout::reshape(const Shape& shape) {
  is_original_ = false;
  Digits left;  // last first
  for (size_t d = dims_.size(); d-- > 0;)
    left.insert(left.end(), dims_[d].rbegin(), dims_[d].rend());
  std::vector<Digits> dims(shape.size());
  for (size_t d = 0; d < shape.size(); ++d) {
    for (int64_t missing = shape[d]; missing != 1;) {
      if (left.empty() || missing == 0) return false;
      const size_t digit = left.back();
      left.pop_back();
      const int64_t size = digits_[digit].size;
      if (size > missing) {
        if (size % missing != 0) return false;
        left.push_back(split(digit, missing));
      } else if (missing % size != 0) {
        return false;
      }
      missing /= std::min(size, missing);
      dims[d].push_back(digit);
    }
  }
  dims_ = std::move(dims);
  return left.empty();
}

void Layout::permute(const std::vector<int64_t>& dims) {
  is_original_ = false;
  std::vector<Digits> permuted;
  for (const int64_t dim : dims)
    permuted.push_back(
        dims_[static_cast<size_t>(ops::normal_dim(dim, static_cast<int>(dims.size())))]);
  dims_ = std::move(permuted);
}

std::optional<Layout::Cut> Layout::slice(size_t dim, int64_t begin, int64_t end) {
  const Digits& digits = dims_[dim];
  if (digits.empty() || begin >= end) return std::nullopt;
  int64_t minor = 1;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (!digits_[digits[i]].is_feature) return std::nullopt;
    if (i > 0) minor *= digits_[digits[i]].size;
  }
  if (begin % minor != 0 || end % minor != 0) return std::nullopt;
  Digit& major = digits_[digits[0]];
  const Cut cut{digits[0], begin / minor, end / minor, major.size};
  major.size = cut.end - cut.begin;
  return cut;
}

Shape Layout::origin_sizes() const {
  Shape sizes;
  for (const size_t digit : origin_) sizes.push_back(digits_[digit].size);
  return sizes;
}

std::vector<int64_t> Layout::order() const {
  std::vector<int64_t> order;
  for (const Digits& digits : dims_)
    for (const size_t digit : digits)
      order.push_back(std::find(origin_.begin(), origin_.end(), digit) - origin_.begin());
  return order;
}

int64_t Layout::features_before(size_t digit) const {
  int64_t product = 1;
  for (const size_t other : origin_) {
    if (other == digit) break;
    if (digits_[other].is_feature) product *= digits_[other].size;
  }
  return product;
}

int64_t Layout::features_after(size_t digit) const {
  int64_t product = 1;
  for (size_t i = origin_.size(); i-- > 0 && origin_[i] != digit;)
    product *= digits_[origin_[i]].size;
  return product;
}

}  // namespace shardwright::passes
