// One program of a .pt2 archive as a graph.
#pragma once

#include <string>

#include "frontend/json.h"
#include "frontend/pt2_weights.h"
#include "frontend/symbols.h"
#include "ir/graph.h"

namespace shardwright::frontend {

// `program` is an ExportedProgram (schema 8). Throws Error as read_pt2 does.
ir::Graph import_program(const Field& program, const Symbols& symbols, Weights& weights,
                         ir::Module& module, const std::string& name);

}  // namespace shardwright::frontend
