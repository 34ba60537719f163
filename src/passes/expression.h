// The expression language of OpDef::expansion and OpDef::gradient: text to nodes.
//
//   text       = statement ";" statement ... ; the last one may be only an expression or "(a, b)"
//   statement  = name "=" expression | name "," name "=" expression     several results of one node
//   expression = op "(" argument, ..., attr=value, ... ")" | name | number | "-"     "-": absent
// A number that is an operand becomes a constant of no dimensions.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "ir/graph.h"

namespace shardwright::passes {

using Names = std::map<std::string, ir::ValueId, std::less<>>;  // kNoValue: absent

struct Built {
  std::vector<ir::ValueId> results;  // of the last statement
  Names names;                       // operands and everything the text names
};

// Appends the nodes of `text` to the graph. CHECKs that the text is well formed: it is ours. Throws
// Error(kUsage) where the operands' types don't fit.
Built build(ir::Module& module, ir::Graph& graph, std::string_view text, const Names& operands,
            int source);

// The names of a node's operands, by OpDef::arguments. Those of a list are name0, name1, ...
Names operand_names(const ir::Node& node);

}  // namespace shardwright::passes
