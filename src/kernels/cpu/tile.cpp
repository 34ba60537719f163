// The tile engine at run time: walks the loops of a plan and interprets its steps tile by tile.
#include "kernels/cpu/tile.h"

#include <algorithm>
#include <limits>

#include "base/check.h"
#include "base/checked.h"
#include "base/error.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/tile_plan.h"

namespace shardwright::kernels {
namespace {

static_assert(static_cast<int>(TileCode::kCopy) == 3 && static_cast<int>(TileCode::kAdd) == 23 &&
                  static_cast<int>(TileCode::kWhere) == 38,
              "tile.isa.cpp has the same numbers");
static_assert(static_cast<int>(TileCode::kReduceArgMax) < kTileCodes);

const TileTable& table_for(Isa isa) {
  const TileTable* tables[] = {&portable::tile_table, &avx2::tile_table, &avx512::tile_table,
                               &avx512bf16::tile_table};
  return *tables[static_cast<int>(isa)];
}

// A thread's place in a nest of loops, and each operand's offset there.
class Cursor {
 public:
  Cursor(const std::vector<TileLoop>& loops, int n_operands) : loops_(loops), n_(n_operands) {
    CHECK(loops.size() <= kMaxLoops);
  }
  void move_to(int64_t turn) {
    std::fill_n(offset_, n_, int64_t{0});
    for (size_t d = loops_.size(); d-- > 0;) {
      index_[d] = turn % loops_[d].count;
      turn /= loops_[d].count;
      for (int k = 0; k < n_; ++k) offset_[k] += index_[d] * loops_[d].step[k];
    }
  }
  void next() {
    for (size_t d = loops_.size(); d-- > 0;) {
      const TileLoop& loop = loops_[d];
      if (++index_[d] < loop.count) {
        for (int k = 0; k < n_; ++k) offset_[k] += loop.step[k];
        return;
      }
      index_[d] = 0;
      for (int k = 0; k < n_; ++k) offset_[k] -= loop.step[k] * (loop.count - 1);
    }
  }
  int64_t index(size_t from_last) const { return index_[loops_.size() - 1 - from_last]; }
  int64_t offset(int operand) const { return offset_[operand]; }

 private:
  static constexpr size_t kMaxLoops = kMaxDims + 2;
  const std::vector<TileLoop>& loops_;
  int n_;
  int64_t index_[kMaxLoops] = {};
  int64_t offset_[kMaxTileOperands] = {};
};

// The largest or smallest so far; a NaN stays.
double extreme(double best, double x, bool largest) {
  if (best != best) return best;
  return x != x || (largest ? x > best : x < best) ? x : best;
}

// One thread's registers and its walk.
class TileRun {
 public:
  TileRun(const TilePlan& plan, const void* const* inputs, void* const* outputs)
      : plan_(plan),
        inputs_(inputs),
        outputs_(outputs),
        kept_(plan.kept, plan.n_operands),
        reduced_(plan.reduced, plan.n_operands) {}

  void run(Range turns) {
    for (int i = 0; i < kMaxTileSlots; ++i) read_[i] = floats_[i];
    for (const Step& step : plan_.constants) {
      if (step.kind == StepKind::kConstant)
        std::fill_n(floats_[step.dst], kTileSize, static_cast<float>(step.imm));
      else
        std::fill_n(doubles_[step.dst], kTileSize, step.imm);
    }
    kept_.move_to(turns.begin);
    for (int64_t turn = turns.begin; turn < turns.end; ++turn, kept_.next()) {
      rows_ = 1;
      if (plan_.rows_per_tile > 1)
        rows_ = std::min(plan_.rows_per_tile, plan_.rows - kept_.index(1) * plan_.rows_per_tile);
      if (!plan_.reduces_columns) columns_ = columns_left(kept_);
      plan_.reduces ? reduce() : run_steps();
    }
  }

 private:
  int64_t columns_left(const Cursor& cursor) const {
    return std::min(kTileSize, plan_.columns - cursor.index(0) * kTileSize);
  }
  const char* from(int operand) const {
    return static_cast<const char*>(inputs_[operand]) + kept_.offset(operand) +
           reduced_.offset(operand);
  }
  char* to(int operand) const {
    return static_cast<char*>(outputs_[operand - plan_.n_inputs]) + kept_.offset(operand);
  }

  void run_steps() {
    const int64_t n = rows_ * columns_;
    const int64_t padded = round_up(n, 16);
    for (const Step& step : plan_.steps) {
      switch (step.kind) {
        case StepKind::kLoad:
          load(step, n);
          break;
        case StepKind::kStore:
          store(step);
          break;
        case StepKind::kFloat:
          step.function(floats_[step.dst], read(step.a), read(step.b), read(step.c), padded);
          read_[step.dst] = floats_[step.dst];
          break;
        default:
          run_wide(step, n);
      }
    }
  }
  const float* read(int slot) const { return slot < 0 ? nullptr : read_[slot]; }

  // The rows of this tile in an operand: as one, if they follow each other in memory.
  TileRows rows_of(int operand) const {
    const int64_t stride = plan_.column_stride[operand];
    const int64_t row_bytes = plan_.row_stride[operand];
    if (rows_ == 1 || row_bytes == stride * columns_ * bytes(operand))
      return {1, 0, rows_ * columns_, stride};
    return {rows_, row_bytes, columns_, stride};
  }
  int64_t bytes(int operand) const { return dtype_bytes(plan_.dtype[operand]); }

  void load(const Step& step, int64_t n) {
    const TileRows shape = rows_of(step.operand);
    const char* p = from(step.operand);
    // A whole f32 tile is read in place. All stores come last, so it can't change before.
    if (step.in_place && shape.rows == 1 && shape.stride == 1 && n % 16 == 0) {
      read_[step.dst] = reinterpret_cast<const float*>(p);
      for (int64_t i = 0; i < n * 4; i += 64) __builtin_prefetch(p + kTileSize * 4 + i);
      return;
    }
    read_[step.dst] = floats_[step.dst];
    plan_.table->load[static_cast<int>(step.dtype)](floats_[step.dst], p, shape);
  }

  void store(const Step& step) {
    const TileStore convert = plan_.table->store[static_cast<int>(step.dtype)];
    convert(to(step.operand), read(step.a), rows_of(step.operand));
  }

  void run_wide(const Step& step, int64_t n) {
    switch (step.kind) {
      case StepKind::kLoadWide:
        return load_rows(step);
      case StepKind::kStoreWide:
        return store_rows(step);
      case StepKind::kToWide:
        std::copy_n(read(step.a), n, doubles_[step.dst]);
        return;
      default:
        break;
    }
    const double* a = doubles_[step.a];
    const double* b = step.b < 0 ? a : doubles_[step.b];
    if (step.kind == StepKind::kWide && step.code == TileCode::kWhere) {
      const float* condition = read(step.a);
      const double* c = doubles_[step.c];
      for (int64_t i = 0; i < n; ++i) doubles_[step.dst][i] = condition[i] != 0.0F ? b[i] : c[i];
      return;
    }
    if (step.kind == StepKind::kWide) {
      for (int64_t i = 0; i < n; ++i) doubles_[step.dst][i] = apply_wide(step.code, a[i], b[i]);
      return;
    }
    if (step.kind == StepKind::kRoundWide) {
      for (int64_t i = 0; i < n; ++i) doubles_[step.dst][i] = round_wide(a[i], step.dtype);
      return;
    }
    read_[step.dst] = floats_[step.dst];
    for (int64_t i = 0; i < n; ++i) {
      float& result = floats_[step.dst][i];
      if (step.kind == StepKind::kCompare)
        result = compare_wide(step.code, a[i], b[i]) ? 1.0F : 0.0F;
      else if (step.kind == StepKind::kToTruth)
        result = a[i] != 0.0 ? 1.0F : 0.0F;
      else
        result = static_cast<float>(a[i]);
    }
  }
  void load_rows(const Step& step) {
    const int k = step.operand;
    const int64_t stride = plan_.column_stride[k] * bytes(k);
    double* value = doubles_[step.dst];
    for (int64_t row = 0; row < rows_; ++row)
      for (int64_t i = 0; i < columns_; ++i)
        *value++ = load_wide(from(k) + row * plan_.row_stride[k] + i * stride, step.dtype);
  }
  void store_rows(const Step& step) {
    const int k = step.operand;
    const int64_t stride = plan_.column_stride[k] * bytes(k);
    const double* value = doubles_[step.a];
    for (int64_t row = 0; row < rows_; ++row)
      for (int64_t i = 0; i < columns_; ++i)
        store_wide(to(k) + row * plan_.row_stride[k] + i * stride, step.dtype, *value++);
  }

  // One turn of the kept loops: either one result, or a row of results (one a column).
  void reduce() {
    const bool is_sum = plan_.reduce == TileCode::kReduceSum;
    const bool is_min = plan_.reduce == TileCode::kReduceMin;
    constexpr double kInf = std::numeric_limits<double>::infinity();
    const int64_t n_results = plan_.reduces_columns ? 1 : columns_;
    std::fill_n(best_, n_results, is_sum ? 0.0 : is_min ? kInf : -kInf);
    std::fill_n(best_index_, n_results, int64_t{0});
    if (plan_.reduced_count > 0) reduced_.move_to(0);
    int64_t position = 0;  // in the reduced dims
    for (int64_t turn = 0; turn < plan_.reduced_count; ++turn, reduced_.next()) {
      if (plan_.reduces_columns) columns_ = columns_left(reduced_);
      run_steps();
      plan_.reduces_columns ? add_row(position) : add_column_wise(position);
      position += plan_.reduces_columns ? columns_ : 1;
    }
    store_results(n_results);
  }

  void add_row(int64_t position) {
    const double* wide = doubles_[plan_.reduce_slot];
    const float* narrow = read(plan_.reduce_slot);
    double& best = best_[0];
    if (plan_.reduce == TileCode::kReduceArgMax) {
      for (int64_t i = 0; i < columns_; ++i)
        add_candidate(0, plan_.reduce_wide ? wide[i] : narrow[i], position + i);
      return;
    }
    const bool is_sum = plan_.reduce == TileCode::kReduceSum;
    const bool is_max = plan_.reduce == TileCode::kReduceMax;
    if (plan_.reduce_wide) {
      for (int64_t i = 0; i < columns_; ++i)
        best = is_sum ? best + wide[i] : extreme(best, wide[i], is_max);
    } else if (is_sum) {
      best += plan_.table->sum(narrow, columns_);
    } else {
      best = extreme(
          best, is_max ? plan_.table->max(narrow, columns_) : plan_.table->min(narrow, columns_),
          is_max);
    }
  }

  void add_column_wise(int64_t position) {
    const double* wide = doubles_[plan_.reduce_slot];
    const float* narrow = read(plan_.reduce_slot);
    if (plan_.reduce == TileCode::kReduceSum && !plan_.reduce_wide)
      return plan_.table->add_to(best_, narrow, columns_);
    for (int64_t i = 0; i < columns_; ++i) {
      const double x = plan_.reduce_wide ? wide[i] : narrow[i];
      if (plan_.reduce == TileCode::kReduceArgMax)
        add_candidate(i, x, position);
      else if (plan_.reduce == TileCode::kReduceSum)
        best_[i] += x;
      else
        best_[i] = extreme(best_[i], x, plan_.reduce == TileCode::kReduceMax);
    }
  }
  void add_candidate(int64_t i, double x, int64_t position) {
    if (x > best_[i] || (x != x && best_[i] == best_[i])) {
      best_[i] = x;
      best_index_[i] = position;
    }
  }

  void store_results(int64_t n_results) {
    const int k = plan_.reduce_operand;
    const int64_t stride = plan_.reduces_columns ? 0 : plan_.column_stride[k] * bytes(k);
    for (int64_t i = 0; i < n_results; ++i) {
      double result = best_[i];
      if (plan_.reduce == TileCode::kReduceArgMax) result = static_cast<double>(best_index_[i]);
      if (plan_.reduce_divisor != 0) result /= plan_.reduce_divisor;
      result = round_wide(result, plan_.reduce_dtype);
      store_wide(to(k) + i * stride, plan_.dtype[k], result);
    }
  }

  static constexpr int64_t kSlotSize = kTileSize + 16;  // 16: slots don't share cache sets
  const TilePlan& plan_;
  const void* const* inputs_;
  void* const* outputs_;
  Cursor kept_;
  Cursor reduced_;
  int64_t rows_ = 1;
  int64_t columns_ = 1;
  const float*
      read_[kMaxTileSlots];  // where each float slot's value is: its own place, or an input
  double best_[kTileSize];
  int64_t best_index_[kTileSize];
  alignas(64) float floats_[kMaxTileSlots][kSlotSize];
  alignas(64) double doubles_[kMaxTileSlots][kSlotSize];
};

}  // namespace

TileKernel::TileKernel(const TileProgram& program) {
  const size_t n_operands = program.inputs.size() + program.outputs.size();
  if (n_operands > kMaxTileOperands || program.shape.size() > kMaxDims)
    throw Error(ErrorCode::kUnsupported,
                "a fused chain reads and writes " + std::to_string(n_operands) + " tensors of " +
                    std::to_string(program.shape.size()) + " dimensions; at most " +
                    std::to_string(kMaxTileOperands) + " and " + std::to_string(kMaxDims) +
                    " are possible: fuse fewer operators");
  auto plan = std::make_shared<TilePlan>();
  plan->table = &table_for(active_isa());
  plan->n_inputs = static_cast<int>(program.inputs.size());
  plan->n_operands = static_cast<int>(n_operands);
  for (size_t i = 0; i < n_operands; ++i)
    plan->dtype[i] = i < program.inputs.size() ? program.inputs[i].dtype
                                               : program.outputs[i - program.inputs.size()].dtype;
  compile_steps(program, *plan);
  compile_loops(program, *plan);
  plan_ = std::move(plan);
}

void run_tile(Member& member, const TileKernel& kernel, const void* const* inputs,
              void* const* outputs) {
  const TilePlan& plan = kernel.plan();
  const Range turns = member.share(plan.kept_count);
  if (!turns.empty()) TileRun(plan, inputs, outputs).run(turns);
}

}  // namespace shardwright::kernels
