// A tile program made ready to run: steps over register slots, and loops over tiles.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cpu/tile.h"
#include "kernels/cpu/tile_isa.h"

namespace shardwright::kernels {

inline constexpr int kMaxTileSlots = 64;
inline constexpr int kMaxTileOperands = 32;

enum class StepKind : uint8_t {
  kLoad,       // float slot dst = input
  kLoadWide,   // double slot dst = input
  kStore,      // output = float slot a
  kStoreWide,  // output = double slot a
  kFloat,      // function over float slots
  kWide,       // code over double slots
  kCompare,    // float slot dst = double slots a ? b
  kToWide,     // double slot dst = float slot a
  kToFloat,    // float slot dst = double slot a
  kToTruth,    // float slot dst = double slot a is not 0
  kRoundWide,  // double slot dst = double slot a as an integer `dtype`
  kConstant,   // float slot dst = imm, once a run
  kWideConstant,
};

struct Step {
  StepKind kind = StepKind::kFloat;
  TileCode code = TileCode::kCopy;
  DType dtype = DType::kF32;
  TileFunction function = nullptr;
  int dst = -1;  // slots
  int a = -1;
  int b = -1;
  int c = -1;
  int operand = -1;  // inputs, then outputs
  double imm = 0;
  bool in_place = false;  // kLoad: the input may be read where it is
};

// One loop over tiles: bytes that each operand moves by at each turn.
struct TileLoop {
  int64_t count = 1;
  int64_t step[kMaxTileOperands] = {};
};

struct TilePlan {
  const TileTable* table = nullptr;
  int n_inputs = 0;
  int n_operands = 0;
  DType dtype[kMaxTileOperands] = {};
  std::vector<Step> constants;
  std::vector<Step> steps;

  // Loops over what is kept, shared between threads; for each turn the loops over what is reduced.
  // In both the outermost is first; the column loop, over chunks of kTileSize, is the last of its
  // nest, and the row loop the one before it.
  std::vector<TileLoop> kept;
  std::vector<TileLoop> reduced;
  int64_t kept_count = 1;
  int64_t reduced_count = 1;
  bool reduces_columns = false;  // the column loop is in `reduced`
  int64_t columns = 1;           // whole length of the inner dim
  int64_t rows = 1;              // of the dim outside it, where several rows fit into a tile
  int64_t rows_per_tile = 1;
  int64_t column_stride[kMaxTileOperands] = {};  // elements
  int64_t row_stride[kMaxTileOperands] = {};     // bytes

  // The reduction at the end.
  bool reduces = false;
  TileCode reduce = TileCode::kReduceSum;
  bool reduce_wide = false;
  int reduce_slot = -1;
  int reduce_operand = -1;
  DType reduce_dtype = DType::kF32;
  double reduce_divisor = 0;
};

inline bool is_wide(DType dtype) { return dtype == DType::kF64 || is_integer(dtype); }
// `value` as `dtype` would store it. Integers truncate and saturate at the ends of 64 bits, then
// wrap.
double round_wide(double value, DType dtype);
double apply_wide(TileCode code, double x, double y);
bool compare_wide(TileCode code, double x, double y);
double load_wide(const void* from, DType dtype);
void store_wide(void* to, DType dtype, double value);

// tile_wide.cpp: the functions above; tile_compile.cpp: the steps; tile_loops.cpp: the loops.
void compile_steps(const TileProgram& program, TilePlan& plan);
void compile_loops(const TileProgram& program, TilePlan& plan);

}  // namespace shardwright::kernels
