// Why the solver chose what it chose, in words.
#pragma once

#include <string>
#include <vector>

#include "shard/formulate.h"

namespace shardwright::shard {

// One reason a node: the constraint that left no other choice, or the cost against the next best.
std::vector<Reason> reasons_of(const Formulation& f, size_t graph, const std::vector<int>& choice);

// What people should know of a plan: dimensions that don't divide (with the nearest number of chips
// that does), gemms that fell back to another dimension, operators that run whole.
std::vector<std::string> notes_of(const Formulation& f, size_t graph, const Solution& solution);

}  // namespace shardwright::shard
