// Packing weights into panels, and reading them back.
#include <algorithm>

#include "base/check.h"
#include "base/checked.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/gemm_isa.h"
#include "kernels/cpu/gemm_part.h"
#include "kernels/cpu/isa.h"

namespace shardwright::kernels {
namespace {

struct Bf16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};
struct PanelByte {
  uint8_t bits;
};
inline float to_f32(float value) { return value; }
inline float to_f32(PanelByte value) { return static_cast<float>(value.bits) - 128.0F; }
inline float to_f32(Bf16 value) { return bf16_to_f32(value.bits); }
inline float to_f32(F16 value) { return f16_to_f32(value.bits); }
inline void assign(float& to, float value) { to = value; }
inline void assign(Bf16& to, float value) { to.bits = f32_to_bf16(value); }
inline void assign(F16& to, float value) { to.bits = f32_to_f16(value); }
inline void assign(int8_t& to, float value) { to = static_cast<int8_t>(value); }

// Calls f with a null pointer of the type that stores `dtype` in a tensor,
template <typename Function>
void with_type(DType dtype, Function f) {
  switch (dtype) {
    case DType::kF32:
      return f(static_cast<float*>(nullptr));
    case DType::kBF16:
      return f(static_cast<Bf16*>(nullptr));
    case DType::kF16:
      return f(static_cast<F16*>(nullptr));
    case DType::kI8:
      return f(static_cast<int8_t*>(nullptr));
    default:
      CHECK(false, "gemm takes f32, bf16, f16 and i8");
  }
}
// or in panels.
template <typename Function>
void with_panel_type(DType dtype, Function f) {
  switch (dtype) {
    case DType::kF32:
      return f(static_cast<float*>(nullptr));
    case DType::kBF16:
      return f(static_cast<Bf16*>(nullptr));
    case DType::kI8:
      return f(static_cast<PanelByte*>(nullptr));
    default:
      CHECK(false, "panels are f32, bf16 or i8");
  }
}

const PackKernels& active_kernels() {
  static constexpr const PackKernels* kTables[kIsaCount] = {
      &portable::pack_kernels, &avx2::pack_kernels, &avx512::pack_kernels,
      &avx512bf16::pack_kernels};
  return *kTables[static_cast<int>(active_isa())];
}

}  // namespace

bool has_panels(DType dtype) {
  return dtype == DType::kI8 || (is_floating(dtype) && dtype != DType::kF64);
}

DType panel_dtype(DType dtype) { return dtype == DType::kF16 ? DType::kF32 : dtype; }

int64_t panel_bytes(DType panels, int64_t n, int64_t k) {
  return round_up(n, kPanelColumns) * round_up(k * dtype_bytes(panels), 4);
}

void pack_part(const PackArgs& args, Range panels) {
  CHECK(has_panels(args.w_dtype), "gemm takes f32, bf16, f16 and i8");
  CHECK(args.w_dtype == DType::kI8
            ? args.panels_dtype == DType::kI8
            : args.panels_dtype == DType::kF32 || args.panels_dtype == DType::kBF16);
  const PackKernels& kernels = active_kernels();
  const int64_t bytes_of_panel = panel_bytes(args.panels_dtype, kPanelColumns, args.k);
  for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
    const int64_t column = panel * kPanelColumns;
    const int64_t at = column * args.stride_n * dtype_bytes(args.w_dtype);
    char* out = static_cast<char*>(args.panels) + panel * bytes_of_panel;
    const PackPanelArgs pack{.w = static_cast<const char*>(args.w) + at,
                             .panel = reinterpret_cast<uint32_t*>(out),
                             .stride_n = args.stride_n,
                             .stride_k = args.stride_k,
                             .n_columns = std::min(kPanelColumns, args.n - column),
                             .k = args.k,
                             .w_dtype = static_cast<int32_t>(args.w_dtype),
                             .per_word = static_cast<int32_t>(4 / dtype_bytes(args.panels_dtype))};
    kernels.pack_panel(&pack);
  }
}

void pack_panels(Member& member, const PackArgs& args) {
  pack_part(args, member.share(ceil_div(args.n, kPanelColumns)));
}

void read_panel_row(DType panels_dtype, const void* panels, int64_t k, int64_t n, void* y,
                    DType y_dtype, float scale) {
  const int64_t panel = n / kPanelColumns;
  const int64_t column = n % kPanelColumns;
  const char* at = static_cast<const char*>(panels) +
                   panel * panel_bytes(panels_dtype, kPanelColumns, k) + column * 4;
  // Words of 4 bytes 32 apart: a float, or two bf16 or four bytes of successive k.
  with_panel_type(panels_dtype, [&]<typename P>(P*) {
    constexpr int64_t kPerWord = 4 / sizeof(P);
    const auto* items = reinterpret_cast<const P*>(at);
    with_type(y_dtype, [&]<typename T>(T*) {
      for (int64_t i = 0; i < k; ++i)
        assign(static_cast<T*>(y)[i],
               to_f32(items[i / kPerWord * kPerWord * kPanelColumns + i % kPerWord]) * scale);
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
