// check_program: walks the steps and keeps book of who wrote which bytes.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/checked.h"
#include "base/error.h"
#include "ops/exchange.h"
#include "pef/check.h"
#include "pef/check_step.h"
#include "pef/writers.h"

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

bool overlap_any(const std::vector<Access>& some, const std::vector<Access>& others) {
  return std::any_of(some.begin(), some.end(), [&](const Access& one) {
    return std::any_of(others.begin(), others.end(),
                       [&](const Access& other) { return one.overlaps(other); });
  });
}

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
    if (exchange)
      check_arguments(ops::exchange, step);
    else if (!step.is_fused())
      check_operator(step);
    if (!step.is_fused() && (!step.parts.empty() || !step.scratch_bytes.empty()))
      broken("only fused steps have parts and scratch");
    std::vector<Access> reads;
    std::vector<Access> writes;
    for (const Buffer& buffer : step.operands) reads.push_back(access(buffer, false));
    for (const Buffer& buffer : step.results) writes.push_back(access(buffer, true));
    for (size_t r = 0; r < reads.size(); ++r) check_writer(step.operands[r], reads[r]);
    if (step.is_fused())
      check_parts(step, chip_.pieces, why_not_fused_);
    else
      check_strides(step, layouts_of(step));
    check_sharing(step, reads, writes);
    check_barrier(step, reads, writes);
    for (const Access& write : writes)
      writers_[{write.space, write.index}].write(write.range, index);
    if (exchange) {
      check_exchange(step);
      check_meeting(step, index, reads, writes);
    } else if (!step.is_fused()) {
      check_rule(step);
    }
  }

  std::vector<ops::Layout> layouts_of(const Step& step) const {
    std::vector<ops::Layout> layouts;
    for (const Buffer& buffer : step.operands) layouts.push_back(layout_of(buffer, chip_.pieces));
    return layouts;
  }

  // What is read is what the step made that the plan had in mind: nothing has overwritten it.
  void check_writer(const Buffer& buffer, const Access& read) const {
    if (read.range.empty()) return;
    const auto memory = writers_.find({read.space, read.index});
    const std::optional<int> writer =
        memory == writers_.end() ? -1 : memory->second.writer(read.range);
    const bool needs_writer = read.space == Space::kArena || read.space == Space::kOutput;
    if (writer == buffer.written_by && (writer != -1 || !needs_writer)) return;
    const auto name = [](int step) { return step < 0 ? "no step" : fmt::format("step {}", step); };
    broken(fmt::format("it reads bytes {} to {} of {} as those of {}, but {} wrote them last",
                       read.range.begin, read.range.end, name_of(read.space),
                       name(buffer.written_by), writer ? name(*writer) : "more than one step"));
  }

  static const char* name_of(Space space) {
    switch (space) {
      case Space::kArena:
        return "the arena";
      case Space::kParameter:
        return "a parameter";
      case Space::kInput:
        return "an input";
      default:
        return "an output";
    }
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
    check_inside(buffer, range, size);
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
    if (overlap_any(reads, writes_) || overlap_any(writes, writes_) || overlap_any(writes, reads_))
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
    int64_t bytes = 0;
    for (const Buffer* buffer : {&source, &target})
      if (buffer->space == Space::kArena) bytes += buffer->type.bytes();
    if (bytes > chip_.transfer_bytes)
      broken(fmt::format("it needs {} bytes for transfers, the chip states {}", bytes,
                         chip_.transfer_bytes));
  }

  // Exchanges that meet together read and write at the same time.
  void check_meeting(const Step& step, int index, const std::vector<Access>& reads,
                     const std::vector<Access>& writes) {
    if (!ops::exchange_of(step.attrs).with_previous) {
      meeting_reads_.clear();
      meeting_writes_.clear();
    } else if (index == 0 ||
               program_.steps[static_cast<size_t>(index) - 1].op != ops::exchange.name) {
      broken("it meets together with the exchange before it, but there is none");
    }
    if (overlap_any(reads, meeting_writes_) || overlap_any(writes, meeting_writes_) ||
        overlap_any(writes, meeting_reads_))
      broken("it meets together with an exchange that uses the same memory");
    meeting_reads_.insert(meeting_reads_.end(), reads.begin(), reads.end());
    meeting_writes_.insert(meeting_writes_.end(), writes.begin(), writes.end());
  }

  const Plan& plan_;
  const WhyNotFused why_not_fused_;
  const int chip_index_;
  const ChipPlan& chip_;
  const GraphSignature& signature_;
  const Program& program_;
  const std::vector<Tensor>& tensors_;
  std::map<std::pair<Space, int>, Writers> writers_;
  std::vector<Access> reads_;          // since the last barrier
  std::vector<Access> writes_;         // the same
  std::vector<Access> meeting_reads_;  // of exchanges that meet together
  std::vector<Access> meeting_writes_;
  int64_t arena_end_ = 0;
};

}  // namespace

void check_program(const Manifest& manifest, const Plan& plan, int chip, int graph,
                   WhyNotFused why_not_fused) {
  Walk(manifest, plan, chip, graph, why_not_fused).run();
}

}  // namespace shardwright::pef
