// Turns a solved graph into one local graph a chip, with exchanges. Names no operator of the model.
#pragma once

#include <string>
#include <vector>

#include "ir/graph.h"
#include "ops/exchange.h"
#include "shard/solve.h"

namespace shardwright::shard {

// One graph a chip: the same nodes in the same order, local shapes, begins, pieces of inputs and
// outputs. Conversions are emitted at the producer where a value has a hub, else before the first
// consumer, once a value and state; free ones are slice, zero_pad and keep nodes. Chips whose piece
// is empty hold tensors with a dimension of 0. A converted value has the name of the value and of
// its state: "%x.whole".
std::vector<ir::Graph> partition(const ir::Module& module, const ir::Graph& graph,
                                 const Solution& solution);

// Every exchange of a chip's graph, for inspect, explain and the closed forms.
struct ExchangeInfo {
  ops::Exchange exchange;
  DType dtype = DType::kF32;
  std::string value;                         // name of the value that is exchanged
  std::string forced = {};                   // who forced it: "split k of layers.0.o_proj (linear)"
  ir::NodeId forced_by = -1;                 // that node of the global graph; -1: an output
  double seconds = 0;                        // modelled
  std::vector<int64_t> received_bytes = {};  // by each chip, from the others
};
std::vector<ExchangeInfo> exchanges_of(const ir::Graph& local, const Machine& machine = {});

}  // namespace shardwright::shard
