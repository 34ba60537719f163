// The pieces of parameters, buffers and constants that one chip keeps.
#pragma once

#include <map>
#include <tuple>
#include <vector>

#include "ir/graph.h"
#include "pef/program.h"

namespace shardwright::plan {

class Pieces {
 public:
  // Collects the pieces of all of the chip's graphs; equal ones are one.
  explicit Pieces(const std::vector<const ir::Graph*>& graphs);
  // Index of the piece of input `input` of graph `graph`.
  int index(size_t graph, size_t input) const { return of_input_[graph][input]; }
  const std::vector<pef::Piece>& pieces() const { return pieces_; }
  const pef::Piece& piece(int index) const { return pieces_[static_cast<size_t>(index)]; }
  int64_t bytes() const { return bytes_; }

 private:
  std::vector<pef::Piece> pieces_;
  std::vector<std::vector<int>> of_input_;  // -1: a user input
  int64_t bytes_ = 0;
};

}  // namespace shardwright::plan
