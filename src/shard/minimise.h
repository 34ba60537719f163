// Exact minimisation of a sum of tables over pairs of variables, by bucket elimination.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "shard/cost.h"

namespace shardwright::shard {

struct Problem {
  // costs[i] of value i; never empty.
  struct Variable {
    std::string name;
    std::vector<Cost> costs;
  };
  // costs[i * size(b) + j] of value i of a with value j of b. Shared by equal pairs.
  struct Table {
    int a;
    int b;  // not a
    std::shared_ptr<const std::vector<Cost>> costs;
  };
  std::vector<Variable> variables;
  std::vector<Table> tables;

  Cost cost(const std::vector<int>& choice) const;
};

// The cheapest choice: an index a variable. Between equal ones the first in a fixed order, so the
// same problem gives the same choice everywhere.
std::vector<int> minimise(const Problem& problem);

std::string to_json(const Problem& problem, const std::vector<int>& choice);

}  // namespace shardwright::shard
