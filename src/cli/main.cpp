// The shardwright program.
#include <string>
#include <vector>

#include "cli/cli.h"

int main(int argc, char** argv) {
  return shardwright::cli::run(std::vector<std::string>(argv + 1, argv + argc));
}
