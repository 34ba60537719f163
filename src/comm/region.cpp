// The geometry of an exchange, and the loop that moves and combines its elements.
#include "comm/region.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "comm/communicator.h"
#include "kernels/cpu/rows.h"

namespace shardwright::comm {
namespace {

// A whole value seen as [outer, first, middle, second, inner] around the dimensions that are cut,
// first < second.
struct Frame {
  int first = -1;
  int second = -1;  // -1: only one dimension is cut
  int64_t outer = 1;
  int64_t first_size = 1;
  int64_t middle = 1;
  int64_t second_size = 1;
  int64_t inner = 1;
};

Frame frame_of(const ops::Exchange& e) {
  Frame f;
  int dims[2] = {e.from_dim, e.to_dim};
  std::sort(std::begin(dims), std::end(dims));
  if (dims[0] < 0 || dims[0] == dims[1]) dims[0] = -1;  // at most one dimension: it is dims[1]
  f.first = dims[0];
  f.second = dims[1];
  for (int d = 0; d < static_cast<int>(e.shape.size()); ++d) {
    const int64_t size = e.shape[static_cast<size_t>(d)];
    if (d == f.first)
      f.first_size = size;
    else if (d == f.second)
      f.second_size = size;
    else if (f.second >= 0 && d > f.second)
      f.inner *= size;
    else if (f.first >= 0 && d > f.first)
      f.middle *= size;
    else
      f.outer *= size;
  }
  if (f.second < 0) {  // nothing is cut: one run of everything
    f.inner = f.outer;
    f.outer = 1;
  }
  return f;
}

// A piece of the frame: ranges of the two cut dimensions that a buffer holds.
struct Box {
  Range first;
  Range second;
};

Box box_of(const Frame& f, int dim, const std::vector<Range>& cuts, int chip) {
  Box box{{0, f.first_size}, {0, f.second_size}};
  if (dim < 0) return box;
  const Range cut = cuts[static_cast<size_t>(chip)];
  if (dim == f.first)
    box.first = cut;
  else
    box.second = cut;
  return box;
}

// Offset of (outer 0, first a, middle 0, second b) in a buffer that holds `box`, and the strides of
// the three loops.
void place(const Frame& f, const Box& box, int64_t a, int64_t b, int64_t* offset,
           int64_t strides[3]) {
  const int64_t middle_stride = box.second.size() * f.inner;
  const int64_t first_stride = f.middle * middle_stride;
  strides[0] = box.first.size() * first_stride;
  strides[1] = first_stride;
  strides[2] = middle_stride;
  *offset = (a - box.first.begin) * first_stride + (b - box.second.begin) * f.inner;
}

Range intersect(Range a, Range b) { return {std::max(a.begin, b.begin), std::min(a.end, b.end)}; }

// Ranges of the source dimension within which the set of chips that hold it does not change.
std::vector<int64_t> breakpoints(const ops::Exchange& e, Range within) {
  std::vector<int64_t> points = {within.begin, within.end};
  for (const Range& cut : e.from_cuts)
    for (int64_t p : {cut.begin, cut.end})
      if (!cut.empty() && p > within.begin && p < within.end) points.push_back(p);
  std::sort(points.begin(), points.end());
  points.erase(std::unique(points.begin(), points.end()), points.end());
  return points;
}

// Whose pieces make up a range on chip `me`.
std::vector<int> sources_of(const ops::Exchange& e, Range range, int me) {
  const auto holds = [&](int chip) {
    return e.from_dim < 0 ||
           intersect(e.from_cuts[static_cast<size_t>(chip)], range).size() == range.size();
  };
  const bool one = e.combine == ops::Combine::kCopy;
  if (one && holds(me)) return {me};
  std::vector<int> chips;
  for (int chip = 0; chip < e.n; ++chip) {
    if (holds(chip)) chips.push_back(chip);
    if (one && !chips.empty()) break;
  }
  return chips;
}

Region region_of(const ops::Exchange& e, const Frame& f, const Box& block, const Box& target,
                 const std::vector<int>& chips) {
  Region region;
  int64_t strides[3];
  place(f, target, block.first.begin, block.second.begin, &region.target_offset, strides);
  const int64_t counts[3] = {f.outer, block.first.size(), f.middle};
  for (int i = 0; i < 3; ++i) region.loops[i] = {counts[i], strides[i]};
  region.run_length = block.second.size() * f.inner;
  for (int chip : chips) {
    Region::Source source;
    source.chip = chip;
    place(f, box_of(f, e.from_dim, e.from_cuts, chip), block.first.begin, block.second.begin,
          &source.offset, source.strides);
    region.sources.push_back(source);
  }
  return region;
}

void combine_f64(const double* const* sources, size_t n, double* target, int64_t count,
                 bool maximum) {
  for (int64_t i = 0; i < count; ++i) {
    double value = sources[0][i];
    for (size_t s = 1; s < n; ++s) {
      const double other = sources[s][i];
      // A NaN wins: max must not hide it.
      value = maximum ? (other > value || other != other ? other : value) : value + other;
    }
    target[i] = value;
  }
}

void combine_run(ops::Combine combine, DType dtype, const void* const* sources, size_t n,
                 void* target, int64_t count) {
  if (n == 1) {
    std::memcpy(target, sources[0], static_cast<size_t>(count * dtype_bytes(dtype)));
    return;
  }
  CHECK(is_floating(dtype), "integers are never partial");
  const bool maximum = combine == ops::Combine::kMax;
  if (dtype == DType::kF64)
    return combine_f64(reinterpret_cast<const double* const*>(sources), n,
                       static_cast<double*>(target), count, maximum);
  kernels::combine_rows(maximum ? kernels::Combining::kMax : kernels::Combining::kSum, dtype,
                        sources, static_cast<int64_t>(n), target, count);
}

}  // namespace

std::vector<Region> regions_of(const ops::Exchange& e, int chip) {
  const Frame f = frame_of(e);
  const Box target = box_of(f, e.to_dim, e.to_cuts, chip);
  std::vector<Region> regions;
  if (f.outer == 0 || f.middle == 0 || f.inner == 0 || target.first.empty() ||
      target.second.empty())
    return regions;
  const bool from_first = e.from_dim >= 0 && e.from_dim == f.first;
  const Range source_range = from_first ? target.first : target.second;
  const std::vector<int64_t> points =
      e.from_dim < 0 ? std::vector<int64_t>{source_range.begin, source_range.end}
                     : breakpoints(e, source_range);
  for (size_t i = 0; i + 1 < points.size(); ++i) {
    const Range range{points[i], points[i + 1]};
    Box block = target;
    (from_first ? block.first : block.second) = range;
    const std::vector<int> chips = sources_of(e, range, chip);
    CHECK(!chips.empty(), "no chip holds a range of an exchange");
    regions.push_back(region_of(e, f, block, target, chips));
  }
  return regions;
}

void combine_regions(const std::vector<Region>& regions, ops::Combine combine, DType dtype,
                     const void* const* sources, void* target, int64_t begin, int64_t end) {
  const int64_t bytes = dtype_bytes(dtype);
  const void* from[kMaxChips];
  int64_t first = 0;  // of the region
  for (const Region& region : regions) {
    const int64_t lo = std::max(begin, first) - first;
    const int64_t hi = std::min(end, first + region.count()) - first;
    first += region.count();
    for (int64_t i = lo; i < hi;) {
      const int64_t run = i / region.run_length;
      const int64_t within = i - run * region.run_length;
      const int64_t count = std::min(region.run_length - within, hi - i);
      const int64_t i2 = run % region.loops[2].count;
      const int64_t i1 = run / region.loops[2].count % region.loops[1].count;
      const int64_t i0 = run / (region.loops[2].count * region.loops[1].count);
      for (size_t s = 0; s < region.sources.size(); ++s) {
        const Region::Source& source = region.sources[s];
        const int64_t at = source.offset + i0 * source.strides[0] + i1 * source.strides[1] +
                           i2 * source.strides[2] + within;
        from[s] = static_cast<const std::byte*>(sources[source.chip]) + at * bytes;
      }
      const int64_t to = region.target_offset + i0 * region.loops[0].target_stride +
                         i1 * region.loops[1].target_stride + i2 * region.loops[2].target_stride +
                         within;
      combine_run(combine, dtype, from, region.sources.size(),
                  static_cast<std::byte*>(target) + to * bytes, count);
      i += count;
    }
  }
}

}  // namespace shardwright::comm
