// completion: scripts for shells, from the parser's own commands and options.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/options.h"

namespace shardwright::cli {
namespace {

constexpr const char* kNoCommand = "";  // the options of the program, which every command has too

struct Entry {
  std::vector<std::string> names;  // "-b", "--batch-size"; none for what has no dashes
  std::string description;
  std::vector<std::string> choices;
  bool takes_value = false, file = false, folder = false;
};

struct Command {
  std::string name, description;
  std::vector<Entry> entries;
};

Entry entry_of(const CLI::Option& option) {
  Entry entry;
  for (const std::string& name : option.get_snames()) entry.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) entry.names.push_back("--" + name);
  entry.description = option.get_description();
  entry.choices = choices_of(option);
  entry.takes_value = option.get_items_expected_max() > 0;
  entry.file = option.get_type_name() == kFile;
  entry.folder = option.get_type_name() == kFolder;
  return entry;
}

Command command_of(const CLI::App& app, const std::string& name) {
  Command command{name, app.get_description(), {}};
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_group().empty()) continue;                        // hidden
    if (name != kNoCommand && option->check_lname("help")) continue;  // the program's
    command.entries.push_back(entry_of(*option));
    Entry& entry = command.entries.back();
    if (!option->get_positional() || entry.names.empty()) continue;
    command.entries.push_back(entry);  // both: PEF and --pef PEF
    command.entries.back().names.clear();
  }
  return command;
}

// The program first, then each command.
std::vector<Command> commands_of(const CLI::App& app) {
  std::vector<Command> commands = {command_of(app, kNoCommand)};
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    commands.push_back(command_of(*command, command->get_name()));
  return commands;
}

std::vector<std::string> names_of(const std::vector<Command>& commands) {
  std::vector<std::string> names;
  for (const Command& command : commands)
    if (command.name != kNoCommand) names.push_back(command.name);
  return names;
}

std::string bash_action(const Entry& entry) {
  if (!entry.choices.empty())
    return fmt::format("_shardwright_words '{}'", fmt::join(entry.choices, " "));
  return entry.file ? "_shardwright_paths -f" : entry.folder ? "_shardwright_paths -d" : "";
}

// "run:-p|run:--pef": patterns of `case $command:$prev`.
std::string bash_pattern(const Command& command, const Entry& entry) {
  std::string pattern;
  for (const std::string& name : entry.names)
    pattern += (pattern.empty() ? "" : "|") + (command.name == kNoCommand ? "*" : command.name) +
               ":" + name;
  return pattern;
}

std::string bash_script(const std::vector<Command>& commands) {
  std::string options, values, others;
  std::vector<std::string> unknown;  // patterns of options whose values nobody can guess
  for (const Command& command : commands) {
    std::vector<std::string> names;
    for (const Entry& entry : command.entries) {
      for (const std::string& name : entry.names)
        if (name.starts_with("--")) names.push_back(name);
      const std::string action = bash_action(entry);
      if (entry.names.empty())
        others += fmt::format("    {}) {} ;;\n", command.name, action);
      else if (entry.takes_value && action.empty())
        unknown.push_back(bash_pattern(command, entry));
      else if (entry.takes_value)
        values += fmt::format("    {}) {}; return ;;\n", bash_pattern(command, entry), action);
    }
    options +=
        command.name == kNoCommand
            ? fmt::format("  local options='{}'\n  case $command in\n", fmt::join(names, " "))
            : fmt::format("    {}) options+=' {}' ;;\n", command.name, fmt::join(names, " "));
  }
  values += fmt::format("    {}) return ;;\n", fmt::join(unknown, "|"));
  const std::string all = fmt::format("{}", fmt::join(names_of(commands), "|"));
  return fmt::format(
      R"sh(# bash completion of shardwright. Load it with: eval "$(shardwright completion bash)"
_shardwright_words() {{ mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur"); }}
_shardwright_paths() {{ compopt -o filenames; mapfile -t COMPREPLY < <(compgen "$1" -- "$cur"); }}
_shardwright() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} command= i
  COMPREPLY=()
  # bash takes --option=value for three words
  if [[ $cur == = ]]; then cur=; elif [[ $prev == = ]]; then prev=${{COMP_WORDS[COMP_CWORD-2]}}; fi
  for ((i = 1; i < COMP_CWORD; ++i)); do
    case ${{COMP_WORDS[i]}} in {}) command=${{COMP_WORDS[i]}}; break ;; esac
  done
{}  esac
  case $command:$prev in
{}  esac
  if [[ $cur == -* ]]; then _shardwright_words "$options"; return; fi
  case $command in
    '') _shardwright_words '{}' ;;
{}  esac
}}
complete -F _shardwright shardwright
)sh",
      all, options, values, fmt::join(names_of(commands), " "), others);
}

std::string quoted(const std::string& text, const std::string& special) {
  std::string out;
  for (char c : text) {
    if (c == '\'') {
      out += "'\\''";
      continue;
    }
    if (special.find(c) != std::string::npos) out += '\\';
    out += c;
  }
  return out;
}

std::string zsh_action(const Entry& entry) {
  if (!entry.choices.empty()) return fmt::format("({})", fmt::join(entry.choices, " "));
  return entry.file ? "_files" : entry.folder ? "_files -/" : " ";
}

std::string zsh_specs(const Command& command) {
  std::string specs;
  for (const Entry& entry : command.entries) {
    const std::string description = quoted(entry.description, "[]:\\");
    for (const std::string& name : entry.names)
      specs += fmt::format(" \\\n        '*{}{}[{}]{}'", name,
                           entry.takes_value && name.starts_with("--") ? "=" : "", description,
                           entry.takes_value ? ":value:" + zsh_action(entry) : "");
    if (entry.names.empty())
      specs += fmt::format(" \\\n        '1:{}:{}'", description, zsh_action(entry));
  }
  return specs;
}

std::string zsh_script(const std::vector<Command>& commands) {
  std::string list, cases;
  const std::string common = zsh_specs(commands[0]);
  for (const Command& command : commands) {
    if (command.name == kNoCommand) continue;
    list += fmt::format(" \\\n    '{}:{}'", command.name, quoted(command.description, ":\\"));
    cases += fmt::format("      {}) _arguments{}{} ;;\n", command.name, common, zsh_specs(command));
  }
  return fmt::format(R"sh(#compdef shardwright
# zsh completion of shardwright. Load it with: source <(shardwright completion zsh)
_shardwright() {{
  local curcontext=$curcontext state line
  local -a commands
  commands=({})
  _arguments -C{} \
        '1:command:->command' '*::argument:->argument'
  case $state in
    command) _describe command commands ;;
    argument) case $line[1] in
{}    esac ;;
  esac
}}
if [[ $funcstack[1] != _shardwright ]]; then
  compdef _shardwright shardwright
else
  _shardwright "$@"
fi
)sh",
                     list, common, cases);
}

std::string fish_line(const Command& command, const Entry& entry) {
  std::string line = "complete -c shardwright";
  if (command.name != kNoCommand)
    line += fmt::format(" -n '__fish_seen_subcommand_from {}'", command.name);
  for (const std::string& name : entry.names)
    line += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
  if (!entry.choices.empty())
    line += fmt::format(" -xa '{}'", fmt::join(entry.choices, " "));
  else if (entry.file)
    line += entry.names.empty() ? " -F" : " -rF";
  else if (entry.folder)
    line += " -xa '(__fish_complete_directories)'";
  else if (entry.takes_value)
    line += " -x";
  if (entry.names.empty()) return line + "\n";
  return line + fmt::format(" -d '{}'\n", quoted(entry.description, "\\"));
}

std::string fish_script(const std::vector<Command>& commands) {
  std::string script =
      "# fish completion of shardwright. Load it with: shardwright completion fish | source\n"
      "complete -c shardwright -f\n";
  for (const Command& command : commands) {
    if (command.name != kNoCommand)
      script += fmt::format("complete -c shardwright -n __fish_use_subcommand -a {} -d '{}'\n",
                            command.name, quoted(command.description, "\\"));
    for (const Entry& entry : command.entries) script += fish_line(command, entry);
  }
  return script;
}

struct Shell {
  const char* name;
  std::string (*script)(const std::vector<Command>& commands);
};

constexpr Shell kShells[] = {{"bash", bash_script}, {"zsh", zsh_script}, {"fish", fish_script}};

}  // namespace

void add_completion(CLI::App& app, const Globals& globals, Action& action) {
  auto shell = std::make_shared<std::string>();
  CLI::App* c =
      app.add_subcommand("completion", "Print a script that completes commands in a shell");
  c->footer("Example:\n  eval \"$(shardwright completion bash)\"");
  one_of(c->add_option("SHELL", *shell, "bash, zsh or fish"), {"bash", "zsh", "fish"})->required();
  c->callback([shell, &app, &globals, &action] {
    action = [shell, &app, &globals] {
      for (const Shell& s : kShells) {
        if (*shell != s.name) continue;
        const std::string script = s.script(commands_of(app));
        if (globals.json)
          emit_json(globals,
                    nlohmann::ordered_json{{"schema_version", 1}, {"script", script}}.dump());
        else
          fmt::print("{}", script);
      }
      return 0;
    };
  });
}

}  // namespace shardwright::cli
