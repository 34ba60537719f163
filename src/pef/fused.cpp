// fused_spec.
#include "pef/fused.h"

#include <algorithm>

#include "base/check.h"

namespace shardwright::pef {
namespace {

using Where = ops::FusedValue::Where;

Where where_of(Space space) {
  switch (space) {
    case Space::kStepOperand:
      return Where::kOperand;
    case Space::kStepResult:
      return Where::kResult;
    case Space::kStepScratch:
      return Where::kScratch;
    default:
      return Where::kAbsent;
  }
}

ops::FusedValue value_of(const Buffer& buffer, const Step& step, const std::vector<Piece>& pieces) {
  ops::FusedValue value{
      .where = where_of(buffer.space),
      .index = buffer.index,
      .offset_bytes = buffer.offset_bytes,
      .spec = {
          .present = buffer.space != Space::kNone, .type = buffer.type, .strides = buffer.strides}};
  if (value.where != Where::kOperand) return value;
  value.spec.layout = layout_of(step.operands[static_cast<size_t>(buffer.index)], pieces);
  return value;
}

bool is_empty(const Step& part) {
  return std::all_of(part.results.begin(), part.results.end(),
                     [](const Buffer& result) { return result.type.count() == 0; });
}

bool same_elements(const Buffer& a, const Buffer& b) {
  return a.offset_bytes == b.offset_bytes && a.type.shape == b.type.shape &&
         a.strides == b.strides && dtype_bytes(a.type.dtype) == dtype_bytes(b.type.dtype);
}

bool works_in_place(const std::string& name, size_t operand, size_t result) {
  const ops::OpDef* op = ops::find_op(name);
  return op != nullptr && op->in_place && (op->elementwise || operand == result);
}

}  // namespace

ops::Layout layout_of(const Buffer& buffer, const std::vector<Piece>& pieces) {
  return buffer.space == Space::kParameter ? pieces[static_cast<size_t>(buffer.index)].layout
                                           : ops::Layout::kStrided;
}

bool may_share(const Step& step, size_t operand, size_t result) {
  if (!same_elements(step.operands[operand], step.results[result])) return false;
  if (!step.is_fused()) return works_in_place(step.op, operand, result);
  // Values that are the operand's elements, one for one, after operators that work in place.
  std::vector<const Buffer*> followed;
  const auto is_followed = [&](const Buffer& buffer) {
    return std::any_of(followed.begin(), followed.end(), [&](const Buffer* value) {
      return buffer.space == value->space && buffer.index == value->index &&
             same_elements(buffer, *value);
    });
  };
  int readers = 0;
  for (const Step& part : step.parts)
    for (size_t i = 0; i < part.operands.size(); ++i) {
      const Buffer& seen = part.operands[i];
      const bool reads =
          seen.space == Space::kStepOperand && seen.index == static_cast<int>(operand);
      readers += reads ? 1 : 0;
      if (reads ? seen.offset_bytes != 0 : !is_followed(seen)) continue;
      for (size_t r = 0; r < part.results.size(); ++r)
        if (works_in_place(part.op, i, r) && seen.type.shape == part.results[r].type.shape)
          followed.push_back(&part.results[r]);
    }
  return readers == 1 && std::any_of(followed.begin(), followed.end(), [&](const Buffer* value) {
           return value->space == Space::kStepResult && value->index == static_cast<int>(result);
         });
}

ops::FusedSpec fused_spec(const Step& step, const std::vector<Piece>& pieces, int n_threads) {
  CHECK(step.is_fused());
  ops::FusedSpec spec{.parts = {}, .scratch_bytes = step.scratch_bytes, .n_threads = n_threads};
  for (const Step& part : step.parts) {
    if (is_empty(part)) continue;
    ops::FusedPart out{.op = ops::find_op(part.op),
                       .attrs = part.attrs,
                       .operands = {},
                       .results = {},
                       .begins = part.begins};
    for (const Buffer& buffer : part.operands)
      out.operands.push_back(value_of(buffer, step, pieces));
    for (const Buffer& buffer : part.results) out.results.push_back(value_of(buffer, step, pieces));
    spec.parts.push_back(std::move(out));
  }
  return spec;
}

}  // namespace shardwright::pef
