// check_parts: what is inside a fused step.
#include <fmt/format.h>

#include <map>

#include "base/checked.h"
#include "base/error.h"
#include "pef/check.h"
#include "pef/check_step.h"
#include "pef/owners.h"

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
    for (const Buffer& buffer : part.operands) {
      if (buffer.space == Space::kNone) continue;
      const Range range = inside(buffer, false);
      if (buffer.space != Space::kStepOperand &&
          !owners_[{buffer.space, buffer.index}].whole(range))
        broken(
            fmt::format("it reads bytes {} to {} of a value of the step, which no part before "
                        "wrote as a whole",
                        range.begin, range.end));
    }
    for (const Buffer& buffer : part.results) {
      if (buffer.space != Space::kStepResult && buffer.space != Space::kStepScratch)
        broken("a part writes to results and scratch alone");
      const Range range = inside(buffer, true);
      Owners& owners = owners_[{buffer.space, buffer.index}];
      if (!owners.none(range)) broken("two parts write the same bytes");
      owners.write(range, index);
    }
    check_rule(part);
  }

  // Its bytes, from the first of that operand, result or scratch value.
  Range inside(const Buffer& buffer, bool written) const {
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
        const bool panels =
            whole.space == Space::kParameter &&
            pieces_[static_cast<size_t>(whole.index)].layout == ops::Layout::kPanels;
        if (panels && (buffer.offset_bytes != 0 || buffer.type.shape != whole.type.shape))
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
    check_inside(buffer, range, size, written);
    return range;
  }

  void check_written(Space space, size_t index, int64_t bytes, const char* what) {
    if (!owners_[{space, static_cast<int>(index)}].whole({0, bytes}))
      broken(fmt::format("no part writes all of {} {}", what, index));
  }

  const Step& step_;
  const std::vector<Piece>& pieces_;
  std::map<std::pair<Space, int>, Owners> owners_;  // offsets from the first byte of each
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
