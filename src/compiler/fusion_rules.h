// -o1: the rules of a file on a module, and what their tp_dim means for the solver.
#pragma once

#include <string>
#include <vector>

#include "compiler/compile.h"
#include "ir/graph.h"
#include "shard/solve.h"

namespace shardwright::compiler {

// Matches the rules of options.rules_file (the built-in ones if "") on the imported graphs and
// marks what they fuse. Returns notes for people: what the file says for nothing. Throws
// Error(kUsage) with all problems of the file.
std::vector<std::string> apply_rules(ir::Module& module, const CompileOptions& options);

// The splits that groups ask for (FusionGroup::split), of the linear nodes of canonical graphs
// whose weight is a parameter.
std::map<std::pair<int, ir::NodeId>, shard::SolveOptions::Fixed> fixed_splits(
    const ir::Module& module);

// F4: batch mode ignores tp_dim. One note that names the rules, "" if none asks for a split.
std::string ignored_splits_note(const ir::Module& module);

// Groups that ask for a split, but hold no such linear: a note a rule.
std::vector<std::string> idle_splits_notes(const ir::Module& module);

}  // namespace shardwright::compiler
