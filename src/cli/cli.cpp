// The parser: commands, what they share, and the one place where errors end.
#include "cli/cli.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/commands.h"

namespace shardwright::cli {
namespace {

int report_error(const Globals& globals, int code, const std::string& message) {
  if (globals.json)
    fmt::print("{}\n", nlohmann::ordered_json{{"schema_version", 1},
                                              {"error", {{"code", code}, {"message", message}}}}
                           .dump());
  fmt::print(stderr, "error: {}\n", message);
  return code;
}

// CLI11's message, with what the user can do.
std::string parse_message(const CLI::App& app, const CLI::ParseError& error) {
  std::string message = error.what();
  const CLI::App* command = app.get_subcommands().empty() ? &app : app.get_subcommands().front();
  const std::string name =
      command == &app ? app.get_name() : app.get_name() + " " + command->get_name();
  return fmt::format("{}; `{} --help` lists what there is", message, name);
}

// Parses the line and returns what to do. `app` must outlive the action.
Action parse(CLI::App& app, Globals& globals, const std::vector<std::string>& args) {
  Action action;
  app.set_version_flag("--version", "shardwright 0.1.0 (PEF 1.0)");
  app.require_subcommand(1);
  app.fallthrough();
  app.add_flag("--json", globals.json, "One JSON object on standard output and nothing else there");
  app.add_flag("-q,--quiet", globals.quiet, "No progress on standard error");
  add_compile(app, globals, action);
  add_run(app, globals, action);
  add_test(app, globals, action);
  add_measure(app, globals, action);
  add_inspect(app, globals, action);
  add_verify(app, globals, action);
  app.parse(std::vector<std::string>(args.rbegin(), args.rend()));  // CLI11 wants them in reverse
  return action;
}

constexpr const char* kAbout =
    "Compile a model once into a PEF, one executable file, and run it on N chips together.";

}  // namespace

void emit_json(const Globals& globals, const std::string& json) {
  if (globals.json_out)
    *globals.json_out = json;
  else
    fmt::print("{}\n", json);
}

int run(const std::vector<std::string>& args, const std::string& program,
        const ModelProvider& provider) {
  Globals globals;
  globals.program = program;
  globals.provider = provider;
  CLI::App app(kAbout, program);
  try {
    return parse(app, globals, args)();
  } catch (const CLI::Success& success) {
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    return report_error(globals, static_cast<int>(ErrorCode::kUsage), parse_message(app, error));
  } catch (const Error& error) {
    return report_error(globals, static_cast<int>(error.code()), error.what());
  } catch (const std::bad_alloc&) {
    return report_error(globals, static_cast<int>(ErrorCode::kDoesNotFit),
                        "out of memory; give a smaller batch, or more memory");
  } catch (const std::exception& error) {
    return report_error(globals, static_cast<int>(ErrorCode::kBug), error.what());
  }
}

std::string run_for_json(const std::vector<std::string>& args, const ProgressCallback& progress) {
  Globals globals;
  globals.program = "shardwright";
  globals.progress = progress;
  std::string json;
  globals.json_out = &json;
  CLI::App app(kAbout, globals.program);
  try {
    const Action action = parse(app, globals, args);
    globals.json = true;
    action();
    return json;
  } catch (const CLI::ParseError& error) {
    throw Error(ErrorCode::kUsage, parse_message(app, error));
  }
}

}  // namespace shardwright::cli
