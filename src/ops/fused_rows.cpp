// The rows stage of fused steps: threads take blocks of rows through all parts; what the parts
// hand each other lies in scratch of the thread, small enough for its L2 cache.
//
// Each part runs the kernel that it has as a step of its own, made for a block; so the results have
// the same bits. Elementwise parts in a row become one program of the tile engine.
#include <algorithm>
#include <functional>
#include <map>

#include "base/check.h"
#include "base/checked.h"
#include "ops/elementwise.h"
#include "ops/fused_stage.h"
#include "ops/table.h"

namespace shardwright::ops {
namespace {

using Where = FusedValue::Where;

// Of the L2 cache, for all that a block reads and writes: half, as operands also come in from
// farther away.
constexpr double kL2ShareOfBlock = 0.5;
constexpr size_t kMaxPointers = 32;       // of a step
constexpr size_t kMaxChainOperands = 24;  // inputs and operators of a tile program

// Where a step finds a value of a block.
struct BlockView {
  FusedValue value;
  int64_t local_at = -1;            // in the thread's scratch; -1: in memory, at `value`
  std::vector<int64_t> outer = {};  // bytes a turn of each outer loop
  int64_t row_bytes = 0;            // from one row of a block to the next
};

struct RowStep {
  std::unique_ptr<Kernel> full;  // for blocks of `block_rows`
  std::unique_ptr<Kernel> rest;  // for the last block of a run of rows; null if it is full, too
  std::vector<BlockView> operands;
  std::vector<BlockView> results;
};

class RowsStage final : public FusedStage {
 public:
  RowsStage(const FusedSpec& spec, RowProgram program, const std::vector<bool>& is_shared)
      : program_(std::move(program)), n_threads_(spec.n_threads) {
    split_at_cats(&program_, is_shared);
    find_locals(spec, is_shared);
    find_chains();
    if (chains_.size() == 1 && program_.parts[chains_[0].end - 1].op->elementwise) {
      make_whole_chain();
    } else {
      choose_blocks();
      for (const Chain& chain : chains_) make_step(chain);
    }
  }

  int64_t scratch_bytes() const override { return n_threads_ * thread_bytes_; }

  void run(Member& member, const FusedMemory& memory, std::byte* scratch) const noexcept override {
    if (n_blocks_ == 0) return;
    if (whole_) return run_step(steps_[0], *steps_[0].full, member, memory, nullptr, nullptr, 0);
    Member alone = Member::alone();
    std::byte* mine = scratch + member.thread() * thread_bytes_;
    const int64_t blocks_a_turn = ceil_div(inner_rows_, block_rows_);
    const Range blocks = share(member, memory);
    for (int64_t block = blocks.begin; block < blocks.end; ++block) {
      int64_t turn = block / blocks_a_turn;
      int64_t outer[kMaxDims] = {};
      for (size_t d = outer_.size(); d-- > 0; turn /= outer_[d]) outer[d] = turn % outer_[d];
      const int64_t row = block % blocks_a_turn * block_rows_;
      const bool is_full = inner_rows_ - row >= block_rows_;
      for (const RowStep& step : steps_)
        run_step(step, is_full ? *step.full : *step.rest, alone, memory, mine, outer, row);
    }
  }

 private:
  // Parts [begin, end) of the program as one step: one part, or elementwise ones.
  struct Chain {
    size_t begin = 0;
    size_t end = 0;
  };
  // A value that only this program touches, a block at a time.
  struct Local {
    const RowView* written = nullptr;
    int64_t at = 0;          // in the thread's scratch
    bool is_needed = false;  // not just a register of the step that writes it
  };

  void find_locals(const FusedSpec& spec, const std::vector<bool>& is_shared) {
    is_local_.assign(spec.scratch_bytes.size(), false);
    for (const RowPart& part : program_.parts) {
      const FusedValue& value = part.result.value;
      if (value.where != Where::kScratch || is_shared[static_cast<size_t>(value.index)]) continue;
      is_local_[static_cast<size_t>(value.index)] = true;
      const RowView*& widest = locals_[value.index].written;  // of the segments, one at a time
      if (widest == nullptr || widest->columns < part.result.columns) widest = &part.result;
    }
  }
  Local* local(const FusedValue& value) {
    const bool is = value.where == Where::kScratch && is_local_[static_cast<size_t>(value.index)];
    return is ? &locals_.at(value.index) : nullptr;
  }

  // True if `part` may join `chain`: same index space, and what it reads of the chain it reads just
  // as it was written, so that it can stay in a register.
  bool joins(const Chain& chain, const RowPart& part) const {
    const RowPart& first = program_.parts[chain.begin];
    if (!first.op->elementwise || !part.op->elementwise) return false;
    if (first.result.columns != part.result.columns || first.segment != part.segment) return false;
    size_t n_operands = part.operands.size() + 1;
    for (size_t i = chain.begin; i < chain.end; ++i) {
      const RowPart& other = program_.parts[i];
      n_operands += other.operands.size() + 1;
      for (const RowView& read : part.operands)
        if (is_of(read, other.result) && !is_same_view(read, other.result)) return false;
    }
    return n_operands <= kMaxChainOperands;
  }
  static bool is_of(const RowView& read, const RowView& written) {
    return read.value.where == written.value.where && read.value.index == written.value.index;
  }
  void find_chains() {
    for (size_t i = 0; i < program_.parts.size(); ++i) {
      if (!chains_.empty() && joins(chains_.back(), program_.parts[i]))
        chains_.back().end = i + 1;
      else
        chains_.push_back({i, i + 1});
    }
    for (size_t i = 0; i + 1 < chains_.size(); ++i) {
      const Chain& one = chains_[i];
      if (one.end - one.begin != 1 || chains_[i + 1].end - chains_[i + 1].begin != 1) continue;
      if (!is_added_first(program_.parts[one.begin], program_.parts[one.end])) continue;
      chains_[i].end = chains_[i + 1].end;
      chains_.erase(chains_.begin() + static_cast<std::ptrdiff_t>(i) + 1);
    }
    for (const Chain& chain : chains_)
      for (size_t i = chain.begin; i < chain.end; ++i)
        for (const RowView& read : program_.parts[i].operands) {
          Local* value = local(read.value);
          if (value != nullptr && writer_in(chain, read) == nullptr) value->is_needed = true;
        }
  }
  // x + other just before a norm of it: one kernel does both (norm.cpp).
  static bool is_added_first(const RowPart& added, const RowPart& norm) {
    if (added.op != &add || (norm.op != &rms_norm && norm.op != &layer_norm)) return false;
    const auto is_plain = [&](const RowView& view) {
      return view.value.spec.type.dtype == norm.operands[0].value.spec.type.dtype &&
             (view.column_stride == 1 || view.columns == 1);
    };
    return is_same_view(norm.operands[0], added.result) && is_plain(added.operands[0]) &&
           is_plain(added.operands[1]) && is_plain(added.result);
  }
  const RowPart* writer_in(const Chain& chain, const RowView& read) const {
    for (size_t i = chain.begin; i < chain.end; ++i)
      if (is_of(read, program_.parts[i].result)) return &program_.parts[i];
    return nullptr;
  }
  // Whether anything but its own chain sees what this part gives.
  bool is_stored(const RowPart& part) {
    const Local* value = local(part.result.value);
    return value == nullptr || value->is_needed;
  }

  // Dims of rows that every value in memory walks in one stride are one dim.
  void choose_blocks() {
    std::vector<const RowView*> outside;
    for (const RowPart& part : program_.parts) {
      for (const RowView& view : part.operands)
        if (view.value.where != Where::kAbsent && local(view.value) == nullptr)
          outside.push_back(&view);
      if (local(part.result.value) == nullptr) outside.push_back(&part.result);
    }
    const Shape& rows = program_.rows;
    size_t d = rows.size();
    inner_rows_ = 1;
    while (d > 0) {
      const bool walks_on =
          d == rows.size() || std::all_of(outside.begin(), outside.end(), [&](const RowView* view) {
            return view->row_strides[d - 1] == view->row_strides.back() * inner_rows_;
          });
      if (!walks_on) break;
      inner_rows_ *= rows[--d];
    }
    outer_.assign(rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(d));
    const int64_t row_bytes = bytes_of_row();
    const auto budget =
        static_cast<int64_t>(static_cast<double>(l2_cache_bytes()) * kL2ShareOfBlock);
    const int64_t turns = element_count(outer_);
    const int64_t fair = ceil_div(turns * inner_rows_, n_threads_);  // rows of a thread
    const int64_t most = std::clamp<int64_t>(budget / row_bytes, 1, std::max<int64_t>(fair, 1));
    const int64_t blocks_a_turn = ceil_div(inner_rows_, most);
    block_rows_ = blocks_a_turn == 0 ? 1 : ceil_div(inner_rows_, blocks_a_turn);
    n_blocks_ = turns * (inner_rows_ == 0 ? 0 : ceil_div(inner_rows_, block_rows_));
    for (auto& [index, value] : locals_) {
      if (!value.is_needed) continue;
      value.at = thread_bytes_;
      thread_bytes_ += round_up(block_rows_ * value.written->columns * value.written->item(), 64);
    }
  }

  int64_t bytes_of_row() {
    int64_t bytes = 1;
    for (const RowPart& part : program_.parts) {
      for (const RowView& view : part.operands)
        if (view.value.where == Where::kOperand && view.is_matrix)
          bytes += view.columns * view.item();
      if (is_stored(part)) bytes += part.result.columns * part.result.item();
    }
    return bytes;
  }

  // --- steps ---

  // How a kernel for `count` rows sees this value.
  OperandSpec block_spec(const RowView& view, int64_t count) {
    OperandSpec spec{.type = {view.value.spec.type.dtype, {}}, .strides = {}};
    if (view.value.where == Where::kAbsent) return {.present = false, .type = {}, .strides = {}};
    const BlockView block = block_view(view);
    if (view.is_matrix) {
      spec.type.shape.push_back(count);
      spec.strides.push_back(block.row_bytes / view.item());
    }
    spec.type.shape.push_back(view.columns);
    spec.strides.push_back(view.column_stride);
    if (local(view.value) != nullptr)
      spec.strides.back() /= locals_.at(view.value.index).written->column_stride;
    return spec;
  }

  BlockView block_view(const RowView& view) {
    BlockView block{.value = view.value};
    if (const Local* value = local(view.value)) {
      const RowView& written = *value->written;
      const int64_t skipped = (view.value.offset_bytes - written.value.offset_bytes) /
                              (written.column_stride * written.item());
      block.local_at = value->at + skipped * written.item();
      block.row_bytes = written.columns * written.item();
      return block;
    }
    const size_t n_outer = outer_.size();
    block.outer.assign(view.row_strides.begin(),
                       view.row_strides.begin() + static_cast<std::ptrdiff_t>(n_outer));
    if (view.row_strides.size() > n_outer) block.row_bytes = view.row_strides.back();
    return block;
  }

  void make_step(const Chain& chain) {
    RowStep step;
    std::function<std::unique_ptr<Kernel>(int64_t count)> make;
    const RowPart& last = program_.parts[chain.end - 1];
    if (last.op->elementwise)
      make = chain_maker(chain, &step);
    else if (last.op == &cache_write)
      make = cache_rows_maker(last, &step);
    else
      make = part_maker(chain, &step);
    step.full = make(block_rows_);
    if (inner_rows_ % block_rows_ > 0) step.rest = make(inner_rows_ % block_rows_);
    CHECK(step.operands.size() <= kMaxPointers && step.results.size() <= kMaxPointers);
    CHECK(step.full->scratch_bytes() == 0, "a row kernel with scratch");
    steps_.push_back(std::move(step));
  }

  // Each fills the views of a step and gives what makes its kernel for a number of rows.
  std::function<std::unique_ptr<Kernel>(int64_t)> chain_maker(const Chain& chain, RowStep* step) {
    ChainPieces pieces = pieces_of(chain);
    for (const RowView* view : pieces.inputs) step->operands.push_back(block_view(*view));
    for (const RowView* view : pieces.outputs) step->results.push_back(block_view(*view));
    return [this, pieces = std::move(pieces)](int64_t count) {
      std::vector<OperandSpec> inputs;
      std::vector<OperandSpec> outputs;
      for (const RowView* view : pieces.inputs) inputs.push_back(block_spec(*view, count));
      for (const RowView* view : pieces.outputs) outputs.push_back(block_spec(*view, count));
      return make_chain_kernel(pieces.ops, inputs, pieces.output_ops, outputs);
    };
  }
  // One part, or a norm of a sum.
  std::function<std::unique_ptr<Kernel>(int64_t)> part_maker(const Chain& chain, RowStep* step) {
    const RowPart& part = program_.parts[chain.end - 1];
    const RowPart* added = chain.end - chain.begin == 2 ? &program_.parts[chain.begin] : nullptr;
    std::vector<const RowView*> operands;
    for (const RowView& view : part.operands) operands.push_back(&view);
    if (added != nullptr) {
      operands[0] = &added->operands[0];
      operands.push_back(&added->operands[1]);
    }
    const bool keeps_sum = added != nullptr && is_stored(*added);
    for (const RowView* view : operands) step->operands.push_back(block_view(*view));
    step->results.push_back(block_view(part.result));
    if (keeps_sum) step->results.push_back(block_view(added->result));
    return [this, &part, added, operands, keeps_sum](int64_t count) {
      KernelSpec spec{.op = part.op,
                      .attrs = &part.attrs,
                      .operands = {},
                      .results = {},
                      .begins = part.begins};
      for (const RowView* view : operands) spec.operands.push_back(block_spec(*view, count));
      spec.results.push_back(block_spec(part.result, count));
      if (added == nullptr) return part.op->make_kernel(spec);
      const OperandSpec other = spec.operands.back();
      spec.operands.pop_back();
      const OperandSpec kept = keeps_sum ? block_spec(added->result, count) : OperandSpec{};
      return make_add_norm_kernel(spec, other, keeps_sum ? &kept : nullptr);
    };
  }

  std::function<std::unique_ptr<Kernel>(int64_t)> cache_rows_maker(const RowPart& part,
                                                                   RowStep* step) {
    for (const RowView& view : part.operands) step->operands.push_back(block_view(view));
    step->results.push_back(block_view(part.result));
    return [this, &part](int64_t count) {
      return make_cache_rows_kernel(block_spec(part.operands[0], count),
                                    block_spec(part.operands[1], count),
                                    block_spec(part.result, count), part.result.value.spec);
    };
  }

  struct ChainPieces {
    std::vector<ChainOp> ops;
    std::vector<const RowView*> inputs;
    std::vector<const RowView*> outputs;
    std::vector<int> output_ops;  // the op that gives each output
  };
  ChainPieces pieces_of(const Chain& chain) {
    ChainPieces pieces;
    for (size_t i = chain.begin; i < chain.end; ++i) {
      const RowPart& part = program_.parts[i];
      ChainOp op{.op = part.op,
                 .attrs = &part.attrs,
                 .dtype = part.result.value.spec.type.dtype,
                 .operands = {}};
      for (const RowView& read : part.operands) {
        if (const RowPart* writer = writer_in(chain, read)) {
          op.operands.push_back(-1 - static_cast<int>(writer - &program_.parts[chain.begin]));
          continue;
        }
        const auto known =
            std::find_if(pieces.inputs.begin(), pieces.inputs.end(),
                         [&](const RowView* input) { return is_same_view(read, *input); });
        op.operands.push_back(static_cast<int>(known - pieces.inputs.begin()));
        if (known == pieces.inputs.end()) pieces.inputs.push_back(&read);
      }
      pieces.ops.push_back(std::move(op));
      if (!is_stored(part)) continue;
      pieces.outputs.push_back(&part.result);
      pieces.output_ops.push_back(static_cast<int>(i - chain.begin));
    }
    return pieces;
  }

  // One chain alone needs no blocks: the tile engine gives its threads any part of it.
  void make_whole_chain() {
    whole_ = true;
    n_blocks_ = 1;
    const ChainPieces pieces = pieces_of(chains_[0]);
    const auto spec_of = [&](const RowView& view) {
      OperandSpec spec{.type = {view.value.spec.type.dtype, program_.rows}, .strides = {}};
      for (const int64_t bytes : view.row_strides) spec.strides.push_back(bytes / view.item());
      spec.type.shape.push_back(view.columns);
      spec.strides.push_back(view.column_stride);
      return spec;
    };
    RowStep step;
    std::vector<OperandSpec> inputs;
    std::vector<OperandSpec> outputs;
    for (const RowView* view : pieces.inputs) {
      step.operands.push_back({.value = view->value});
      inputs.push_back(spec_of(*view));
    }
    for (const RowView* view : pieces.outputs) {
      step.results.push_back({.value = view->value});
      outputs.push_back(spec_of(*view));
    }
    step.full = make_chain_kernel(pieces.ops, inputs, pieces.output_ops, outputs);
    steps_.push_back(std::move(step));
  }

  // --- run ---

  // This thread's blocks. Of rows that go to one place of a cache the last must stay: one thread
  // writes them all.
  Range share(const Member& member, const FusedMemory& memory) const {
    for (const RowPart& part : program_.parts) {
      if (part.op != &cache_write) continue;
      const FusedValue& position = part.operands[0].value;
      const int64_t length = part.result.value.spec.type.shape[2];
      if (!places_rise(position.spec, memory.of(position), length))
        return member.thread() == 0 ? Range{0, n_blocks_} : Range{0, 0};
    }
    return member.share(n_blocks_);
  }

  static std::byte* address(const BlockView& view, const FusedMemory& memory, std::byte* mine,
                            const int64_t* outer, int64_t row) {
    if (view.local_at >= 0) return mine + view.local_at;
    if (view.value.where == Where::kAbsent) return nullptr;
    int64_t offset = row * view.row_bytes;
    for (size_t d = 0; d < view.outer.size(); ++d) offset += outer[d] * view.outer[d];
    return memory.of(view.value) + offset;
  }

  static void run_step(const RowStep& step, const Kernel& kernel, Member& member,
                       const FusedMemory& memory, std::byte* mine, const int64_t* outer,
                       int64_t row) {
    const void* operands[kMaxPointers];
    void* results[kMaxPointers];
    for (size_t i = 0; i < step.operands.size(); ++i)
      operands[i] = address(step.operands[i], memory, mine, outer, row);
    for (size_t i = 0; i < step.results.size(); ++i)
      results[i] = address(step.results[i], memory, mine, outer, row);
    kernel.run(member, operands, results, nullptr);
  }

  RowProgram program_;
  int n_threads_;
  std::vector<bool> is_local_;  // by scratch value
  std::map<int, Local> locals_;
  std::vector<Chain> chains_;

  bool whole_ = false;
  Shape outer_;             // loops around the blocks
  int64_t inner_rows_ = 1;  // rows of one turn of them
  int64_t block_rows_ = 1;
  int64_t n_blocks_ = 0;
  int64_t thread_bytes_ = 0;  // of local values
  std::vector<RowStep> steps_;
};

}  // namespace

std::unique_ptr<FusedStage> make_rows_stage(const FusedSpec& spec, RowProgram program,
                                            const std::vector<bool>& is_shared) {
  return std::make_unique<RowsStage>(spec, std::move(program), is_shared);
}

}  // namespace shardwright::ops
