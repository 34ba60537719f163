// Exchanges that are ready together meet once.
#pragma once

#include <vector>

#include "ir/graph.h"

namespace shardwright::shard {

// `chips`: the local graphs of all chips, the same nodes in the same order. Reorders them so that
// exchanges that need no other's result stand together, and makes these meet once
// (ops::Exchange::with_previous). The chips then meet as often as the longest chain of exchanges
// demands, and no more: the partial sums of q, k and v once and not three times.
void merge_exchanges(std::vector<ir::Graph>* chips);

}  // namespace shardwright::shard
