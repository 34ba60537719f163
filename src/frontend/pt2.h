// Reads a .pt2 archive (torch.export.save, core form, torch >= 2.9) into a module. No Python, no
// unpickler.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ir/graph.h"

namespace shardwright::frontend {

// A size that the file leaves open, by input and dimension ("input_ids.1"), or a number that is an
// input, by its name.
struct DimChoice {
  std::string dim;
  int64_t size = 0;
};
// "input_ids.1=128". Throws Error(kUsage).
DimChoice parse_dim(const std::string& text);

// One graph a program ("model" becomes "forward"); weights point into the mapped file. Operators
// are the framework's (stage kImported). Throws Error: kUsage (no such file), kBrokenFile
// (damaged), kUnsupported (raw form, pickled weights, another schema, sizes that depend on data,
// operators that are not known: all of them, each with its count, first module path and line).
// `dims`: sizes that the file leaves open; those not chosen are as in the example that it was
// exported with. Throws Error(kUsage) for a choice that the file doesn't allow, with those that it
// does.
ir::Module read_pt2(const std::string& path, const std::vector<DimChoice>& dims = {});
// The same from memory; `name` is for messages.
ir::Module read_pt2(SharedBytes bytes, const std::string& name,
                    const std::vector<DimChoice>& dims = {});

}  // namespace shardwright::frontend
