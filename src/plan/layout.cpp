// Where values lie: normal strides, and views backwards.
#include "plan/layout.h"

#include "base/check.h"

namespace shardwright::plan {

Strides normal_strides(const Shape& shape, Strides strides) {
  CHECK(shape.size() == strides.size());
  if (element_count(shape) == 0) return contiguous_strides(shape);
  int64_t gapless = 1;
  for (size_t d = shape.size(); d-- > 0;) {
    if (shape[d] == 1) strides[d] = gapless;
    gapless = strides[d] * shape[d];
  }
  return strides;
}

std::optional<Strides> strides_before_views(const Shape& shape, const Shape& seen_shape,
                                            const Strides& seen, const Strides& wanted) {
  if (element_count(shape) != element_count(seen_shape)) return std::nullopt;
  const Strides contiguous = contiguous_strides(shape);
  if (is_contiguous(seen_shape, seen) && is_contiguous(seen_shape, wanted)) return contiguous;
  if (element_count(shape) == 0) return contiguous;
  Strides result = contiguous;
  std::vector<bool> taken(seen_shape.size(), false);
  for (size_t d = 0; d < shape.size(); ++d) {
    if (shape[d] == 1) continue;
    size_t s = 0;
    while (s < seen_shape.size() &&
           (taken[s] || seen_shape[s] != shape[d] || seen[s] != contiguous[d]))
      ++s;
    if (s == seen_shape.size()) return std::nullopt;
    taken[s] = true;
    result[d] = wanted[s];
  }
  return normal_strides(shape, std::move(result));
}

}  // namespace shardwright::plan
