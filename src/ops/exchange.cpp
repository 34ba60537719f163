// exchange: shapes before and after, and its attributes.
#include "ops/exchange.h"

#include <algorithm>

#include "base/check.h"
#include "base/checked.h"

namespace shardwright::ops {

namespace {

constexpr const char* kCombineNames[] = {"copy", "sum", "max"};

Combine parse_combine(std::string_view name) {
  for (int i = 0; i < 3; ++i)
    if (name == kCombineNames[i]) return static_cast<Combine>(i);
  CHECK(false, "unknown combine " + std::string(name));
  return Combine::kCopy;
}

std::vector<int64_t> flatten(const std::vector<Range>& cuts) {
  std::vector<int64_t> numbers;
  for (const Range& range : cuts) {
    numbers.push_back(range.begin);
    numbers.push_back(range.end);
  }
  return numbers;
}

std::vector<Range> unflatten(const std::vector<int64_t>& numbers) {
  CHECK(numbers.size() % 2 == 0);
  std::vector<Range> cuts;
  for (size_t i = 0; i < numbers.size(); i += 2) cuts.push_back({numbers[i], numbers[i + 1]});
  return cuts;
}

Shape piece_shape(Shape shape, int dim, const std::vector<Range>& cuts, int chip) {
  if (dim >= 0) shape[static_cast<size_t>(dim)] = cuts[static_cast<size_t>(chip)].size();
  return shape;
}

// A split side has one range a chip, inside the dimension; the other side has none.
void check_side(const Exchange& x, int dim, const std::vector<Range>& cuts) {
  if (dim < 0) {
    CHECK(dim == -1 && cuts.empty());
    return;
  }
  CHECK(static_cast<size_t>(dim) < x.shape.size());
  CHECK(static_cast<int>(cuts.size()) == x.n);
  const int64_t size = x.shape[static_cast<size_t>(dim)];
  for (const Range& range : cuts)
    CHECK(0 <= range.begin && range.begin <= range.end && range.end <= size);
}

}  // namespace

Shape Exchange::from_shape(int chip) const { return piece_shape(shape, from_dim, from_cuts, chip); }

Shape Exchange::to_shape(int chip) const { return piece_shape(shape, to_dim, to_cuts, chip); }

namespace {

// Elements of the whole value that lie in both of two pieces; a dim of -1 is all of it.
int64_t common_elements(const Exchange& e, int dim_a, const Range& a, int dim_b, const Range& b) {
  int64_t count = 1;
  for (int d = 0; d < static_cast<int>(e.shape.size()); ++d) {
    Range range{0, e.shape[static_cast<size_t>(d)]};
    if (d == dim_a) range = {std::max(range.begin, a.begin), std::min(range.end, a.end)};
    if (d == dim_b) range = {std::max(range.begin, b.begin), std::min(range.end, b.end)};
    count *= std::max<int64_t>(range.size(), 0);
  }
  return count;
}

}  // namespace

bool in_two_phases(const Exchange& e, DType dtype) {
  return e.from_dim < 0 && e.to_dim < 0 &&
         element_count(e.shape) * dtype_bytes(dtype) > kTwoPhaseBytes;
}

Range reduced_part(int64_t count, int n, int chip) {
  const int64_t part = round_up(ceil_div(count, n), 16);  // whole vectors
  return {std::min(chip * part, count), std::min((chip + 1) * part, count)};
}

int64_t received_bytes(const Exchange& e, DType dtype, int chip) {
  if (in_two_phases(e, dtype)) {
    const int64_t count = element_count(e.shape);
    const int64_t mine = reduced_part(count, e.n, chip).size();
    return ((e.n - 1) * mine + count - mine) * dtype_bytes(dtype);
  }
  const auto cut = [](int dim, const std::vector<Range>& cuts, int of) {
    return dim < 0 ? Range{} : cuts[static_cast<size_t>(of)];
  };
  const Range wanted = cut(e.to_dim, e.to_cuts, chip);
  const auto held_by = [&](int other) {
    return common_elements(e, e.to_dim, wanted, e.from_dim, cut(e.from_dim, e.from_cuts, other));
  };
  int64_t elements = 0;
  if (e.combine == Combine::kCopy)  // what it holds itself it takes from nobody
    elements = common_elements(e, e.to_dim, wanted, -1, {}) - held_by(chip);
  else
    for (int other = 0; other < e.n; ++other) elements += other == chip ? 0 : held_by(other);
  return elements * dtype_bytes(dtype);
}

Attrs to_attrs(const Exchange& x) {
  return {{"kind", x.kind},
          {"combine", std::string(kCombineNames[static_cast<int>(x.combine)])},
          {"from_dim", int64_t{x.from_dim}},
          {"from_cuts", flatten(x.from_cuts)},
          {"to_dim", int64_t{x.to_dim}},
          {"to_cuts", flatten(x.to_cuts)},
          {"shape", x.shape},
          {"n", int64_t{x.n}},
          {"with_previous", x.with_previous}};
}

Exchange exchange_of(const Attrs& attrs) {
  Exchange x;
  x.kind = attrs.text("kind");
  x.combine = parse_combine(attrs.text("combine"));
  x.from_dim = static_cast<int>(attrs.integer("from_dim"));
  x.from_cuts = unflatten(attrs.integers("from_cuts"));
  x.to_dim = static_cast<int>(attrs.integer("to_dim"));
  x.to_cuts = unflatten(attrs.integers("to_cuts"));
  x.shape = attrs.integers("shape");
  x.n = static_cast<int>(attrs.integer("n"));
  x.with_previous = attrs.boolean("with_previous", false);
  CHECK(x.n >= 1);
  check_side(x, x.from_dim, x.from_cuts);
  check_side(x, x.to_dim, x.to_cuts);
  return x;
}

const OpDef exchange{
    .name = "exchange",
    .arguments =
        "x, kind: str, combine: str, from_dim: int, from_cuts: ints, to_dim: int, "
        "to_cuts: ints, shape: ints, n: int, with_previous: bool = false",
};

}  // namespace shardwright::ops
