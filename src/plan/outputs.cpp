// Which part of each user output a chip writes.
#include "plan/outputs.h"

#include <algorithm>

#include "base/check.h"

namespace shardwright::plan {
namespace {

bool contains(const std::vector<Range>& outer, const std::vector<Range>& inner) {
  for (size_t d = 0; d < outer.size(); ++d)
    if (inner[d].begin < outer[d].begin || inner[d].end > outer[d].end) return false;
  return true;
}

bool overlap(const std::vector<Range>& a, const std::vector<Range>& b) {
  for (size_t d = 0; d < a.size(); ++d)
    if (std::max(a[d].begin, b[d].begin) >= std::min(a[d].end, b[d].end)) return false;
  return true;
}

bool is_empty(const std::vector<Range>& piece) {
  return std::any_of(piece.begin(), piece.end(), [](const Range& rows) { return rows.empty(); });
}

// What is left of `piece` when the rows of an earlier chip's are taken away: cuts are ascending, so
// only the first rows of one dimension can be shared.
std::vector<Range> without(std::vector<Range> piece, const std::vector<Range>& earlier) {
  if (is_empty(piece) || !overlap(piece, earlier)) return piece;
  if (contains(earlier, piece)) return std::vector<Range>(piece.size());
  for (size_t d = 0; d < piece.size(); ++d)
    if (piece[d].end > earlier[d].end) {
      piece[d].begin = earlier[d].end;
      CHECK(!overlap(piece, earlier), "pieces of an output overlap in two dimensions");
      return piece;
    }
  CHECK(false, "the pieces of an output are not in the order of the chips");
}

OutputPart part_of(const std::vector<Range>& piece, const std::vector<Range>& written, int index,
                   const Shape& whole) {
  OutputPart part;
  const Strides strides = contiguous_strides(whole);
  part.none = is_empty(written) && !is_empty(piece);
  part.all = !part.none;
  part.place = {pef::Space::kOutput, index, 0, {}};
  Shape shape;
  for (size_t d = 0; d < piece.size(); ++d) {
    part.all = part.all && written[d].size() == piece[d].size();
    part.rows.push_back({written[d].begin - piece[d].begin, written[d].end - piece[d].begin});
    part.place.offset += written[d].begin * strides[d];
    shape.push_back(written[d].size());
  }
  if (element_count(shape) == 0) part.place.offset = 0;
  part.place.strides = normal_strides(shape, strides);
  return part;
}

}  // namespace

bool OutputTarget::direct() const {
  return std::all_of(parts.begin(), parts.end(),
                     [](const OutputPart& part) { return part.all || part.none; });
}

bool is_users(const ir::Output& output) { return output.role != ir::OutputRole::kBufferMutation; }

std::vector<Range> piece_or_whole(const std::vector<Range>& piece, const Shape& shape) {
  if (piece.size() == shape.size()) return piece;
  CHECK(piece.empty());
  std::vector<Range> whole;
  for (int64_t size : shape) whole.push_back({0, size});
  return whole;
}

std::vector<OutputTarget> output_targets(const ir::Graph& global,
                                         const std::vector<ir::Graph>& chips) {
  std::vector<OutputTarget> targets;
  for (size_t i = 0; i < global.outputs.size(); ++i) {
    if (!is_users(global.outputs[i])) continue;
    OutputTarget target{.value = chips[0].outputs[i].value, .parts = {}};
    const Shape& whole = global.type(global.outputs[i].value).shape;
    std::vector<std::vector<Range>> earlier;
    for (const ir::Graph& graph : chips) {
      const ir::Output& output = graph.outputs[i];
      const std::vector<Range> piece = piece_or_whole(output.piece, graph.type(output.value).shape);
      std::vector<Range> written = piece;
      bool scalar_taken = false;  // a tensor of no dimensions: the first chip writes it
      for (const std::vector<Range>& other : earlier) {
        written = without(std::move(written), other);
        scalar_taken = piece.empty();
      }
      OutputPart part = part_of(piece, written, static_cast<int>(targets.size()), whole);
      if (scalar_taken) {
        part.none = true;
        part.all = false;
      }
      target.parts.push_back(std::move(part));
      earlier.push_back(piece);
    }
    targets.push_back(std::move(target));
  }
  return targets;
}

}  // namespace shardwright::plan
