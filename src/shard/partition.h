// Turns a solved graph into one local graph a chip, with exchanges. Names no operator.
#pragma once

#include <vector>

#include "ir/graph.h"
#include "shard/solve.h"

namespace shardwright::shard {

// One graph a chip: the same nodes in the same order, local shapes, begins, pieces of inputs and
// outputs. Conversions are emitted at the producer where a value has a hub, else before the first
// consumer, once a value and state; free ones are slices, zero_pad and select nodes. Chips whose
// piece is empty hold tensors with a dimension of 0.
std::vector<ir::Graph> partition(const ir::Module& module, const ir::Graph& graph,
                                 const Solution& solution);

// Every exchange of a chip's graph, for inspect and the closed forms.
struct ExchangeInfo {
  ops::Exchange exchange;
  DType dtype;
  std::string value;    // name
  std::string forced;   // the factor or reason that forced it
  int64_t bytes_moved;  // received by all chips together
};
std::vector<ExchangeInfo> exchanges_of(const ir::Graph& local);

}  // namespace shardwright::shard
