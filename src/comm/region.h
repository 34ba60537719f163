// Which elements of a target piece come from which source pieces: the geometry of an exchange,
// worked out once.
#pragma once

#include <vector>

#include "ops/exchange.h"

namespace shardwright::comm {

// A block of the target whose elements come from the same chips. It is walked as `n_runs`
// contiguous runs of `run_length` elements; run r starts at index_of(r) in the target and, for each
// source, in that chip's piece.
struct Region {
  // The runs are the points of a small loop nest (at most two loops, outermost first).
  struct Loop {
    int64_t count = 1;
    int64_t target_stride = 0;  // elements
  };
  struct Source {
    int chip = 0;
    int64_t offset = 0;       // elements, of run 0
    int64_t strides[3] = {};  // of the loops
  };
  Loop loops[3];
  int64_t target_offset = 0;
  int64_t run_length = 0;
  std::vector<Source> sources;  // ascending chips; for `copy` exactly one

  int64_t n_runs() const { return loops[0].count * loops[1].count * loops[2].count; }
  int64_t count() const { return n_runs() * run_length; }
};

// The regions of chip `chip`'s target, which together cover it exactly. Of equal copies it takes
// its own where it has one. CHECKs that every element has a source.
std::vector<Region> regions_of(const ops::Exchange& exchange, int chip);

// target[...] = combine of sources[chip][...], for the elements [begin, end) of all regions put one
// after the other. Sums run over the chips in ascending order, in f32 for f32 and 16-bit types
// (rounded once), in the type itself otherwise.
void combine_regions(const std::vector<Region>& regions, ops::Combine combine, DType dtype,
                     const void* const* sources, void* target, int64_t begin, int64_t end);

}  // namespace shardwright::comm
