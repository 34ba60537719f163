// What the tile engine gets from each instruction set: loops over one f32 tile, as plain functions.
#pragma once

#include <cstdint>

namespace shardwright::kernels {

inline constexpr int64_t kTileSize = 256;  // elements: 1 KiB, so that ~20 registers stay in L1
inline constexpr int kTileCodes = 64;      // above the last TileCode
inline constexpr int kStorages = 10;       // DType numbers

// dst, a, b, c: tiles; n a multiple of 16 (registers are padded). dst may be an operand.
using TileFunction = void (*)(float* dst, const float* a, const float* b, const float* c,
                              int64_t n);
// Rows of n elements, one after the other in the tile; stride in elements.
struct TileRows {
  int64_t rows;
  int64_t row_bytes;
  int64_t n;
  int64_t stride;
};
using TileLoad = void (*)(float* dst, const void* from, const TileRows& shape);
using TileStore = void (*)(void* to, const float* a, const TileRows& shape);

struct TileTable {
  TileFunction function[kTileCodes];  // by TileCode; null where the engine does it
  TileFunction round[kStorages];      // to bf16, f16, bool and back
  TileLoad load[kStorages];           // by DType: f32, bf16, f16, bool
  TileStore store[kStorages];
  double (*sum)(const float* a, int64_t n);
  float (*max)(const float* a, int64_t n);  // NaN if one is NaN
  float (*min)(const float* a, int64_t n);
  void (*add_to)(double* total, const float* a, int64_t n);
};

namespace portable {
extern const TileTable tile_table;
}
namespace avx2 {
extern const TileTable tile_table;
}
namespace avx512 {
extern const TileTable tile_table;
}
namespace avx512bf16 {
extern const TileTable tile_table;
}

}  // namespace shardwright::kernels
