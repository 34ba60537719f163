// check_parts: what is inside a fused step.
#include <fmt/format.h>

#include <map>

#include "base/checked.h"
#include "base/error.h"
#include "pef/check.h"
#include "pef/check_step.h"
#include "pef/writers.h"

namespace shardwright::pef {
namespace {

class Parts {
 public:
  Parts(const Step& step, const std::vector<Piece>& pieces) : step_(step), pieces_(pieces) {}

  void check() {
    if (step_.parts.size() < 2) broken("a fused step has two parts or more");
    if (!step_.begins.empty()) broken("a fused step has begins");
    for (const auto& [name, attr] : step_.attrs.entries())
      if (!std::holds_alternative<std::string>(attr))
        broken("attribute " + name + " of a fused step is no text");
    for (const int64_t bytes : step_.scratch_bytes)
      if (bytes < 0) broken(fmt::format("a scratch value has {} bytes", bytes));
    for (size_t i = 0; i < step_.parts.size(); ++i) {
      try {
        check_part(step_.parts[i], static_cast<int>(i));
      } catch (const Error& error) {
        throw error.within(fmt::format("part {} ({})", i, step_.parts[i].op));
      }
    }
    for (size_t i = 0; i < step_.results.size(); ++i)
      check_written(Space::kStepResult, i, byte_range(step_.results[i]).size(), "result");
    for (size_t i = 0; i < step_.scratch_bytes.size(); ++i)
      check_written(Space::kStepScratch, i, step_.scratch_bytes[i], "scratch value");
  }

 private:
  void check_part(const Step& part, int index) {
    if (!part.parts.empty() || !part.scratch_bytes.empty() || part.is_fused())
      broken("a part of a step has parts");
    check_operator(part);
    std::vector<ops::Layout> layouts;
    for (const Buffer& buffer : part.operands) {
      layouts.push_back(ops::Layout::kStrided);
      if (buffer.space == Space::kNone) {
        byte_range(buffer);
        continue;
      }
      const Range range = inside(buffer);
      if (buffer.space == Space::kStepOperand)
        layouts.back() = layout_of(step_.operands[static_cast<size_t>(buffer.index)], pieces_);
      else if (!range.empty() &&
               (buffer.written_by < 0 || writers_[{buffer.space, buffer.index}].writer(range) !=
                                             std::optional(buffer.written_by)))
        broken(
            fmt::format("it reads bytes {} to {} of a value of its step as those of part {}, "
                        "which did not write them",
                        range.begin, range.end, buffer.written_by));
    }
    for (const Buffer& buffer : part.results) write(buffer, index);
    check_strides(part, layouts);
    check_rule(part);
  }

  void write(const Buffer& buffer, int part) {
    if (buffer.space != Space::kStepResult && buffer.space != Space::kStepScratch)
      broken("a part writes to results and scratch alone");
    const Range range = inside(buffer);
    if (buffer.space == Space::kStepResult) {
      const Buffer& result = step_.results[static_cast<size_t>(buffer.index)];
      if (buffer.offset_bytes != 0 || buffer.type != result.type ||
          buffer.strides != result.strides)
        broken(fmt::format("it writes another tensor than result {} of its step", buffer.index));
    }
    Writers& writers = writers_[{buffer.space, buffer.index}];
    if (writers.writer(range) != std::optional(-1)) broken("two parts write the same bytes");
    writers.write(range, part);
  }

  // Its bytes, from the first of that operand, result or scratch value.
  Range inside(const Buffer& buffer) const {
    const auto known = [&](size_t count) {
      if (buffer.index < 0 || static_cast<size_t>(buffer.index) >= count)
        broken(fmt::format("buffer {} of {} does not exist", buffer.index, count));
      return static_cast<size_t>(buffer.index);
    };
    const auto outside = [&](const std::vector<Buffer>& buffers) -> const Buffer& {
      const Buffer& whole = buffers[known(buffers.size())];
      if (whole.type.dtype != buffer.type.dtype) broken("it sees another dtype than its step");
      return whole;
    };
    int64_t size = 0;
    switch (buffer.space) {
      case Space::kStepOperand: {
        const Buffer& whole = outside(step_.operands);
        size = byte_range(whole).size();
        if (layout_of(whole, pieces_) == ops::Layout::kPanels &&
            (buffer.offset_bytes != 0 || buffer.type.shape != whole.type.shape))
          broken("panels can only be read as a whole");
        break;
      }
      case Space::kStepResult:
        size = byte_range(outside(step_.results)).size();
        break;
      case Space::kStepScratch:
        size = step_.scratch_bytes[known(step_.scratch_bytes.size())];
        break;
      default:
        broken("a part of a step lies in its operands, results and scratch");
    }
    const Range range = byte_range(buffer);
    check_inside(buffer, range, size);
    return range;
  }

  void check_written(Space space, size_t index, int64_t bytes, const char* what) {
    if (bytes > 0 && writers_[{space, static_cast<int>(index)}].writer({0, bytes}).value_or(-1) < 0)
      broken(fmt::format("no part writes all of {} {}", what, index));
  }

  const Step& step_;
  const std::vector<Piece>& pieces_;
  std::map<std::pair<Space, int>, Writers> writers_;  // offsets from the first byte of each
};

}  // namespace

void check_parts(const Step& step, const std::vector<Piece>& pieces, WhyNotFused why_not_fused) {
  Parts(step, pieces).check();
  const ops::FusedSpec spec = fused_spec(step, pieces, 1);
  if (spec.parts.empty()) return;
  const std::string why_not = why_not_fused(spec);
  if (!why_not.empty()) broken("its parts can't be one step: " + why_not);
}

}  // namespace shardwright::pef
