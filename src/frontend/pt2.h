// Reads a .pt2 archive (torch.export.save, core form, torch >= 2.9) into a module. No Python, no
// unpickler.
#pragma once

#include <string>

#include "ir/graph.h"

namespace shardwright::frontend {

// One graph a program ("model" becomes "forward"); weights point into the mapped file. Operators
// are the framework's (stage kImported). Throws Error: kUsage (no such file), kBrokenFile
// (damaged), kUnsupported (raw form, pickled weights, another schema, dynamic sizes, operators that
// are not known: all of them, each with its count, first module path and line).
ir::Module read_pt2(const std::string& path);
// The same from memory; `name` is for messages.
ir::Module read_pt2(SharedBytes bytes, const std::string& name);

}  // namespace shardwright::frontend
