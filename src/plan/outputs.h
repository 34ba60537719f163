// Which part of each user output a chip writes. Where chips hold the same rows, the first that has
// them writes them, so no two write to one place.
#pragma once

#include <vector>

#include "ir/graph.h"
#include "plan/layout.h"

namespace shardwright::plan {

// What one chip writes of its piece.
struct OutputPart {
  std::vector<Range> rows;  // in the piece, one a dimension; a dimension is empty: nothing
  Place place;              // of the first of these rows in the user's array
  bool all = false;         // the whole piece
  bool none = false;
};

struct OutputTarget {
  ir::ValueId value = ir::kNoValue;
  std::vector<OutputPart> parts;  // one a chip
  // Every chip writes its whole piece or nothing: a step may write right into the user's array.
  bool direct() const;
};

// The user outputs in the order of the signature. `global` gives the whole shapes.
std::vector<OutputTarget> output_targets(const ir::Graph& global,
                                         const std::vector<ir::Graph>& chips);

// Whether an output is in the user's hands (the others are written back to buffers).
bool is_users(const ir::Output& output);

// `piece`, or all of `shape` where a graph made by hand does not say it.
std::vector<Range> piece_or_whole(const std::vector<Range>& piece, const Shape& shape);

}  // namespace shardwright::plan
