// Values of options.
#include "cli/options.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"

namespace shardwright::cli {

std::string name_of(const CLI::Option& option) {
  return option.get_lnames().empty() ? option.get_name(true) : "--" + option.get_lnames().front();
}

CLI::Option* whole_number(CLI::Option* option, int64_t least) {
  return option->type_name("N")->check(
      [option, least](const std::string& text) {
        int64_t value = 0;
        const char* end = text.data() + text.size();
        const auto [stop, error] = std::from_chars(text.data(), end, value);
        if (error != std::errc() || stop != end || value < least)
          throw Error(ErrorCode::kUsage, fmt::format("{} {}: give a whole number, {} or more",
                                                     name_of(*option), text, least));
        return std::string();
      },
      "");
}

CLI::Option* one_of(CLI::Option* option, const std::vector<std::string>& choices) {
  return option->type_name(fmt::format("{}", fmt::join(choices, "|")))
      ->check(
          [option, choices](const std::string& text) {
            if (std::find(choices.begin(), choices.end(), text) == choices.end())
              throw Error(ErrorCode::kUsage, fmt::format("{} {}: give {}", name_of(*option), text,
                                                         fmt::join(choices, ", ")));
            return std::string();
          },
          "");
}

std::vector<std::string> choices_of(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  if (type.find('|') == std::string::npos) return {};
  return CLI::detail::split(type, '|');
}

}  // namespace shardwright::cli
