// The loops of a tile program: dims that are walked alike become one, the inner one gives tiles.
#include <algorithm>

#include "base/check.h"
#include "base/checked.h"
#include "kernels/cpu/tile_plan.h"

namespace shardwright::kernels {
namespace {

struct Dim {
  int64_t size = 1;
  bool reduced = false;
  int64_t stride[kMaxTileOperands] = {};  // bytes
};

// dims[i] and dims[i + 1] can be one dim: each operand walks them in one stride.
bool walks_on(const Dim& outer, const Dim& inner, int n_operands) {
  if (outer.reduced != inner.reduced) return false;
  for (int k = 0; k < n_operands; ++k)
    if (outer.stride[k] != inner.stride[k] * inner.size) return false;
  return true;
}

std::vector<Dim> collapsed_dims(const TileProgram& program, int n_operands) {
  std::vector<Dim> dims;
  for (size_t i = 0; i < program.shape.size(); ++i) {
    if (program.shape[i] == 1) continue;
    Dim dim;
    dim.size = program.shape[i];
    dim.reduced =
        std::count(program.reduced.begin(), program.reduced.end(), static_cast<int>(i)) > 0;
    for (int k = 0; k < n_operands; ++k) {
      const size_t n_inputs = program.inputs.size();
      const auto index = static_cast<size_t>(k);
      const bool is_output = index >= n_inputs;
      const TileOperand& operand =
          is_output ? program.outputs[index - n_inputs] : program.inputs[index];
      CHECK(operand.strides.size() == program.shape.size(), "one stride a dim of the tile program");
      if (!(is_output && dim.reduced))
        dim.stride[k] = operand.strides[i] * dtype_bytes(operand.dtype);
    }
    if (!dims.empty() && walks_on(dims.back(), dim, n_operands)) {
      std::copy_n(dim.stride, n_operands, dims.back().stride);
      dims.back().size *= dim.size;
    } else {
      dims.push_back(dim);
    }
  }
  if (dims.empty()) dims.push_back({.size = 1, .reduced = !program.reduced.empty()});
  return dims;
}

// A loop over all of `dim` in chunks.
TileLoop loop_over(const Dim& dim, int64_t chunk) {
  TileLoop loop;
  loop.count = ceil_div(dim.size, chunk);
  for (int k = 0; k < kMaxTileOperands; ++k) loop.step[k] = dim.stride[k] * chunk;
  return loop;
}

int64_t turns(const std::vector<TileLoop>& loops) {
  int64_t count = 1;
  for (const TileLoop& loop : loops) count *= loop.count;
  return count;
}

}  // namespace

void compile_loops(const TileProgram& program, TilePlan& plan) {
  std::vector<Dim> dims = collapsed_dims(program, plan.n_operands);
  const Dim inner = dims.back();
  dims.pop_back();
  plan.columns = inner.size;
  plan.reduces_columns = inner.reduced;
  for (int k = 0; k < plan.n_operands; ++k)
    plan.column_stride[k] = inner.stride[k] / dtype_bytes(plan.dtype[k]);

  // Short rows: several make a tile. (Not in reductions: their tiles are one row.)
  TileLoop row_loop;
  const bool packs_rows =
      !plan.reduces && inner.size > 0 && inner.size * 2 <= kTileSize && !dims.empty();
  if (packs_rows) {
    const Dim rows = dims.back();
    dims.pop_back();
    plan.rows = rows.size;
    const int64_t n_tiles = std::max<int64_t>(1, ceil_div(rows.size, kTileSize / inner.size));
    plan.rows_per_tile = std::max<int64_t>(1, ceil_div(rows.size, n_tiles));  // equal tiles
    row_loop = loop_over(rows, plan.rows_per_tile);
    std::copy_n(rows.stride, plan.n_operands, plan.row_stride);
  }
  for (const Dim& dim : dims) (dim.reduced ? plan.reduced : plan.kept).push_back(loop_over(dim, 1));
  if (packs_rows) plan.kept.push_back(row_loop);
  (inner.reduced ? plan.reduced : plan.kept).push_back(loop_over(inner, kTileSize));
  plan.kept_count = turns(plan.kept);
  plan.reduced_count = turns(plan.reduced);
}

}  // namespace shardwright::kernels
