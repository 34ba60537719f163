// How values lie in memory: which strides kernels take, and which layout a value should be produced
// in.
#pragma once

#include <optional>
#include <vector>

#include "ir/graph.h"

namespace shardwright::plan {

// May a kernel that takes `mode` read or write a tensor of this shape at these strides?
bool accepts(ops::Strided mode, const Shape& shape, const Strides& strides);

// The strides and offset (elements) of a view's result over an operand at `in`; nullopt if it must
// copy.
struct ViewResult {
  Strides strides;
  int64_t offset = 0;
};
std::optional<ViewResult> view_of(const ir::Graph& graph, const ir::Node& node, const Strides& in);

// For each value the strides in which it should be produced: contiguous, but where its only reader
// permutes it, such that the permuted value is contiguous, if the producer can write so (attention
// writes [b, s, h, d]).
std::vector<Strides> wanted_layouts(const ir::Graph& graph);

}  // namespace shardwright::plan
