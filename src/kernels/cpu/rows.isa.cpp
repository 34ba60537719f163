// Norms, softmax and argmax of one row, compiled once per instruction set.
#include "kernels/cpu/rows_isa.h"
#include "kernels/cpu/vector_math.h"

namespace shardwright::kernels::SHARDWRIGHT_ISA_NAMESPACE {
namespace {

template <int kStorage>
using StoredAs = typename StorageOf<kStorage>::Type;

// Elements [i, i + kLanes) of a row of n; lanes beyond its end are `rest`.
template <int kStorage>
inline F load_at(const void* row, int64_t i, int64_t n, float rest = 0) {
  const auto* p = static_cast<const StoredAs<kStorage>*>(row) + i;
  return n - i >= kLanes ? load<kStorage>(p) : load_part<kStorage>(p, n - i, rest);
}
template <int kStorage>
inline void store_at(void* row, int64_t i, int64_t n, F value) {
  auto* p = static_cast<StoredAs<kStorage>*>(row) + i;
  if (n - i >= kLanes)
    store<kStorage>(p, value);
  else
    store_part<kStorage>(p, n - i, value);
}

// A row to read, by whole vectors and the rest of one.
template <int kStorage>
struct StoredRow {
  const void* row;
  int64_t n;
  F whole(int64_t i) const {
    return load<kStorage>(static_cast<const StoredAs<kStorage>*>(row) + i);
  }
  F rest(int64_t i) const { return load_at<kStorage>(row, i, n); }
};
// x + add, stored as `sum` on the way. Two roundings are one: what is stored is what is given.
template <int kStorage>
struct AddedRow {
  const NormRow& args;
  F whole(int64_t i) const {
    const F sum = StoredRow<kStorage>{args.x, args.n}.whole(i) +
                  StoredRow<kStorage>{args.add, args.n}.whole(i);
    store<kStorage>(static_cast<StoredAs<kStorage>*>(args.sum) + i, sum);
    return rounded<kStorage>(sum);
  }
  F rest(int64_t i) const {
    const F sum = load_at<kStorage>(args.x, i, args.n) + load_at<kStorage>(args.add, i, args.n);
    store_at<kStorage>(args.sum, i, args.n, sum);
    return rounded<kStorage>(sum);
  }
};

// Sum of part(x) over a row, part(0) being 0. Four running sums hide the latency of the addition.
template <typename Row, typename Part>
inline float sum_over(const Row& row, int64_t n, Part part) {
  F total[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes)
    for (int k = 0; k < 4; ++k) total[k] += part(row.whole(i + k * kLanes));
  for (; i + kLanes <= n; i += kLanes) total[0] += part(row.whole(i));
  float sum = sum_lanes((total[0] + total[1]) + (total[2] + total[3]));
  if (i < n) {
    float rest[kLanes];
    storeu(rest, part(row.rest(i)));
    for (int64_t j = 0; j < n - i; ++j) sum += rest[j];
  }
  return sum;
}
// The same over what is normed: x, or x + add.
template <int kStorage, typename Part>
inline float sum_over_normed(const NormRow& row, Part part) {
  return row.add != nullptr ? sum_over(AddedRow<kStorage>{row}, row.n, part)
                            : sum_over(StoredRow<kStorage>{row.x, row.n}, row.n, part);
}

template <int kStorage, int kWeight>
void rms_norm_row(const NormRow& row) {
  const float squares = sum_over_normed<kStorage>(row, [](F x) { return x * x; });
  const void* normed = row.add != nullptr ? row.sum : row.x;
  const float scale = 1.0F / __builtin_sqrtf(squares / static_cast<float>(row.n) + row.eps);
  const float one = row.weight_plus_one ? 1.0F : 0.0F;
  for (int64_t i = 0; i < row.n; i += kLanes) {
    F y = load_at<kStorage>(normed, i, row.n) * scale;
    if (row.round_before_weight) y = rounded<kStorage>(y);
    if (row.weight != nullptr) y *= load_at<kWeight>(row.weight, i, row.n) + one;
    store_at<kStorage>(row.y, i, row.n, y);
  }
}

template <int kStorage, int kWeight>
void layer_norm_row(const NormRow& row) {
  const auto count = static_cast<float>(row.n);
  const float mean = sum_over_normed<kStorage>(row, [](F x) { return x; }) / count;
  const void* normed = row.add != nullptr ? row.sum : row.x;
  const float squares = sum_over(StoredRow<kStorage>{normed, row.n}, row.n,
                                 [mean](F x) { return (x - mean) * (x - mean); });
  const float scale = 1.0F / __builtin_sqrtf(squares / count + row.eps);
  for (int64_t i = 0; i < row.n; i += kLanes) {
    F y = (load_at<kStorage>(normed, i, row.n) - mean) * scale;
    if (row.round_before_weight) y = rounded<kStorage>(y);
    if (row.weight != nullptr) y *= load_at<kWeight>(row.weight, i, row.n);
    if (row.bias != nullptr) y += load_at<kWeight>(row.bias, i, row.n);
    store_at<kStorage>(row.y, i, row.n, y);
  }
}

template <int kStorage>
float max_of_row(const void* x, int64_t n) {
  F best = splat(-__builtin_inff());
  for (int64_t i = 0; i < n; i += kLanes)
    best = maximum(best, load_at<kStorage>(x, i, n, -__builtin_inff()));
  return max_lanes(best);
}

template <int kFrom, int kTo>
void softmax_row(const void* x, void* y, int64_t n) {
  const float max = max_of_row<kFrom>(x, n);
  if constexpr (kTo == kStoreF32) {  // y holds the powers, exact, until the sum is known
    F total = {};
    for (int64_t i = 0; i < n; i += kLanes) {
      const F power = exp_of(load_at<kFrom>(x, i, n, -__builtin_inff()) - max);
      total += power;
      store_at<kTo>(y, i, n, power);
    }
    const float scale = 1.0F / sum_lanes(total);
    for (int64_t i = 0; i < n; i += kLanes) store_at<kTo>(y, i, n, load_at<kTo>(y, i, n) * scale);
  } else {
    F total = {};
    for (int64_t i = 0; i < n; i += kLanes)
      total += exp_of(load_at<kFrom>(x, i, n, -__builtin_inff()) - max);
    const float scale = 1.0F / sum_lanes(total);
    for (int64_t i = 0; i < n; i += kLanes)
      store_at<kTo>(y, i, n, exp_of(load_at<kFrom>(x, i, n) - max) * scale);
  }
}

inline F larger(F a, F b) { return b > a || b != b ? b : a; }

template <int kStorage, bool kMaximum>
void combine_row(const void* const* sources, int64_t n_sources, void* target, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    F total = load_at<kStorage>(sources[0], i, n);
    for (int64_t s = 1; s < n_sources; ++s) {
      const F other = load_at<kStorage>(sources[s], i, n);
      total = kMaximum ? larger(total, other) : total + other;
    }
    store_at<kStorage>(target, i, n, total);
  }
}

// Each lane keeps the first of its largest; then the lanes are compared. NaN is above all.
template <int kStorage>
int64_t argmax_row(const void* x, int64_t n) {
  F best = splat(-__builtin_inff());
  I here;
  for (int i = 0; i < kLanes; ++i) here[i] = i;
  I where = here;
  for (int64_t i = 0; i < n; i += kLanes, here += kLanes) {
    const F value = load_at<kStorage>(x, i, n, -__builtin_inff());
    const I better = (value > best) | ((value != value) & (best == best));
    best = better ? value : best;
    where = better ? here : where;
  }
  float values[kLanes];
  int32_t places[kLanes];
  storeu(values, best);
  __builtin_memcpy(places, &where, sizeof(places));
  int winner = 0;
  for (int i = 1; i < kLanes && i < n; ++i) {
    const bool both_nan = values[i] != values[i] && values[winner] != values[winner];
    const bool equal = values[i] == values[winner] || both_nan;
    const bool larger =
        values[i] > values[winner] || (values[i] != values[i] && values[winner] == values[winner]);
    if (larger || (equal && places[i] < places[winner])) winner = i;
  }
  return places[winner];
}

}  // namespace

const RowsTable rows_table = {
    .rms_norm = {{rms_norm_row<0, 0>, rms_norm_row<0, 1>, rms_norm_row<0, 2>},
                 {rms_norm_row<1, 0>, rms_norm_row<1, 1>, rms_norm_row<1, 2>},
                 {rms_norm_row<2, 0>, rms_norm_row<2, 1>, rms_norm_row<2, 2>}},
    .layer_norm = {{layer_norm_row<0, 0>, layer_norm_row<0, 1>, layer_norm_row<0, 2>},
                   {layer_norm_row<1, 0>, layer_norm_row<1, 1>, layer_norm_row<1, 2>},
                   {layer_norm_row<2, 0>, layer_norm_row<2, 1>, layer_norm_row<2, 2>}},
    .softmax = {{softmax_row<0, 0>, softmax_row<0, 1>, softmax_row<0, 2>},
                {softmax_row<1, 0>, softmax_row<1, 1>, softmax_row<1, 2>},
                {softmax_row<2, 0>, softmax_row<2, 1>, softmax_row<2, 2>}},
    .argmax = {argmax_row<0>, argmax_row<1>, argmax_row<2>},
    .combine = {{combine_row<0, false>, combine_row<1, false>, combine_row<2, false>},
                {combine_row<0, true>, combine_row<1, true>, combine_row<2, true>}},
};

}  // namespace shardwright::kernels::SHARDWRIGHT_ISA_NAMESPACE
