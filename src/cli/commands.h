// The commands: each adds itself to the parser and holds its options until it runs.
#pragma once

#include <CLI/CLI.hpp>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cli/cli.h"

namespace shardwright::cli {

// What every command shares.
struct Globals {
  std::string program;
  ModelProvider provider;
  ProgressCallback progress;
  bool json = false;
  bool quiet = false;
  std::string* json_out = nullptr;  // where the JSON goes instead of standard output

  bool show_progress() const { return !quiet && !json && !progress; }
};

// Ends a command that was asked for JSON.
void emit_json(const Globals& globals, const std::string& json);

// A command to run once the line is parsed.
using Action = std::function<int()>;

void add_compile(CLI::App& app, const Globals& globals, Action& action);
void add_run(CLI::App& app, const Globals& globals, Action& action);
void add_measure(CLI::App& app, const Globals& globals, Action& action);
void add_test(CLI::App& app, const Globals& globals, Action& action);
void add_inspect(CLI::App& app, const Globals& globals, Action& action);
void add_verify(CLI::App& app, const Globals& globals, Action& action);

// Options of the commands that open a PEF.
struct PefOptions {
  std::string pef;
  int n_chips = 0;
  int threads = 0;
  int64_t deadline_ms = 30'000;
  std::string graph;
  // Properties of the PEF that may only be repeated, not changed (requirement C5).
  std::optional<std::string> tensor_parallel;
  std::optional<int64_t> batch_size;
  bool inference = false;
  std::optional<std::string> precision;
};
void add_pef_options(CLI::App& command, PefOptions& options, const Globals& globals);

}  // namespace shardwright::cli
