// Options from a --config file and from the environment. The order is default, file, environment,
// command line.
#pragma once

#include <string>
#include <vector>

#include "cli/commands.h"

namespace shardwright::cli {

// One `key: value` of a file.
struct Setting {
  std::string command;  // "": every command that has such an option
  std::string key;      // an option's long name; `n_chips` reads as `n-chips`
  std::vector<std::string> values;
  int line = 0;
};

// Reads YAML: a mapping of long option names to a value or a list of values; below the name of a
// command, such a mapping for that command alone. Throws Error(kUsage) starting with "NAME, line
// N:".
std::vector<Setting> parse_config(const std::string& text, const std::string& name,
                                  const std::vector<std::string>& commands);

// The name by which a file knows an option: "n-chips", "model". "" for --help, --version.
std::string key_of(const CLI::Option& option);
// "SHARDWRIGHT_N_CHIPS"
std::string environment_name(const std::string& key);

// Gives each option of the program and of `command` that the command line left out its value from
// the environment, else from the file that --config names. Throws Error(kUsage): a file that can't
// be read, a key that no command knows (with line and nearest known one), a refused value.
void apply_settings(CLI::App& app, CLI::App& command, Globals& globals);

}  // namespace shardwright::cli
