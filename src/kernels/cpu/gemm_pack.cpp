// Packing weights into panels, and reading them back.
#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/checked.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/gemm_part.h"

namespace shardwright::kernels {
namespace {

constexpr int64_t kBlockK = 16;  // a block of 32 columns x 16 k in f32 is 2 KB: it stays in L1

struct Bf16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};
inline float to_f32(float value) { return value; }
inline float to_f32(Bf16 value) { return bf16_to_f32(value.bits); }
inline float to_f32(F16 value) { return f16_to_f32(value.bits); }
inline void assign(float& to, float value) { to = value; }
inline void assign(Bf16& to, float value) { to.bits = f32_to_bf16(value); }
inline void assign(F16& to, float value) { to.bits = f32_to_f16(value); }

// Calls f with a null pointer of the type that stores `dtype`.
template <typename Function>
void with_type(DType dtype, Function f) {
  switch (dtype) {
    case DType::kF32:
      return f(static_cast<float*>(nullptr));
    case DType::kBF16:
      return f(static_cast<Bf16*>(nullptr));
    case DType::kF16:
      return f(static_cast<F16*>(nullptr));
    default:
      CHECK(false, "gemm takes f32, bf16 and f16");
  }
}

// block[k][column] = w of n_columns x n_k elements; the rest of the block is zero.
template <typename T>
void gather_block(const T* w, int64_t stride_n, int64_t stride_k, int64_t n_columns, int64_t n_k,
                  float (&block)[kBlockK][kPanelColumns]) {
  if (n_columns < kPanelColumns || n_k < kBlockK) std::memset(block, 0, sizeof(block));
  if (stride_n == 1) {
    for (int64_t k = 0; k < n_k; ++k)
      for (int64_t n = 0; n < n_columns; ++n) block[k][n] = to_f32(w[k * stride_k + n]);
  } else {
    for (int64_t n = 0; n < n_columns; ++n)
      for (int64_t k = 0; k < n_k; ++k) block[k][n] = to_f32(w[n * stride_n + k * stride_k]);
  }
}

// `panel` is the place of the block's first k; `n_k` of it count (rounded up to pairs in bf16).
void store_block(const float (&block)[kBlockK][kPanelColumns], int64_t n_k, float* panel) {
  std::memcpy(panel, block, static_cast<size_t>(n_k) * sizeof(block[0]));
}
void store_block(const float (&block)[kBlockK][kPanelColumns], int64_t n_k, Bf16* panel) {
  for (int64_t k = 0; k < n_k; k += 2)
    for (int64_t n = 0; n < kPanelColumns; ++n) {
      assign(panel[k * kPanelColumns + 2 * n], block[k][n]);
      assign(panel[k * kPanelColumns + 2 * n + 1], block[k + 1][n]);
    }
}

template <typename T, typename P>
void pack_panel(const PackArgs& args, int64_t panel, T* /*w*/, P* /*panels*/) {
  const int64_t padded_k = std::is_same_v<P, float> ? args.k : round_up(args.k, 2);
  const int64_t column = panel * kPanelColumns;
  const T* w = static_cast<const T*>(args.w) + column * args.stride_n;
  P* out = static_cast<P*>(args.panels) + panel * padded_k * kPanelColumns;
  float block[kBlockK][kPanelColumns];
  for (int64_t k = 0; k < args.k; k += kBlockK) {
    const int64_t n_k = std::min(kBlockK, args.k - k);
    gather_block(w + k * args.stride_k, args.stride_n, args.stride_k,
                 std::min(kPanelColumns, args.n - column), n_k, block);
    store_block(block, n_k, out + k * kPanelColumns);
  }
}

// Where (n, k) is: at panels[panel_offset + k part].
struct PanelIndex {
  bool pairs;
  int64_t padded_k;
  int64_t operator()(int64_t n, int64_t k) const {
    const int64_t panel = n / kPanelColumns * padded_k * kPanelColumns;
    const int64_t column = n % kPanelColumns;
    return panel +
           (pairs ? k / 2 * 2 * kPanelColumns + 2 * column + k % 2 : k * kPanelColumns + column);
  }
};

}  // namespace

DType panel_dtype(DType dtype) { return dtype == DType::kBF16 ? DType::kBF16 : DType::kF32; }

int64_t panel_bytes(DType panels, int64_t n, int64_t k) {
  const int64_t padded_k = panels == DType::kBF16 ? round_up(k, 2) : k;
  return round_up(n, kPanelColumns) * padded_k * dtype_bytes(panels);
}

void pack_part(const PackArgs& args, Range panels) {
  CHECK(args.panels_dtype == DType::kF32 || args.panels_dtype == DType::kBF16);
  with_type(args.w_dtype, [&](auto* w) {
    for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
      if (args.panels_dtype == DType::kBF16)
        pack_panel(args, panel, w, static_cast<Bf16*>(nullptr));
      else
        pack_panel(args, panel, w, static_cast<float*>(nullptr));
    }
  });
}

void pack_panels(Member& member, const PackArgs& args) {
  pack_part(args, member.share(ceil_div(args.n, kPanelColumns)));
}

void read_panel_row(DType panels_dtype, const void* panels, int64_t k, int64_t n, void* y,
                    DType y_dtype) {
  const bool pairs = panels_dtype == DType::kBF16;
  const PanelIndex index{.pairs = pairs, .padded_k = pairs ? round_up(k, 2) : k};
  with_type(panels_dtype, [&]<typename P>(P*) {
    with_type(y_dtype, [&]<typename T>(T*) {
      for (int64_t i = 0; i < k; ++i)
        assign(static_cast<T*>(y)[i], to_f32(static_cast<const P*>(panels)[index(n, i)]));
    });
  });
}

void unpack_panels(Member& member, DType panels_dtype, const void* panels, int64_t n, int64_t k,
                   void* w, DType w_dtype) {
  const Range rows = member.share(n);
  for (int64_t row = rows.begin; row < rows.end; ++row)
    read_panel_row(panels_dtype, panels, k, row,
                   static_cast<char*>(w) + row * k * dtype_bytes(w_dtype), w_dtype);
}

}  // namespace shardwright::kernels
