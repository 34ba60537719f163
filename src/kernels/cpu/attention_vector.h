// What prefill and decode share: masks and loads of rows; for *.isa.cpp only.
#pragma once

#include "kernels/cpu/attention_isa.h"
#include "kernels/cpu/vector_math.h"

namespace shardwright::kernels::SHARDWRIGHT_ISA_NAMESPACE {
namespace {

constexpr float kInfinity = __builtin_inff();

inline SeenKeys keys_seen_by(const AttentionGroup& g, int64_t row) {
  int64_t end = g.keys;
  int64_t first = 0;
  if (g.positions != nullptr) {
    end = g.positions[row * g.position_stride] + 1;
    if (g.window > 0 && end > g.window) first = end - g.window;
  } else if (g.causal) {
    end = g.query_begin + row + 1;
  }
  end = end < 0 ? 0 : end < g.keys ? end : g.keys;
  return {first < end ? first : end, end};
}

template <int kStorage>
using StoredAs = typename StorageOf<kStorage>::Type;

// Lanes [i, i + kLanes) of a row of n; zeros beyond its end.
template <int kStorage>
inline F load_at(const void* row, int64_t i, int64_t n) {
  const auto* p = static_cast<const StoredAs<kStorage>*>(row) + i;
  return n - i >= kLanes ? load<kStorage>(p) : load_part<kStorage>(p, n - i);
}
template <int kStorage>
inline void store_at(void* row, int64_t i, int64_t n, F value) {
  auto* p = static_cast<StoredAs<kStorage>*>(row) + i;
  if (n - i >= kLanes)
    store<kStorage>(p, value);
  else
    store_part<kStorage>(p, n - i, value);
}
template <int kStorage>
inline const void* row_of(const void* base, int64_t offset) {
  return static_cast<const StoredAs<kStorage>*>(base) + offset;
}

template <int kStorage>
inline float added_value(const void* mask, int64_t offset) {
  const float value =
      load_part<kStorage>(static_cast<const StoredAs<kStorage>*>(mask) + offset, 1)[0];
  // Scores are powers of 2. A finite value stays finite: a row of the lowest f32 is not empty.
  const float scaled = value * kLog2E;
  return scaled == -kInfinity && value != -kInfinity ? -3.40282347e38F : scaled;
}
// What the mask adds to a score.
inline float mask_value(const AttentionGroup& g, int64_t head, int64_t row, int64_t key) {
  const int64_t offset =
      head * g.mask_head_stride + row * g.mask_row_stride + key * g.mask_key_stride;
  switch (g.mask_dtype) {
    case kStoreBool:
      return static_cast<const uint8_t*>(g.mask)[offset] != 0 ? 0.0F : -kInfinity;
    case kStoreBF16:
      return added_value<kStoreBF16>(g.mask, offset);
    case kStoreF16:
      return added_value<kStoreF16>(g.mask, offset);
    default:
      return added_value<kStoreF32>(g.mask, offset);
  }
}

}  // namespace
}  // namespace shardwright::kernels::SHARDWRIGHT_ISA_NAMESPACE
