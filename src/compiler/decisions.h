// Why each node of a plan runs as it does, and where each exchange stands: what `explain` shows.
#pragma once

#include <string>
#include <vector>

#include "ir/graph.h"
#include "pef/program.h"
#include "shard/partition.h"
#include "shard/solve.h"

namespace shardwright::compiler {

// What is split, in the field's words: "whole", "M" (a feature of the result), "K" (contracted: the
// results are partial), "tokens" (a dimension of the user's inputs, rows of a gemm), "heads".
struct Split {
  std::string factor;  // of the operator's rule; "" for none
  std::string kind;
  bool operator==(const Split&) const = default;
};

// Of nodes that are alike (in repeated layers) there is one.
struct Decision {
  std::string strategy;  // "split m", "none", "linear x"
  Split split;
  std::vector<int64_t> rows_per_chip;  // of the factor; empty if none is split
  std::vector<std::string> results;    // states: "split(2)", "partial(sum)"
  shard::Reason reason;
  // Gemms, embeddings and attention: the two other choices that come nearest and all that split a
  // gemm otherwise (shard/what_if.h), the fastest first; and the node that was forced to find out.
  struct Alternative {
    Split split;
    double seconds = 0;
    int64_t weight_bytes = 0;
  };
  std::vector<Alternative> alternatives;
  ir::NodeId forced = -1;
};

struct Decisions {
  std::vector<Decision> all;
  std::vector<int> of_node;  // of the canonical graph: index into `all`
};

// Solves again for each alternative: milliseconds each. Nothing for a single chip.
std::vector<Decisions> decisions_of(const ir::Module& module,
                                    const std::vector<shard::Solution>& solutions);

struct ExchangeReport {
  shard::ExchangeInfo info;
  ir::NodeId producer = -1;  // node of the canonical graph that makes the value; -1: an input
  std::vector<ir::NodeId> readers;  // nodes that read what is exchanged
  int step = -1;                    // of the programs
};

// The exchanges in the order of the steps of `program` (the first chip's, planned from `local`).
std::vector<ExchangeReport> exchanges_of(const ir::Graph& graph, const ir::Graph& local,
                                         const pef::Program& program,
                                         const shard::Machine& machine);

}  // namespace shardwright::compiler
