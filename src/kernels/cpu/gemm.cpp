// The loop nest of gemm around the micro kernels of gemm.isa.cpp.
#include "kernels/cpu/gemm.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <vector>

#include "base/check.h"
#include "base/checked.h"
#include "kernels/cpu/gemm_isa.h"
#include "kernels/cpu/gemm_part.h"
#include "kernels/cpu/isa.h"

namespace shardwright::kernels {
namespace {

static_assert(static_cast<int>(DType::kF32) == 0 && static_cast<int>(DType::kBF16) == 1 &&
              static_cast<int>(DType::kF16) == 2 &&
              static_cast<int>(DType::kI8) == 7);  // the kernels know dtypes by number

constexpr int64_t kStepBytes = 128;                   // of a panel
constexpr int64_t kSumsRowBytes = kPanelColumns * 4;  // of a row of sums
constexpr int64_t kStepsAtOnce = 4;                   // for which a micro kernel prefetches
constexpr int64_t kLinesOfSteps = kStepsAtOnce * kStepBytes / 64;
// How far a lone tile fetches ahead: memory latency (100 ns) times the bandwidth of a core.
constexpr int64_t kFetchAheadBytes = 2048;
// Scratch of a thread: bounds that hold on every machine, so that plans don't depend on it.
constexpr int64_t kMaxStageBytes = 512 << 10;
constexpr int64_t kMaxSumsBytes = 256 << 10;
// Behind a staged row, so that the rows of a tile don't share sets of the L1 cache, and for RowEnd.
constexpr int64_t kStagePadBytes = 64;
static_assert(sizeof(RowEnd) <= kStagePadBytes);
// At strides of these multiples all rows fall into one or two sets, which hold 8 lines each.
constexpr int64_t kConflictBytes = 2048;
constexpr int64_t kMaxRowsOfOneSet = 4;
// Of 4 k, after which a sum of products of bytes could exceed 32 bits.
constexpr int64_t kMaxInt8Steps = INT32_MAX / (4 * 255 * 128);
// Shares of the L2 cache: a block of x, and one panel's block of w (the next one comes beside it).
constexpr double kL2ShareOfX = 0.4;
constexpr double kL2ShareOfW = 0.125;

const GemmKernels& active_kernels() {
  static constexpr const GemmKernels* kTables[kIsaCount] = {
      &portable::gemm_kernels, &avx2::gemm_kernels, &avx512::gemm_kernels,
      &avx512bf16::gemm_kernels};
  return *kTables[static_cast<int>(active_isa())];
}

std::atomic<Bf16Body> forced_body{Bf16Body::kMeasured};

// ns that a row of a full tile takes in this body; best of several, some 20 us in all.
constexpr int64_t kTileSteps = 64;
double row_ns(const GemmKernels& kernels, GemmBody body) {
  constexpr int64_t kSteps = kTileSteps;
  alignas(64) static thread_local float x[kMaxTileRows * 2 * kSteps];
  alignas(64) static thread_local float panel[kSteps * kPanelColumns];
  alignas(64) static thread_local float sums[kMaxTileRows * kPanelColumns];
  const auto rows = static_cast<size_t>(kernels.tile_rows[body]);
  const MicroArgs args{.a = reinterpret_cast<const char*>(x),
                       .a_stride_bytes = 2 * kSteps * 4,
                       .b = reinterpret_cast<const char*>(panel),
                       .n_steps = kSteps,
                       .sums = sums,
                       .add = 0,
                       .prefetch_lines = 0,
                       .prefetch = nullptr};
  using Clock = std::chrono::steady_clock;
  constexpr int kCalls = 4;
  double best = 1e30;
  for (int round = 0; round < 8; ++round) {
    const auto start = Clock::now();
    for (int i = 0; i < kCalls; ++i) kernels.micro[body][rows - 1](&args);
    best = std::min(best, std::chrono::duration<double, std::nano>(Clock::now() - start).count());
  }
  return best / static_cast<double>(rows) / kCalls;
}

GemmBody bf16_body(const GemmKernels& kernels) {
  if (kernels.micro[kBodyDot][0] == nullptr) return kBodyWiden;
  const Bf16Body forced = forced_body.load(std::memory_order_relaxed);
  if (forced != Bf16Body::kMeasured) return forced == Bf16Body::kDot ? kBodyDot : kBodyWiden;
  static const GemmBody measured =
      row_ns(kernels, kBodyDot) < row_ns(kernels, kBodyWiden) ? kBodyDot : kBodyWiden;
  return measured;
}

// Shares of one thread's scratch: staged rows of x, and sums.
int64_t stage_bytes(int64_t m, int64_t k) {
  const int64_t row_bytes = round_up(k, 4) * 4 + kStagePadBytes;
  return round_up(std::min(kMaxStageBytes, m * row_bytes), 64);
}
int64_t sums_bytes(int64_t m, int64_t columns) {
  const int64_t rows = std::max<int64_t>(m, kMaxTileRows);
  return std::min(kMaxSumsBytes, rows * columns * 4);
}

// Weights that one output multiplies x with.
int sides_of(const GemmOutput& output) { return output.up_panels == nullptr ? 1 : 2; }
int most_sides(std::span<const GemmOutput> outputs) {
  int sides = 1;
  for (const GemmOutput& output : outputs) sides = std::max(sides, sides_of(output));
  return sides;
}

// How one thread's part is cut into blocks.
struct Blocks {
  const GemmKernels* kernels = nullptr;
  GemmBody body = kBodyF32;
  int64_t item_bytes = 4;  // of one k of a row, as the micro kernels read it
  bool stage = false;      // copy blocks of x to scratch, in that form
  int64_t k_per_step = 1;
  int64_t n_steps = 0;  // of the whole k
  int64_t steps = 0;    // of a block of k
  int64_t rows = 0;     // of a block of m
  int64_t panels = 0;   // whose sums are kept from one block of k to the next
  int sides = 1;        // sums that a panel has room for

  int64_t tile_rows() const { return kernels->tile_rows[body]; }
  int64_t row_bytes() const { return steps * k_per_step * item_bytes; }
  int64_t staged_row_bytes() const { return row_bytes() + kStagePadBytes; }
};

GemmBody choose_body(const GemmKernels& kernels, DType x, DType panels) {
  if (panels == DType::kF32) return kBodyF32;
  if (panels == DType::kBF16) return x == DType::kBF16 ? bf16_body(kernels) : kBodyWiden;
  if (kernels.micro[kBodyInt8Dot2][0] == nullptr) return kBodyInt8;
  return x == DType::kF32 ? kBodyInt8Dot3 : kBodyInt8Dot2;
}

Blocks choose_rows(const GemmInput& args, int64_t rows) {
  Blocks blocks{.kernels = &active_kernels()};
  blocks.body = choose_body(*blocks.kernels, args.x_dtype, args.panels_dtype);
  blocks.k_per_step = 4 / dtype_bytes(args.panels_dtype);
  blocks.n_steps = ceil_div(args.k, blocks.k_per_step);
  const bool dot = blocks.body == kBodyDot;
  const bool in_bytes = blocks.body == kBodyInt8Dot2 || blocks.body == kBodyInt8Dot3;
  blocks.item_bytes = blocks.body == kBodyInt8Dot3 ? 3 : in_bytes || dot ? 2 : 4;
  const int64_t stride_bytes = args.x_row_stride * dtype_bytes(args.x_dtype);
  const bool conflicts = rows > kMaxRowsOfOneSet && stride_bytes % kConflictBytes == 0;
  blocks.stage = in_bytes || args.x_dtype != (dot ? DType::kBF16 : DType::kF32) ||
                 args.k % blocks.k_per_step != 0 || args.x_k_stride != 1 || conflicts;
  return blocks;
}

Blocks choose_blocks(const GemmInput& args, std::span<const GemmOutput> outputs, int64_t rows,
                     int64_t panels) {
  Blocks blocks = choose_rows(args, rows);
  blocks.sides = most_sides(outputs);
  const auto l2 = static_cast<double>(l2_cache_bytes());
  const int64_t tile_rows = blocks.tile_rows();
  const int64_t stage_limit = stage_bytes(args.m, args.k);

  // A single tile reads each panel once: nothing to keep in L2, no reason to cut k.
  int64_t most_steps = rows <= tile_rows
                           ? blocks.n_steps
                           : static_cast<int64_t>(l2 * kL2ShareOfW) / (kStepBytes * blocks.sides);
  if (blocks.stage) {
    const int64_t row_limit = stage_limit / std::min(rows, tile_rows) - kStagePadBytes;
    most_steps = std::min(most_steps, row_limit / (blocks.k_per_step * blocks.item_bytes));
  }
  if (args.panels_dtype == DType::kI8) most_steps = std::min(most_steps, kMaxInt8Steps);
  const int64_t k_blocks =
      blocks.n_steps == 0 ? 1 : ceil_div(blocks.n_steps, std::max<int64_t>(1, most_steps));
  blocks.steps = ceil_div(blocks.n_steps, k_blocks);

  int64_t most_rows = static_cast<int64_t>(l2 * kL2ShareOfX) / blocks.staged_row_bytes();
  if (blocks.stage) most_rows = std::min(most_rows, stage_limit / blocks.staged_row_bytes());
  if (k_blocks > 1) most_rows = std::min(most_rows, kMaxSumsBytes / (kSumsRowBytes * blocks.sides));
  if (most_rows < rows) most_rows = std::max(tile_rows, most_rows / tile_rows * tile_rows);
  blocks.rows = ceil_div(rows, ceil_div(rows, most_rows));

  blocks.panels = panels;
  if (k_blocks > 1)
    blocks.panels = std::min(panels, sums_bytes(args.m, sums_columns(outputs)) /
                                         (blocks.rows * kSumsRowBytes * blocks.sides));
  return blocks;
}

// One thread's walk: blocks of rows > groups of panels > blocks of k > panels > tiles.
class Walk {
 public:
  Walk(const GemmInput& input, std::span<const GemmOutput> outputs, Range rows, Range panels,
       char* scratch)
      : args_(input),
        outputs_(outputs),
        blocks_(choose_blocks(input, outputs, rows.size(), panels.size())),
        staged_(scratch),
        sums_(reinterpret_cast<float*>(scratch + stage_bytes(args_.m, args_.k))),
        rows_(rows),
        panels_(panels) {}

  void run() {
    for (int64_t row = rows_.begin; row < rows_.end; row += blocks_.rows) {
      const Range rows{row, std::min(rows_.end, row + blocks_.rows)};
      for (int64_t p = panels_.begin; p < panels_.end; p += blocks_.panels)
        run_group(rows, {p, std::min(panels_.end, p + blocks_.panels)});
    }
  }

 private:
  void run_group(Range rows, Range panels) {
    int64_t step = 0;
    do {  // once even if k is 0: the sums are then zero
      const Range steps{step, std::min(blocks_.n_steps, step + blocks_.steps)};
      // With one block of k the staged rows serve all groups.
      const bool staged_already = blocks_.steps == blocks_.n_steps && panels.begin > panels_.begin;
      if (blocks_.stage && !staged_already) stage(rows, steps);
      for (int64_t p = panels.begin; p < panels.end; ++p) {
        const bool is_last = p + 1 == panels.end;
        run_panel(rows, steps, place_of(p), p - panels.begin, is_last ? Place{} : place_of(p + 1));
      }
      step = steps.end;
    } while (step < blocks_.n_steps);
  }

  void stage(Range rows, Range steps) {
    const int64_t k = steps.begin * blocks_.k_per_step;
    const int64_t item = dtype_bytes(args_.x_dtype);
    const int64_t at = rows.begin * args_.x_row_stride + k * args_.x_k_stride;
    const int64_t k_padded = steps.size() * blocks_.k_per_step;
    const StageArgs stage{.x = static_cast<const char*>(args_.x) + at * item,
                          .x_dtype = static_cast<int32_t>(args_.x_dtype),
                          .body = blocks_.body,
                          .x_row_stride = args_.x_row_stride,
                          .x_k_stride = args_.x_k_stride,
                          .n_rows = rows.size(),
                          .k_count = std::min(k_padded, args_.k - k),
                          .k_padded = k_padded,
                          .out = staged_,
                          .out_row_bytes = blocks_.staged_row_bytes()};
    blocks_.kernels->stage(&stage);
  }

  // A panel of the walk: which one of which output.
  struct Place {
    const GemmOutput* output = nullptr;
    int64_t panel = 0;
  };
  Place place_of(int64_t panel) const {
    const GemmOutput* output = outputs_.data();
    for (; panel >= ceil_div(output->n, kPanelColumns); ++output)
      panel -= ceil_div(output->n, kPanelColumns);
    return {output, panel};
  }
  // Null if there is none.
  const char* weight_at(const Place& place, int side, int64_t step) const {
    if (place.output == nullptr || side >= sides_of(*place.output)) return nullptr;
    const void* panels = side == 0 ? place.output->panels : place.output->up_panels;
    return static_cast<const char*>(panels) + (place.panel * blocks_.n_steps + step) * kStepBytes;
  }

  // All rows of a block times one panel's block of k. `slot` is the panel's place among the sums.
  void run_panel(Range rows, Range steps, const Place& place, int64_t slot, const Place& next) {
    const int64_t n_rows = rows.size();
    const int64_t n_tiles = ceil_div(n_rows, blocks_.tile_rows());
    const bool keep_sums = steps.begin > 0 || steps.end < blocks_.n_steps;
    for (int64_t tile = 0; tile < n_tiles; ++tile) {
      const int64_t row = n_rows * tile / n_tiles;
      const int64_t tile_rows = n_rows * (tile + 1) / n_tiles - row;
      const float* sums[2] = {nullptr, nullptr};
      for (int side = 0; side < sides_of(*place.output); ++side) {
        const int64_t at =
            keep_sums ? (slot * blocks_.sides + side) * n_rows + row : side * tile_rows;
        const char* b = weight_at(place, side, steps.begin);
        // The tiles together fetch the next panel; a lone tile fetches ahead in its own.
        const Fetch fetch{n_tiles == 1 ? b + kFetchAheadBytes : weight_at(next, side, steps.begin),
                          tile, n_tiles};
        float* const out = sums_ + at * kPanelColumns;
        run_tile(rows.begin, {row, row + tile_rows}, steps, b, fetch, out);
        sums[side] = out;
      }
      if (steps.end == blocks_.n_steps)
        finish(sums[0], sums[1], rows.begin + row, tile_rows, place);
    }
  }

  // What tile `tile` of `n_tiles` has to fetch into L2 of the panel's block at `begin`.
  struct Fetch {
    const char* begin = nullptr;
    int64_t tile = 0;
    int64_t n_tiles = 1;
  };

  // `tile`: rows of the block that begins at `first_row`.
  void run_tile(int64_t first_row, Range tile, Range steps, const char* b, const Fetch& fetch,
                float* sums) {
    const int64_t n_parts = kPanelColumns / blocks_.kernels->tile_columns;
    const int64_t item = blocks_.item_bytes;
    const char* x = static_cast<const char*>(args_.x) +
                    (first_row * args_.x_row_stride + steps.begin * blocks_.k_per_step) * item;
    MicroArgs micro{};
    micro.n_steps = steps.size();
    micro.add = steps.begin == 0 ? 0 : 1;
    micro.a_stride_bytes = blocks_.stage ? blocks_.staged_row_bytes() : args_.x_row_stride * item;
    micro.a = (blocks_.stage ? staged_ : x) + tile.begin * micro.a_stride_bytes;
    const bool alone = fetch.n_tiles == 1;
    const int64_t lines = ceil_div(kLinesOfSteps, alone ? 1 : fetch.n_tiles * n_parts);
    const int64_t bytes = lines * 64 * (steps.size() / kStepsAtOnce);  // that a part fetches
    for (int64_t part = 0; part < n_parts; ++part) {
      micro.b = b + part * blocks_.kernels->tile_columns * 4;
      micro.sums = sums + part * blocks_.kernels->tile_columns;
      const bool fetches = fetch.begin != nullptr && !(alone && part > 0);
      micro.prefetch_lines = static_cast<int32_t>(fetches ? lines : 0);
      micro.prefetch = fetches ? fetch.begin + (fetch.tile * n_parts + part) * bytes : nullptr;
      blocks_.kernels->micro[blocks_.body][tile.size() - 1](&micro);
    }
  }

  void finish(const float* sums, const float* up_sums, int64_t row, int64_t n_rows,
              const Place& place) {
    const GemmOutput& output = *place.output;
    const int64_t column = place.panel * kPanelColumns;
    const int64_t y_at = row * output.y_row_stride + column;
    const int64_t residual_at = row * output.residual_row_stride + column;
    const FinishArgs finish{
        .sums = sums,
        .up_sums = up_sums,
        .scale = output.scale == nullptr ? nullptr : output.scale + column,
        .up_scale = output.up_scale == nullptr ? nullptr : output.up_scale + column,
        .n_rows = n_rows,
        .n_columns = std::min(kPanelColumns, output.n - column),
        .bias = offset(output.bias, column * dtype_bytes(output.bias_dtype)),
        .up_bias = offset(output.up_bias, column * dtype_bytes(output.up_bias_dtype)),
        .residual = offset(output.residual, residual_at * dtype_bytes(output.residual_dtype)),
        .y = static_cast<char*>(output.y) + y_at * dtype_bytes(output.y_dtype),
        .residual_row_stride = output.residual_row_stride,
        .y_row_stride = output.y_row_stride,
        .bias_dtype = static_cast<int32_t>(output.bias_dtype),
        .up_bias_dtype = static_cast<int32_t>(output.up_bias_dtype),
        .residual_dtype = static_cast<int32_t>(output.residual_dtype),
        .y_dtype = static_cast<int32_t>(output.y_dtype),
        .activation = static_cast<int32_t>(output.activation),
        .accumulate = output.accumulate ? 1 : 0};
    blocks_.kernels->finish(&finish);
  }

  static const void* offset(const void* p, int64_t bytes) {
    return p == nullptr ? nullptr : static_cast<const char*>(p) + bytes;
  }

  const GemmInput& args_;
  const std::span<const GemmOutput> outputs_;
  const Blocks blocks_;
  char* const staged_;
  float* const sums_;
  const Range rows_;
  const Range panels_;
};

// part `index` of `count` parts of [0, size)
Range part_of(int64_t size, int64_t index, int64_t count) {
  return {size * index / count, size * (index + 1) / count};
}

}  // namespace

int64_t sums_columns(std::span<const GemmOutput> outputs) {
  int64_t columns = 0;
  for (const GemmOutput& output : outputs)
    columns += round_up(output.n, kPanelColumns) * most_sides(outputs);
  return columns;
}

int64_t gemm_part_scratch_bytes(int64_t m, int64_t columns, int64_t k) {
  return stage_bytes(m, k) + sums_bytes(m, columns);
}

void gemm_part(const GemmInput& input, std::span<const GemmOutput> outputs, Range rows,
               Range panels, char* scratch) {
  if (!rows.empty() && !panels.empty()) Walk(input, outputs, rows, panels, scratch).run();
}

void gemm_share(const Member& member, const GemmInput& input, std::span<const GemmOutput> outputs,
                char* scratch) {
  int64_t n_panels = 0;
  for (const GemmOutput& output : outputs) n_panels += ceil_div(output.n, kPanelColumns);
  const int64_t n_threads = member.n_threads();
  // Cutting the panels reads each weight once; cut rows too where that evens out the work.
  constexpr double kWorthIt = 0.97;
  int64_t row_parts = 1;
  double least = static_cast<double>(input.m * ceil_div(n_panels, n_threads));
  for (int64_t parts = 2; parts <= n_threads; ++parts) {
    if (n_threads % parts != 0) continue;
    const auto work =
        static_cast<double>(ceil_div(input.m, parts) * ceil_div(n_panels, n_threads / parts));
    if (work < least * kWorthIt) {
      least = work;
      row_parts = parts;
    }
  }
  const int64_t panel_parts = n_threads / row_parts;
  const int64_t thread = member.thread();
  const int64_t thread_bytes = gemm_part_scratch_bytes(input.m, sums_columns(outputs), input.k);
  gemm_part(input, outputs, part_of(input.m, thread / panel_parts, row_parts),
            part_of(n_panels, thread % panel_parts, panel_parts), scratch + thread * thread_bytes);
}

int64_t gemm_scratch_bytes(const GemmInput& input, std::span<const GemmOutput> outputs,
                           int n_threads) {
  return n_threads * gemm_part_scratch_bytes(input.m, sums_columns(outputs), input.k);
}

void gemm(Member& member, const GemmInput& input, std::span<const GemmOutput> outputs,
          void* scratch) {
  gemm_share(member, input, outputs, static_cast<char*>(scratch));
}

int64_t gemm_scratch_bytes(const GemmArgs& args, int n_threads) {
  return n_threads * gemm_part_scratch_bytes(args.m, round_up(args.n, kPanelColumns), args.k);
}

void gemm(Member& member, const GemmArgs& args) {
  const GemmInput input{.m = args.m,
                        .k = args.k,
                        .x = args.x,
                        .x_dtype = args.x_dtype,
                        .x_row_stride = args.x_row_stride,
                        .panels_dtype = args.panels_dtype};
  const GemmOutput output{.n = args.n,
                          .panels = args.panels,
                          .scale = args.scale,
                          .bias = args.bias,
                          .bias_dtype = args.bias_dtype,
                          .activation = args.activation,
                          .residual = args.residual,
                          .residual_dtype = args.y_dtype,
                          .residual_row_stride = args.residual_row_stride,
                          .accumulate = args.accumulate,
                          .y = args.y,
                          .y_dtype = args.y_dtype,
                          .y_row_stride = args.y_row_stride};
  gemm_share(member, input, {&output, 1}, static_cast<char*>(args.scratch));
}

void force_bf16_body(Bf16Body body) { forced_body.store(body, std::memory_order_relaxed); }

bool bf16_dot_is_used() { return bf16_body(active_kernels()) == kBodyDot; }

double tile_flops_per_s(DType dtype) {
  const GemmKernels& kernels = active_kernels();
  const GemmBody body = dtype == DType::kBF16 ? bf16_body(kernels) : kBodyF32;
  const double flops_per_row = 2.0 * kTileSteps * kPanelColumns * (body == kBodyDot ? 2 : 1);
  return flops_per_row / row_ns(kernels, body) * 1e9;
}

}  // namespace shardwright::kernels
