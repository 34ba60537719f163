// Colours: (value, dim) pairs that are cut alike, found by joining the dimensions that hold the
// same factor of a rule.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "ir/graph.h"
#include "shard/state.h"

namespace shardwright::shard {

struct Colours {
  struct Colour {
    // The cuts lie between grains: the greatest common divisor of the members' sizes. The first
    // (grains mod n) chips get one grain more.
    int64_t grains = 1;
    // A KV colour covers the cuts of the colour it follows: piece [b, e) of `follows`, as a
    // dimension of `follows_size`, becomes grains [floor(b / share), ceil(e / share)).
    int follows = -1;
    int64_t follows_size = 0;
    int64_t share = 1;
    bool dirty = false;  // some operator needs one of its dimensions whole
    bool batch = false;  // holds the batch dimension of a user input
  };
  // Colour of each value's dimension; -1: a dimension of size 1 (or 0).
  std::vector<std::vector<int>> of;
  std::vector<Colour> colours;
  int n_chips = 1;

  int at(ir::ValueId value, int dim) const {
    return of[static_cast<size_t>(value)][static_cast<size_t>(dim)];
  }
  const Colour* find(ir::ValueId value, int dim) const;  // null for -1
  // The cuts of a dimension of that colour and size over the chips.
  Cuts cuts_of(int colour, int64_t size) const;
  // The cuts of dimension `dim` of `value`, whose size is `size`.
  Cuts cuts(ir::ValueId value, int dim, int64_t size) const;
};

// Colours of one graph; `rules` are those of its nodes.
Colours colour(const ir::Graph& graph, const std::vector<ops::Rule>& rules, int n_chips);
// Of all graphs of a module: tensors that graphs share are cut alike in all of them. The results
// have the same `colours`.
std::vector<Colours> colour(const ir::Module& module,
                            const std::vector<std::vector<const ops::Rule*>>& rules, int n_chips);

// The cuts of a factor of a node's rule, if the dimensions that hold it are cut consistently.
std::optional<Cuts> factor_cuts(const ir::Graph& graph, const ir::Node& node, const ops::Rule& rule,
                                int factor, const Colours& colours);

// The colour of the dimensions that hold a factor (not as f/k); -1 if there is none.
int factor_colour(const ir::Node& node, const ops::Rule& rule, int factor, const Colours& colours);

// Index of the user input whose dimension 0 is the batch: the first with at least two dimensions,
// else the first with one; -1 if there is none.
int batch_input(const ir::Graph& graph);
// Marks the colour of the batch, and that of dimension 0 of other user inputs of the same size.
void mark_batch(const ir::Graph& graph, Colours* colours);

}  // namespace shardwright::shard
