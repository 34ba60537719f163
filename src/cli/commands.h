// The commands: each adds itself to the parser and holds its options until it runs.
#pragma once

#include <CLI/CLI.hpp>

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cli/cli.h"
#include "ir/graph.h"

namespace shardwright::cli {

enum class LogLevel : uint8_t { kError, kWarning, kInfo, kDebug };

// What every command shares.
struct Globals {
  std::string program;
  ModelProvider provider;
  ProgressCallback progress;
  bool json = false;
  bool quiet = false;
  std::string log_level = "info";
  std::string color = "auto";
  std::string config;
  std::map<std::string, std::string> origins;  // "--n-chips" -> the variable or line it came from
  std::string* json_out = nullptr;             // where the JSON goes instead of standard output

  // What a user types before the command, in examples.
  std::string command_line() const { return provider ? "python " + program : program; }
  LogLevel level() const;
  bool show_progress() const { return level() >= LogLevel::kInfo && !progress; }
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
void add_explain(CLI::App& app, const Globals& globals, Action& action);
void add_verify(CLI::App& app, const Globals& globals, Action& action);
void add_completion(CLI::App& app, const Globals& globals, Action& action);
void add_generate(CLI::App& app, const Globals& globals, Action& action);
void add_serve(CLI::App& app, const Globals& globals, Action& action);
void add_rules(CLI::App& app, const Globals& globals, Action& action);

// A model as `compile MODEL` reads it; "" for the model script's own.
ir::Module read_model(const std::string& model, const Globals& globals);

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
  std::optional<int64_t> seq;
  bool inference = false;
  std::optional<std::string> precision;
};
// PEF or --pef FILE: required, but in the door of a model script (pef_of in pef_options.h).
void add_pef(CLI::App& command, std::string& pef, const Globals& globals);
void add_pef_options(CLI::App& command, PefOptions& options, const Globals& globals);

}  // namespace shardwright::cli
