// check_program: walks the steps and keeps book of who wrote which bytes.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/checked.h"
#include "base/error.h"
#include "ops/exchange.h"
#include "pef/check.h"
#include "pef/check_step.h"
#include "pef/owners.h"

namespace shardwright::pef {
namespace {

constexpr int64_t kArenaAlignBytes = 64;

bool overlap(const Range& a, const Range& b) { return a.begin < b.end && b.begin < a.end; }

struct Access {
  Space space;
  int index;
  Range range;
  bool overlaps(const Access& other) const {
    return space == other.space && index == other.index && overlap(range, other.range);
  }
};

class Walk {
 public:
  Walk(const Manifest& manifest, const Plan& plan, int chip, int graph, WhyNotFused why_not_fused)
      : plan_(plan),
        why_not_fused_(why_not_fused),
        chip_index_(chip),
        chip_(plan.chips[static_cast<size_t>(chip)]),
        signature_(manifest.graphs[static_cast<size_t>(graph)]),
        program_(chip_.programs[static_cast<size_t>(graph)]),
        tensors_(manifest.tensors) {}

  void run() {
    for (size_t i = 0; i < program_.steps.size(); ++i) {
      const Step& step = program_.steps[i];
      try {
        check_step(step, static_cast<int>(i));
      } catch (const Error& error) {
        throw error.within(fmt::format("chip {}, graph {}, step {} ({} of {})", chip_index_,
                                       signature_.name, i, step.op, step.source));
      }
    }
    if (program_.arena_bytes < arena_end_ ||
        program_.arena_bytes > round_up(arena_end_, kArenaAlignBytes))
      broken(fmt::format("chip {}, graph {}: the arena has {} bytes, its steps use {}", chip_index_,
                         signature_.name, program_.arena_bytes, arena_end_));
  }

 private:
  void check_step(const Step& step, int index) {
    const bool exchange = step.op == ops::exchange.name;
    if (!step.is_fused()) {
      if (!step.parts.empty() || !step.scratch_bytes.empty())
        broken("only fused steps have parts and scratch");
      if (exchange)
        check_arguments(ops::exchange, step);
      else
        check_operator(step);
    }
    std::vector<Access> reads;
    std::vector<Access> writes;
    for (const Buffer& buffer : step.operands) reads.push_back(access(buffer, false));
    for (const Buffer& buffer : step.results) writes.push_back(access(buffer, true));
    if (step.is_fused()) check_parts(step, chip_.pieces, why_not_fused_);
    for (const Access& read : reads)
      if ((read.space == Space::kArena || read.space == Space::kOutput) &&
          !owners_[{read.space, read.index}].whole(read.range))
        broken(fmt::format("it reads bytes {} to {} of {}, which no step before wrote as a whole",
                           read.range.begin, read.range.end,
                           read.space == Space::kArena ? "the arena" : "an output"));
    check_sharing(step, reads, writes);
    check_barrier(step, reads, writes);
    for (const Access& write : writes)
      owners_[{write.space, write.index}].write(write.range, index);
    if (exchange)
      check_exchange(step);
    else if (!step.is_fused())
      check_rule(step);
  }

  // Where a buffer lies; throws unless all of it is inside its memory.
  Access access(const Buffer& buffer, bool written) {
    Range range = byte_range(buffer);
    int64_t size = 0;
    const auto known = [&](size_t count) {
      if (buffer.index < 0 || static_cast<size_t>(buffer.index) >= count)
        broken(fmt::format("buffer {} of {} does not exist", buffer.index, count));
      return static_cast<size_t>(buffer.index);
    };
    const auto array = [&](const std::vector<Signature>& arrays) {
      const TensorType& type = arrays[known(arrays.size())].type;
      if (type.dtype != buffer.type.dtype) broken("an array of the user has another dtype");
      return type.bytes();
    };
    switch (buffer.space) {
      case Space::kNone:
        if (written) broken("a result has no place");
        return {Space::kNone, -1, {}};
      case Space::kArena:
        size = program_.arena_bytes;
        arena_end_ = std::max(arena_end_, range.end);
        break;
      case Space::kParameter: {
        const Piece& piece = chip_.pieces[known(chip_.pieces.size())];
        size = piece.memory_bytes;
        if (tensors_[static_cast<size_t>(piece.tensor)].type.dtype != buffer.type.dtype)
          broken("a parameter has another dtype");
        if (piece.layout == ops::Layout::kPanels) {
          if (written || buffer.offset_bytes != 0 || piece.shape != buffer.type.shape)
            broken("panels can only be read as a whole");
          range = {0, size};
        }
        break;
      }
      case Space::kInput:
        size = array(signature_.inputs);
        if (written) broken("it writes into an input");
        break;
      case Space::kOutput:
        size = array(signature_.outputs);
        break;
      default:
        broken("only parts of a fused step lie in its operands, results and scratch");
    }
    check_inside(buffer, range, size, written);
    return {buffer.space, buffer.space == Space::kArena ? 0 : buffer.index, range};
  }

  static void check_sharing(const Step& step, const std::vector<Access>& reads,
                            const std::vector<Access>& writes) {
    for (size_t w = 0; w < writes.size(); ++w) {
      for (size_t r = 0; r < reads.size(); ++r)
        if (writes[w].overlaps(reads[r]) && !may_share(step, r, w))
          broken(fmt::format("result {} overlaps operand {}", w, r));
      for (size_t v = 0; v < w; ++v)
        if (writes[w].overlaps(writes[v])) broken(fmt::format("results {} and {} overlap", v, w));
    }
  }

  void check_barrier(const Step& step, const std::vector<Access>& reads,
                     const std::vector<Access>& writes) {
    if (step.barrier_before) {
      reads_.clear();
      writes_.clear();
    }
    const auto meets = [](const std::vector<Access>& a, const std::vector<Access>& b) {
      return std::any_of(a.begin(), a.end(), [&](const Access& one) {
        return std::any_of(b.begin(), b.end(),
                           [&](const Access& other) { return one.overlaps(other); });
      });
    };
    if (meets(reads, writes_) || meets(writes, writes_) || meets(writes, reads_))
      broken("it needs a barrier before it");
    reads_.insert(reads_.end(), reads.begin(), reads.end());
    writes_.insert(writes_.end(), writes.begin(), writes.end());
  }

  void check_exchange(const Step& step) const {
    const ops::Exchange exchange = ops::exchange_of(step.attrs);
    if (exchange.n != plan_.n_chips || step.operands.size() != 1 || step.results.size() != 1)
      broken(fmt::format("it is between {} chips", exchange.n));
    const Buffer& source = step.operands[0];
    const Buffer& target = step.results[0];
    if (source.type.shape != exchange.from_shape(chip_index_) ||
        target.type.shape != exchange.to_shape(chip_index_) ||
        source.type.dtype != target.type.dtype)
      broken("it goes from " + to_string(source.type) + " to " + to_string(target.type));
    for (const Buffer* buffer : {&source, &target})
      if (buffer->type.count() > 0 && !is_contiguous(buffer->type.shape, buffer->strides))
        broken("its buffers are not contiguous");
  }

  const Plan& plan_;
  const WhyNotFused why_not_fused_;
  const int chip_index_;
  const ChipPlan& chip_;
  const GraphSignature& signature_;
  const Program& program_;
  const std::vector<Tensor>& tensors_;
  std::map<std::pair<Space, int>, Owners> owners_;
  std::vector<Access> reads_;   // since the last barrier
  std::vector<Access> writes_;  // the same
  int64_t arena_end_ = 0;
};

}  // namespace

void check_program(const Manifest& manifest, const Plan& plan, int chip, int graph,
                   WhyNotFused why_not_fused) {
  Walk(manifest, plan, chip, graph, why_not_fused).run();
}

}  // namespace shardwright::pef
