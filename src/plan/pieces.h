// Which parts of the logical tensors each chip keeps, and how they lie in its memory.
#pragma once

#include <vector>

#include "ir/graph.h"
#include "pef/program.h"

namespace shardwright::plan {

// The pieces that the graphs of a module read. Inputs (of any graph) that are the same piece on
// every chip share it. A piece lies in panels if all readers can read panels and one wants them.
class Pieces {
 public:
  // `local[graph][chip]`.
  Pieces(const ir::Module& module, const std::vector<std::vector<ir::Graph>>& local);

  // Of each input of a graph: the index of its piece, the same on all chips; -1 for user inputs and
  // for what nobody reads.
  const std::vector<int>& of_graph(size_t graph) const { return of_input_[graph]; }
  // All pieces of a chip, placed in its memory, in order.
  const std::vector<pef::Piece>& of_chip(size_t chip) const { return pieces_[chip]; }
  int64_t bytes(size_t chip) const { return bytes_[chip]; }

 private:
  void place(const ir::Module& module, const std::vector<bool>& in_panels);

  std::vector<std::vector<int>> of_input_;
  std::vector<std::vector<pef::Piece>> pieces_;  // [chip]
  std::vector<int64_t> bytes_;                   // [chip]
};

}  // namespace shardwright::plan
