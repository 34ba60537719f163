// The Python that has the package: it captures Hugging Face folders and serves.
#pragma once

#include <string>

namespace shardwright::cli {

// What the environment's SHARDWRIGHT_PYTHON names, else python3.
std::string python_program();
// One word of a shell's command line.
std::string shell_quoted(const std::string& text);

// What a message ends with where the package may be missing.
inline constexpr const char* kNeedsPackage =
    "needs the Python package (`pip install shardwright`, or set SHARDWRIGHT_PYTHON to a Python "
    "that has it)";

}  // namespace shardwright::cli
