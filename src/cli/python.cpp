// Finds the Python that has the package.
#include "cli/python.h"

#include <cstdlib>

namespace shardwright::cli {

std::string python_program() {
  const char* python = std::getenv("SHARDWRIGHT_PYTHON");
  return python ? python : "python3";
}

std::string shell_quoted(const std::string& text) {
  std::string out = "'";
  for (char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

}  // namespace shardwright::cli
