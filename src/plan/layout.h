// Where values lie: places, and strides seen through views.
#pragma once

#include <optional>
#include <vector>

#include "ops/op.h"
#include "pef/program.h"

namespace shardwright::plan {

// Where a value lies on one chip, before the arena has offsets.
struct Place {
  pef::Space space = pef::Space::kNone;
  int index = -1;      // arena: storage; parameter: piece; input, output: of the user
  int64_t offset = 0;  // elements
  Strides strides;     // normal_strides
  bool operator==(const Place&) const = default;
};

using Places = std::vector<Place>;  // one a chip

// The strides of dimensions of size 1 don't matter: they become those of a tensor without gaps, so
// that equal places have equal strides. Of a tensor without elements all do.
Strides normal_strides(const Shape& shape, Strides strides);

// Through views, element (i...) of `shape` is seen as an element of `seen_shape`; over a contiguous
// tensor of `shape` the seen one has the strides `seen`. The strides of `shape` for which the seen
// one would have `wanted`: found where the views only permute (or cut a contiguous tensor anew).
std::optional<Strides> strides_before_views(const Shape& shape, const Shape& seen_shape,
                                            const Strides& seen, const Strides& wanted);

}  // namespace shardwright::plan
