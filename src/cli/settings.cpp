// Settings: from YAML and the environment into the parser's options.
#include "cli/settings.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <yaml-cpp/yaml.h>

#include "base/error.h"
#include "base/nearest.h"
#include "cli/options.h"

namespace shardwright::cli {
namespace {

[[noreturn]] void fail(const std::string& name, int line, const std::string& message) {
  throw Error(ErrorCode::kUsage, fmt::format("{}, line {}: {}", name, line, message));
}

int line_of(const YAML::Node& node) { return node.Mark().line + 1; }

class ConfigReader {
 public:
  ConfigReader(std::string name, const std::vector<std::string>& commands)
      : name_(std::move(name)), commands_(commands) {}

  std::vector<Setting> read(const YAML::Node& root) {
    if (root.IsNull()) return {};  // an empty file
    if (!root.IsMap()) fail(name_, line_of(root), "expected options, as in `n-chips: 2`");
    read_map(root, "");
    return std::move(settings_);
  }

 private:
  void read_map(const YAML::Node& map, const std::string& command) {
    for (const auto& entry : map) {
      const int line = line_of(entry.first);
      if (!entry.first.IsScalar()) fail(name_, line, "a key must be the name of an option");
      std::string key = entry.first.Scalar();
      std::replace(key.begin(), key.end(), '_', '-');
      const auto [seen, is_new] = lines_.emplace(command + ' ' + key, line);
      if (!is_new)
        fail(name_, line, fmt::format("'{}' stands in line {} already", key, seen->second));
      const bool names_command =
          std::find(commands_.begin(), commands_.end(), key) != commands_.end();
      if (command.empty() && names_command) {
        if (entry.second.IsNull()) continue;
        if (!entry.second.IsMap())
          fail(name_, line, fmt::format("below '{}' stand its options, as in `n-chips: 2`", key));
        read_map(entry.second, key);
      } else {
        settings_.push_back({command, key, values_of(entry.second, key, line), line});
      }
    }
  }

  std::vector<std::string> values_of(const YAML::Node& node, const std::string& key, int line) {
    std::vector<std::string> values;
    if (node.IsScalar()) values.push_back(node.Scalar());
    if (node.IsSequence())
      for (const YAML::Node& item : node) {
        if (!item.IsScalar()) fail(name_, line, fmt::format("'{}' is a list of lists", key));
        values.push_back(item.Scalar());
      }
    if (node.IsMap())
      fail(name_, line,
           fmt::format("'{}' has options below it, but is no command; commands are {}", key,
                       fmt::join(commands_, ", ")));
    if (values.empty() || std::find(values.begin(), values.end(), "") != values.end())
      fail(name_, line, fmt::format("'{}' has no value", key));
    return values;
  }

  std::string name_;
  const std::vector<std::string>& commands_;
  std::map<std::string, int> lines_;  // "command key" -> where it stands
  std::vector<Setting> settings_;
};

std::vector<std::string> keys_of(const CLI::App& app) {
  std::vector<std::string> keys;
  for (const CLI::Option* option : app.get_options())
    if (const std::string key = key_of(*option); !key.empty()) keys.push_back(key);
  return keys;
}

// Every key must be an option of its command, or of any where it stands above the commands.
void check_keys(CLI::App& app, const std::vector<Setting>& settings, const std::string& file) {
  std::vector<std::string> all = keys_of(app);
  std::map<std::string, std::vector<std::string>> of_command;
  for (const CLI::App* command : app.get_subcommands({})) {
    std::vector<std::string> keys = keys_of(*command);
    all.insert(all.end(), keys.begin(), keys.end());
    of_command[command->get_name()] = std::move(keys);
  }
  for (const Setting& setting : settings) {
    const std::vector<std::string>& known =
        setting.command.empty() ? all : of_command.at(setting.command);
    if (setting.key == "config") fail(file, setting.line, "a file can't name another one");
    if (std::find(known.begin(), known.end(), setting.key) != known.end()) continue;
    fail(file, setting.line,
         fmt::format("unknown option '{}'{}; the nearest known one is '{}'", setting.key,
                     setting.command.empty() ? "" : " of " + setting.command,
                     nearest_names(setting.key, known, 1).at(0)));
  }
}

std::vector<Setting> read_file(CLI::App& app, const std::string& path) {
  if (std::filesystem::is_directory(path))
    throw Error(ErrorCode::kUsage, fmt::format("--config {}: is a folder; give a YAML file", path));
  std::ifstream stream(path, std::ios::binary);
  if (!stream)
    throw Error(ErrorCode::kUsage,
                fmt::format("--config {}: there is no such file, or it can't be read", path));
  const std::string text{std::istreambuf_iterator<char>(stream), {}};
  std::vector<std::string> commands;
  for (const CLI::App* command : app.get_subcommands({})) commands.push_back(command->get_name());
  std::vector<Setting> settings = parse_config(text, path, commands);
  check_keys(app, settings, path);
  return settings;
}

struct Source {
  std::vector<std::string> values;
  std::string where;
};

// The environment's value, else the file's; there what stands below the command comes first.
std::optional<Source> source_of(const std::string& key, const std::string& command,
                                const std::vector<Setting>& settings, const std::string& file) {
  const std::string variable = environment_name(key);
  if (const char* value = std::getenv(variable.c_str()); value != nullptr && *value != '\0')
    return Source{{value}, variable};
  const Setting* found = nullptr;
  for (const Setting& setting : settings)
    if (setting.key == key &&
        (setting.command == command || (setting.command.empty() && found == nullptr)))
      found = &setting;
  if (found == nullptr) return std::nullopt;
  return Source{found->values, fmt::format("{}, line {}", file, found->line)};
}

void set(CLI::Option& option, const Source& source) {
  try {
    if (source.values.size() > 1 && option.get_items_expected_max() <= 1)
      throw Error(ErrorCode::kUsage, fmt::format("{} takes one value, not {}", name_of(option),
                                                 fmt::join(source.values, ", ")));
    for (const std::string& value : source.values) option.add_result(value);
    option.run_callback();
  } catch (const CLI::ParseError& error) {
    throw Error(ErrorCode::kUsage, fmt::format("{}: {}", source.where, error.what()));
  } catch (const Error& error) {
    throw error.within(source.where);
  }
}

}  // namespace

std::vector<Setting> parse_config(const std::string& text, const std::string& name,
                                  const std::vector<std::string>& commands) {
  try {
    return ConfigReader(name, commands).read(YAML::Load(text));
  } catch (const YAML::Exception& error) {
    fail(name, error.mark.line + 1, error.msg);
  }
}

std::string key_of(const CLI::Option& option) {
  std::string key =
      option.get_lnames().empty() ? option.get_name(true) : option.get_lnames().front();
  if (key == "help" || key == "version") return "";
  std::transform(key.begin(), key.end(), key.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return key;
}

std::string environment_name(const std::string& key) {
  std::string name = "SHARDWRIGHT_";
  for (unsigned char c : key) name += c == '-' ? '_' : static_cast<char>(std::toupper(c));
  return name;
}

void apply_settings(CLI::App& app, CLI::App& command, Globals& globals) {
  CLI::Option* config = app.get_option("--config");
  if (config->count() == 0)
    if (const auto source = source_of("config", "", {}, "")) {
      set(*config, *source);
      globals.origins[name_of(*config)] = source->where;
    }
  std::vector<Setting> settings;
  if (!globals.config.empty()) settings = read_file(app, globals.config);
  for (CLI::App* owner : {&app, &command})
    for (CLI::Option* option : owner->get_options()) {
      const std::string key = key_of(*option);
      if (option->count() > 0 || key.empty() || key == "config") continue;
      const auto source = source_of(key, command.get_name(), settings, globals.config);
      if (!source) continue;
      set(*option, *source);
      globals.origins[name_of(*option)] = source->where;
    }
}

}  // namespace shardwright::cli
