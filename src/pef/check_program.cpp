// check_program: walks the steps and keeps book of who wrote which bytes.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/checked.h"
#include "base/error.h"
#include "ops/exchange.h"
#include "ops/op.h"
#include "pef/check.h"

namespace shardwright::pef {
namespace {

constexpr int64_t kArenaAlignBytes = 64;

[[noreturn]] void broken(const std::string& message) {
  throw Error(ErrorCode::kBrokenFile, message);
}

bool overlap(const Range& a, const Range& b) { return a.begin < b.end && b.begin < a.end; }

// Bytes of one memory with the step that wrote each last.
class Writers {
 public:
  void write(const Range& range, int step) {
    if (range.empty()) return;
    split(range.begin);
    split(range.end);
    written_.erase(written_.lower_bound(range.begin), written_.lower_bound(range.end));
    written_[range.begin] = {range.end, step};
  }

  // The step that wrote all of the range; -1 if none wrote any of it; nothing if several steps (or
  // one and what was there before) share it.
  std::optional<int> writer(const Range& range) const {
    auto after = written_.lower_bound(range.end);
    if (after == written_.begin() || (--after)->second.end <= range.begin) return -1;
    const bool all = after->first <= range.begin && after->second.end >= range.end;
    return all ? std::optional(after->second.step) : std::nullopt;
  }

 private:
  struct Written {
    int64_t end = 0;
    int step = -1;
  };

  void split(int64_t at) {
    auto after = written_.upper_bound(at);
    if (after == written_.begin()) return;
    Written& before = (--after)->second;
    if (after->first == at || before.end <= at) return;
    written_[at] = before;
    before.end = at;
  }

  std::map<int64_t, Written> written_;  // by first byte; they don't overlap
};

// From the smallest stride up, each is longer than all that lies within it.
bool elements_are_apart(const Buffer& buffer) {
  std::vector<std::pair<int64_t, int64_t>> dims;  // stride, size
  for (size_t d = 0; d < buffer.strides.size(); ++d) {
    if (buffer.type.shape[d] == 0) return true;
    if (buffer.type.shape[d] > 1) dims.emplace_back(buffer.strides[d], buffer.type.shape[d]);
  }
  std::sort(dims.begin(), dims.end());
  int64_t last = 0;  // element; byte_range has shown that 64 bits hold it
  for (const auto& [stride, size] : dims) {
    if (stride <= last) return false;
    last += stride * (size - 1);
  }
  return true;
}

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

// Operators whose rule must fit on a chip's own pieces as it does on whole tensors: those with one
// text. (A rule made from attributes speaks of whole tensors: 5 of 9 heads need not share KV heads
// as 9 do.)
bool rule_holds_locally(const ops::OpDef& op) {
  return op.elementwise || (op.rule != nullptr && op.rule_for == nullptr &&
                            std::string_view(op.rule).find('/') == std::string_view::npos);
}

bool kind_fits(ops::Argument::Kind kind, const ops::Attr& attr) {
  using Kind = ops::Argument::Kind;
  const auto is = [&]<typename T>(T) { return std::holds_alternative<T>(attr); };
  switch (kind) {
    case Kind::kInt:
      return is(int64_t{});
    case Kind::kFloat:
    case Kind::kNumber:
      return is(int64_t{}) || is(double{}) || is(bool{});
    case Kind::kBool:
      return is(bool{});
    case Kind::kString:
      return is(std::string{});
    case Kind::kInts:
      return is(std::vector<int64_t>{});
    case Kind::kFloats:
      return is(std::vector<double>{});
    case Kind::kDType:
      return is(DType{});
    default:
      return false;
  }
}

class Walk {
 public:
  Walk(const Manifest& manifest, const Plan& plan, int chip, int graph)
      : plan_(plan),
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
    const ops::OpDef* op = ops::find_op(step.op);
    const bool exchange = op == &ops::exchange;
    if (op == nullptr || step.op != op->name || (op->make_kernel == nullptr && !exchange))
      broken("this version can't run operator '" + step.op + "'");
    check_arguments(*op, step);
    std::vector<Access> reads;
    std::vector<Access> writes;
    for (const Buffer& buffer : step.operands) reads.push_back(access(buffer, false));
    for (const Buffer& buffer : step.results) writes.push_back(access(buffer, true));
    for (size_t r = 0; r < reads.size(); ++r) check_writer(step.operands[r], reads[r]);
    check_strides(*op, step);
    check_sharing(*op, step, reads, writes);
    check_barrier(step, reads, writes);
    for (const Access& write : writes)
      writers_[{write.space, write.index}].write(write.range, index);
    if (exchange) {
      check_exchange(step);
      check_meeting(step, index, reads, writes);
    } else {
      check_rule(*op, step);
    }
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

  // The kernel takes what lies like this: it would read or write elsewhere otherwise.
  void check_strides(const ops::OpDef& op, const Step& step) const {
    for (size_t i = 0; i < step.operands.size(); ++i) {
      const Buffer& buffer = step.operands[i];
      if (buffer.space == Space::kParameter &&
          chip_.pieces[static_cast<size_t>(buffer.index)].layout == ops::Layout::kPanels) {
        if (op.panel_operand != static_cast<int>(i) && !(op.panels_readable && i == 0))
          broken(fmt::format("operand {} lies in panels", i));
      } else if (!ops::accepts(op.operand_strides, buffer.type.shape, buffer.strides)) {
        broken(fmt::format("operand {} of shape {} has strides {}", i, to_string(buffer.type.shape),
                           to_string(buffer.strides)));
      }
    }
    for (size_t i = 0; i < step.results.size(); ++i) {
      const Buffer& buffer = step.results[i];
      if (!ops::accepts(op.result_strides, buffer.type.shape, buffer.strides))
        broken(fmt::format("result {} of shape {} has strides {}", i, to_string(buffer.type.shape),
                           to_string(buffer.strides)));
      if (!elements_are_apart(buffer))
        broken(fmt::format("elements of result {} of shape {} with strides {} share memory", i,
                           to_string(buffer.type.shape), to_string(buffer.strides)));
    }
  }

  void check_arguments(const ops::OpDef& op, const Step& step) const {
    size_t tensors = 0;
    bool list = false;
    for (const ops::Argument& argument : ops::arguments_of(op)) {
      if (argument.kind == ops::Argument::Kind::kTensors) list = true;
      if (argument.kind == ops::Argument::Kind::kTensor &&
          (tensors >= step.operands.size() || step.operands[tensors].space == Space::kNone))
        broken("operand " + argument.name + " is missing");
      if (argument.is_tensor()) {
        ++tensors;
        continue;
      }
      const ops::Attr* attr = step.attrs.find(argument.name);
      const bool none = attr == nullptr || std::holds_alternative<std::monostate>(*attr);
      if (!none && !kind_fits(argument.kind, *attr))
        broken("attribute " + argument.name + " is " + ops::to_string(*attr));
    }
    if (step.results.empty() || (!list && step.operands.size() > tensors))
      broken(fmt::format("it has {} operands and {} results", step.operands.size(),
                         step.results.size()));
    for (const auto& [factor, begin] : step.begins)
      if (begin < 0) broken(fmt::format("factor {} begins at {}", factor, begin));
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
    }
    if (range.end > size || (range.empty() && buffer.offset_bytes > size))
      broken(fmt::format("a buffer reaches to byte {} of {}", range.end, size));
    if (buffer.offset_bytes % dtype_bytes(buffer.type.dtype) != 0)
      broken(fmt::format("a buffer starts at byte {}", buffer.offset_bytes));
    return {buffer.space, buffer.space == Space::kArena ? 0 : buffer.index, range};
  }

  // A result may share memory with an operand only where the operator works in place, element by
  // element.
  static void check_sharing(const ops::OpDef& op, const Step& step,
                            const std::vector<Access>& reads, const std::vector<Access>& writes) {
    for (size_t w = 0; w < writes.size(); ++w) {
      for (size_t r = 0; r < reads.size(); ++r) {
        if (!writes[w].overlaps(reads[r])) continue;
        const Buffer& result = step.results[w];
        const Buffer& operand = step.operands[r];
        if (!op.in_place || result.offset_bytes != operand.offset_bytes ||
            result.type.shape != operand.type.shape || result.strides != operand.strides ||
            dtype_bytes(result.type.dtype) != dtype_bytes(operand.type.dtype))
          broken(fmt::format("result {} overlaps operand {}", w, r));
      }
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

  static void check_rule(const ops::OpDef& op, const Step& step) {
    std::vector<std::optional<TensorType>> operands;
    for (const Buffer& buffer : step.operands) {
      if (buffer.space == Space::kNone)
        operands.emplace_back();
      else
        operands.emplace_back(buffer.type);
      if (buffer.space != Space::kNone && buffer.type.count() == 0) return;
    }
    if (!rule_holds_locally(op)) return;
    size_t tensors = 0;
    for (const ops::Argument& argument : ops::arguments_of(op)) tensors += argument.is_tensor();
    operands.resize(std::max(tensors, operands.size()));
    const std::vector<TensorType> types = ops::infer_types(op, step.attrs, operands);
    if (types.size() != step.results.size())
      broken(fmt::format("it has {} results, not {}", step.results.size(), types.size()));
    for (size_t i = 0; i < types.size(); ++i)
      if (types[i] != step.results[i].type)
        broken(fmt::format("result {} is {}, its rule gives {}", i, to_string(step.results[i].type),
                           to_string(types[i])));
  }

  const Plan& plan_;
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

void check_program(const Manifest& manifest, const Plan& plan, int chip, int graph) {
  Walk(manifest, plan, chip, graph).run();
}

}  // namespace shardwright::pef
