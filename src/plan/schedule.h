// The order of nodes that brings the members of fusion groups together.
#pragma once

#include <vector>

#include "ir/graph.h"

namespace shardwright::plan {

// Puts the nodes of all chips' graphs (the same nodes in the same order) in an order, the same for
// all, in which the members of a group stand side by side where no path leaves the group and comes
// back; a group through which such paths go (an exchange between chips) is divided there. Views
// that only join members of a group join the group.
void bring_groups_together(std::vector<ir::Graph>& chips);

}  // namespace shardwright::plan
