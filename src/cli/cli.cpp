// The parser: commands, what they share, and the one place where errors end.
#include "cli/cli.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/nearest.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/print.h"
#include "cli/settings.h"
#include "pef/program.h"

namespace shardwright::cli {
namespace {

// Where the option that the message is about came from, if it was not the command line.
std::string with_origin(const Globals& globals, const std::string& message) {
  for (const auto& [option, where] : globals.origins)
    if (message.starts_with(option + " ") || message.starts_with(option + ":"))
      return fmt::format("{} ({} comes from {})", message, option, where);
  return message;
}

int report_error(const Globals& globals, ErrorCode error, const std::string& what) {
  const std::string message = with_origin(globals, what);
  const int code = static_cast<int>(error);
  if (globals.json)
    fmt::print("{}\n", nlohmann::ordered_json{{"schema_version", 1},
                                              {"error", {{"code", code}, {"message", message}}}}
                           .dump());
  log(globals, LogLevel::kError, message);
  return code;
}

std::vector<std::string> commands_of(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(command->get_name());
  return names;
}

std::vector<std::string> options_of(const CLI::App& app, const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::App* owner : {&command, &app})
    for (const CLI::Option* option : owner->get_options()) {
      if (option->get_group().empty()) continue;  // hidden
      for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    }
  return names;
}

// CLI11's message, with what the user can do.
std::string parse_message(const CLI::App& app, const Globals& globals,
                          const CLI::ParseError& error) {
  const std::string command_line = globals.command_line();
  const std::vector<CLI::App*> given = app.get_subcommands();
  const std::vector<std::string> rest = app.remaining(true);
  if (given.empty()) {
    const std::string commands = fmt::format("{}", fmt::join(commands_of(app), ", "));
    if (rest.empty() || rest[0].starts_with('-'))
      return fmt::format("give a command: {}; `{} --help` explains them", commands, command_line);
    return fmt::format("there is no command '{}'; the nearest is '{}'; commands are {}", rest[0],
                       nearest_names(rest[0], commands_of(app), 1).at(0), commands);
  }
  const std::string command = command_line + " " + given.front()->get_name();
  const std::string text = error.what(), option = text.substr(0, text.find(':'));
  const auto is = [&](CLI::ExitCodes code) {
    return error.get_exit_code() == static_cast<int>(code);
  };
  std::string message = text;
  if (is(CLI::ExitCodes::ExtrasError) && !rest.empty()) {
    const std::string name = rest[0].substr(0, rest[0].find('='));
    message = name.starts_with('-') ? "there is no option " + name
                                    : fmt::format("'{}' is one argument too many", rest[0]);
    if (name.starts_with("--") && !globals.provider)  // a script has more than the parser knows
      message += fmt::format("; the nearest is {}",
                             nearest_names(name, options_of(app, *given.front()), 1).at(0));
  } else if (is(CLI::ExitCodes::ArgumentMismatch) && text.ends_with("missing")) {
    message = option + " needs a value";
  } else if (is(CLI::ExitCodes::ArgumentMismatch)) {
    message = option + " is given more than once";
  }
  return fmt::format("{}; `{} --help` lists what there is", message, command);
}

// "-tp 4", as people know it from other programs, is "--tensor-parallel weight --n-chips 4".
std::vector<std::string> without_aliases(const std::vector<std::string>& args) {
  std::vector<std::string> result;
  for (size_t i = 0; i < args.size(); ++i) {
    const size_t equals = args[i].find('=');
    const std::string name = args[i].substr(0, equals);
    if (name != "-tp" && name != "--tensor-parallel-size") {
      result.push_back(args[i]);
      continue;
    }
    const bool inside = equals != std::string::npos;
    if (!inside && i + 1 == args.size())
      throw Error(ErrorCode::kUsage, fmt::format("{} needs a value, as in {} 4", name, name));
    const std::string value = inside ? args[i].substr(equals + 1) : args[++i];
    for (const std::string& arg : args)
      if (const std::string other = arg.substr(0, arg.find('='));
          other == "--n-chips" || other == "--tensor-parallel")
        throw Error(ErrorCode::kUsage,
                    fmt::format("{} {} says --tensor-parallel weight --n-chips {} already; leave "
                                "{} out",
                                name, value, value, other));
    result.insert(result.end(), {"--tensor-parallel", "weight", "--n-chips", value});
  }
  return result;
}

// `--pef-name --inference`: CLI11 takes what follows as the value, whatever it is.
void check_values(const CLI::App& app, const CLI::App& command) {
  for (const CLI::App* owner : {&command, &app})
    for (const CLI::Option* option : owner->get_options())
      for (const std::string& value : option->results())
        if (value.starts_with('-') && (command.get_option_no_throw(value) != nullptr ||
                                       app.get_option_no_throw(value) != nullptr))
          throw Error(ErrorCode::kUsage,
                      fmt::format("{} needs a value, but the option {} follows it",
                                  name_of(*option), value));
}

void add_globals(CLI::App& app, Globals& globals) {
  app.add_flag("--json", globals.json, "One JSON object on standard output and nothing else there");
  app.add_flag("-q,--quiet", globals.quiet, "The same as --log-level error");
  one_of(app.add_option("--log-level", globals.log_level,
                        "How much to say on standard error; info: progress (default)"),
         {"error", "warning", "info", "debug"});
  one_of(app.add_option("--color", globals.color,
                        "auto (default): on terminals, if NO_COLOR is not set"),
         {"auto", "always", "never"});
  app.add_option("--config", globals.config,
                 "YAML: options by their long names; SHARDWRIGHT_<OPTION> in the environment wins "
                 "over it, the command line over both")
      ->type_name(kFile);
}

// Parses the line and returns what to do. `app` must outlive the action.
Action parse(CLI::App& app, Globals& globals, const std::vector<std::string>& args) {
  Action action;
  globals.json = std::find(args.begin(), args.end(), "--json") != args.end();  // for its errors
  app.set_version_flag("--version",
                       fmt::format("shardwright 0.1.0 (PEF {}.{})", pef::kMajor, pef::kMinor));
  app.require_subcommand(1);
  app.fallthrough();
  app.footer(
      fmt::format("Every option can also stand in --config FILE.yaml (`n-chips: 2`) and in "
                  "the environment (SHARDWRIGHT_N_CHIPS=2).\nExample:\n  {} compile --help",
                  globals.command_line()));
  add_globals(app, globals);
  add_compile(app, globals, action);
  add_run(app, globals, action);
  add_test(app, globals, action);
  add_measure(app, globals, action);
  add_inspect(app, globals, action);
  add_explain(app, globals, action);
  add_verify(app, globals, action);
  add_generate(app, globals, action);
  add_rules(app, globals, action);
  if (!globals.provider) add_serve(app, globals, action);  // a script's PEF holds no tokenizer
  if (!globals.provider) add_completion(app, globals, action);
  for (CLI::App* command : app.get_subcommands({}))
    command->footer(
        fmt::format("Every command takes --json, --quiet, --log-level, --color and "
                    "--config: `{} --help`.\n{}",
                    globals.command_line(), command->get_footer()));
  // What is required may come from the environment or the file too.
  std::vector<CLI::Option*> required;
  for (CLI::App* command : app.get_subcommands({}))
    for (CLI::Option* option : command->get_options())
      if (option->get_required()) required.push_back(option), option->required(false);
  std::vector<std::string> line = without_aliases(args);
  std::reverse(line.begin(), line.end());  // as CLI11 wants them
  app.parse(std::move(line));
  CLI::App& command = *app.get_subcommands().front();
  check_values(app, command);
  apply_settings(app, command, globals);
  for (CLI::Option* option : command.get_options())
    if (option->count() == 0 &&
        std::find(required.begin(), required.end(), option) != required.end())
      throw Error(ErrorCode::kUsage,
                  fmt::format("{} needs {}: {}; `{} {} --help` has an example", command.get_name(),
                              option->get_name(true), option->get_description(),
                              globals.command_line(), command.get_name()));
  for (const auto& [option, where] : globals.origins)
    log(globals, LogLevel::kDebug, fmt::format("{} comes from {}", option, where));
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
    return report_error(globals, ErrorCode::kUsage, parse_message(app, globals, error));
  } catch (const Error& error) {
    return report_error(globals, error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return report_error(globals, ErrorCode::kDoesNotFit,
                        "out of memory; give a smaller batch, or more memory");
  } catch (const std::exception& error) {
    return report_error(globals, ErrorCode::kBug, error.what());
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
    globals.json = globals.quiet = true;  // a library says nothing by itself
    action();
    return json;
  } catch (const CLI::ParseError& error) {
    throw Error(ErrorCode::kUsage, parse_message(app, globals, error));
  } catch (const Error& error) {
    throw Error(error.code(), with_origin(globals, error.what()));
  }
}

}  // namespace shardwright::cli
