// Attention of few queries (decode), compiled once per instruction set: a lane is an element of a
// row of k or v, so that each key is read once and nothing is packed.
#include "kernels/cpu/attention_vector.h"

namespace shardwright::kernels::SHARDWRIGHT_ISA_NAMESPACE {
namespace {

constexpr int64_t kMaxTogether = 4;  // columns that share the loads of a row
// Registers of a row of v whose sums are kept: with 4 columns 16 sums of 32 registers, 8 of 16.
constexpr int kTogetherRegisters = SHARDWRIGHT_ISA_LEVEL >= 2 ? 4 : 2;

int64_t padded(int64_t size) { return (size + kLanes - 1) / kLanes * kLanes; }

struct Keys {
  const void* rows;
  int64_t stride;
  int64_t count;
  int64_t size;
};

// scores[column][key] = q[column] . k[key], for kCount columns.
template <int kStorage, int kCount>
void score_keys(const Keys& keys, const float* q, float* scores) {
  const int64_t q_stride = padded(keys.size);
  for (int64_t first = 0; first < keys.count; first += kLanes) {
    F sums[kCount][kLanes];
    for (int64_t j = 0; j < kLanes; ++j) {
      const int64_t key = first + j < keys.count ? first + j : keys.count - 1;
      const void* row = row_of<kStorage>(keys.rows, key * keys.stride);
      F sum[kCount] = {};
      for (int64_t i = 0; i < keys.size; i += kLanes) {
        const F x = load_at<kStorage>(row, i, keys.size);
        for (int c = 0; c < kCount; ++c) sum[c] += x * loadu(q + c * q_stride + i);
      }
      for (int c = 0; c < kCount; ++c) sums[c][j] = sum[c];
    }
    for (int c = 0; c < kCount; ++c)
      storeu(scores + c * kAttentionKeys + first, sums_of_rows(sums[c]));
  }
}

// out[column] = factor[column] * out[column] + powers[column] * v, in kRegisters from `e` on.
template <int kStorage, int kCount, int kRegisters>
void add_values(const Keys& values, int64_t e, const float* powers, const float* factor,
                float* out) {
  const int64_t out_stride = padded(values.size);
  F sums[kCount][kRegisters];
  for (int c = 0; c < kCount; ++c)
    for (int r = 0; r < kRegisters; ++r)
      sums[c][r] = loadu(out + c * out_stride + e + r * kLanes) * factor[c];
  for (int64_t j = 0; j < values.count; ++j) {
    const void* row = row_of<kStorage>(values.rows, j * values.stride);
    F x[kRegisters];
    for (int r = 0; r < kRegisters; ++r) x[r] = load_at<kStorage>(row, e + r * kLanes, values.size);
    for (int c = 0; c < kCount; ++c)
      for (int r = 0; r < kRegisters; ++r) sums[c][r] += x[r] * powers[c * kAttentionKeys + j];
  }
  for (int c = 0; c < kCount; ++c)
    for (int r = 0; r < kRegisters; ++r) storeu(out + c * out_stride + e + r * kLanes, sums[c][r]);
}

template <int kStorage, int kCount>
void add_all_values(const Keys& values, const float* powers, const float* factor, float* out) {
  constexpr int64_t kWide = kTogetherRegisters * kLanes;
  int64_t e = 0;
  for (; e + kWide <= values.size; e += kWide)
    add_values<kStorage, kCount, kTogetherRegisters>(values, e, powers, factor, out);
  for (; e < values.size; e += kLanes)
    add_values<kStorage, kCount, 1>(values, e, powers, factor, out);
}

// Scaled and masked scores of one column to powers; the factor for all that came before.
float soften_row(const AttentionGroup& g, int64_t column, int64_t first_key, int64_t n,
                 float* scores, float* part) {
  const int64_t row = column / g.heads;
  const float scale = g.scale * kLog2E;
  const SeenKeys seen = keys_seen_by(g, row);
  const int64_t n_before = seen.first - first_key;
  const int64_t n_seen = seen.end - first_key;
  for (int64_t j = 0; j < n; ++j) scores[j] *= scale;
  if (g.mask != nullptr)
    for (int64_t j = 0; j < n; ++j)
      scores[j] += mask_value(g, column % g.heads, row, first_key + j);
  for (int64_t j = 0; j < n_before && j < n; ++j) scores[j] = -kInfinity;
  for (int64_t j = n_seen > 0 ? n_seen : 0; j < padded(n); ++j) scores[j] = -kInfinity;
  for (int64_t j = n; j < padded(n); ++j) scores[j] = -kInfinity;
  F most = splat(part[0]);
  for (int64_t j = 0; j < n; j += kLanes) {
    const F score = loadu(scores + j);
    most = score > most ? score : most;
  }
  const float largest = max_lanes(most);
  const float base = largest == -kInfinity ? 0.0F : largest;
  const float factor = exp2_negative(splat(part[0] - base))[0];
  F sum = {};
  for (int64_t j = 0; j < n; j += kLanes) {
    const F power = exp2_negative(loadu(scores + j) - base);
    sum += power;
    storeu(scores + j, power);
  }
  part[0] = largest;
  part[1] = part[1] * factor + sum_lanes(sum);
  return factor;
}

template <int kStorage, int kCount>
void add_block(const AttentionGroup& g, const Keys& keys, const Keys& values, int64_t first_key,
               int64_t first_column, const float* q, float* out, float* parts) {
  alignas(64) float scores[kCount * kAttentionKeys];
  float factor[kCount];
  score_keys<kStorage, kCount>(keys, q + first_column * padded(g.qk_size), scores);
  for (int c = 0; c < kCount; ++c)
    factor[c] = soften_row(g, first_column + c, first_key, keys.count, scores + c * kAttentionKeys,
                           parts + (first_column + c) * (kPartHeader + g.v_size));
  add_all_values<kStorage, kCount>(values, scores, factor, out + first_column * padded(g.v_size));
}

template <int kStorage>
void decode(const AttentionGroup& g, int64_t n_columns, int64_t first_key, int64_t last_key,
            float* parts, void* scratch) {
  float* q = static_cast<float*>(scratch);
  float* out = q + kDecodeColumns * padded(g.qk_size);
  for (int64_t c = 0; c < n_columns; ++c) {
    const void* row =
        row_of<kStorage>(g.q, c % g.heads * g.q_head_stride + c / g.heads * g.q_row_stride);
    for (int64_t i = 0; i < g.qk_size; i += kLanes)
      storeu(q + c * padded(g.qk_size) + i, load_at<kStorage>(row, i, g.qk_size));
    for (int64_t i = 0; i < g.v_size; i += kLanes) storeu(out + c * padded(g.v_size) + i, F{});
    parts[c * (kPartHeader + g.v_size)] = -kInfinity;
    parts[c * (kPartHeader + g.v_size) + 1] = 0;
  }
  for (int64_t key = first_key; key < last_key; key += kAttentionKeys) {
    const int64_t n = last_key - key < kAttentionKeys ? last_key - key : kAttentionKeys;
    const Keys keys{row_of<kStorage>(g.k, key * g.k_row_stride), g.k_row_stride, n, g.qk_size};
    const Keys values{row_of<kStorage>(g.v, key * g.v_row_stride), g.v_row_stride, n, g.v_size};
    for (int64_t c = 0; c < n_columns; c += kMaxTogether) {
      const int64_t count = n_columns - c;
      if (count >= 4)
        add_block<kStorage, 4>(g, keys, values, key, c, q, out, parts);
      else if (count == 3)
        add_block<kStorage, 3>(g, keys, values, key, c, q, out, parts);
      else if (count == 2)
        add_block<kStorage, 2>(g, keys, values, key, c, q, out, parts);
      else
        add_block<kStorage, 1>(g, keys, values, key, c, q, out, parts);
    }
  }
  for (int64_t c = 0; c < n_columns; ++c)
    for (int64_t i = 0; i < g.v_size; i += kLanes)
      store_at<kStoreF32>(parts + c * (kPartHeader + g.v_size) + kPartHeader, i, g.v_size,
                          loadu(out + c * padded(g.v_size) + i));
}

template <int kStorage>
void merge(const float* parts, int64_t n_parts, int64_t stride, int64_t v_size, void* out) {
  float largest = -kInfinity;
  for (int64_t p = 0; p < n_parts; ++p)
    largest = parts[p * stride] > largest ? parts[p * stride] : largest;
  const float base = largest == -kInfinity ? 0.0F : largest;
  float sum = 0;
  for (int64_t p = 0; p < n_parts; ++p)
    sum += parts[p * stride + 1] * exp2_negative(splat(parts[p * stride] - base))[0];
  const float scale = sum == 0.0F ? 0.0F : 1.0F / sum;  // a row that sees no key gives zeros
  for (int64_t i = 0; i < v_size; i += kLanes) {
    F total = {};
    for (int64_t p = 0; p < n_parts; ++p) {
      const float* part = parts + p * stride;
      const F weight = exp2_negative(splat(part[0] - base)) * scale;
      total += load_at<kStoreF32>(part + kPartHeader, i, v_size) * weight;
    }
    store_at<kStorage>(out, i, v_size, total);
  }
}

}  // namespace

const DecodeTable decode_table = {
    .decode = {decode<kStoreF32>, decode<kStoreBF16>, decode<kStoreF16>},
    .merge = {merge<kStoreF32>, merge<kStoreBF16>, merge<kStoreF16>},
};

}  // namespace shardwright::kernels::SHARDWRIGHT_ISA_NAMESPACE
