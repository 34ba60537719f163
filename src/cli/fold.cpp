// Folding of layers, and the words for splits.
#include "cli/fold.h"

#include <regex>

#include <fmt/format.h>

#include "cli/print.h"

namespace shardwright::cli {

std::string folded(const std::string& name) {
  static const std::regex kNumber(R"((^|\.)\d+(?=[. ]|$))");
  return std::regex_replace(name, kNumber, "$1*");
}

std::optional<Layer> layer_of(const std::string& path) {
  static const std::regex kLayer(R"(^(?:([^0-9.][^.]*(?:\.[^0-9.][^.]*)*)\.)?(\d{1,6})(?=\.|$).*)");
  std::smatch match;
  if (!std::regex_match(path, match, kLayer)) return std::nullopt;
  return Layer{match[1].str(), std::stoi(match[2].str())};
}

std::string ranges_text(const std::vector<int>& numbers) {
  std::string text;
  for (size_t i = 0; i < numbers.size();) {
    size_t last = i;
    while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1) ++last;
    text += fmt::format("{}{}", text.empty() ? "" : ", ", numbers[i]);
    if (last > i) text += fmt::format("-{}", numbers[last]);
    i = last + 1;
  }
  return text;
}

std::string split_words(const std::string& op, const std::string& factor,
                        const std::string& otherwise) {
  if (op.starts_with("linear") && factor == "m") return "M (output features)";
  if (op.starts_with("linear") && factor == "k") return "K (contracted)";
  if (op.starts_with("embedding") && factor == "v") return "vocabulary";
  return otherwise;
}

void Folded::add(const std::vector<std::string>& cells) {
  for (auto& [row, count] : rows_)
    if (row == cells) {
      ++count;
      return;
    }
  rows_.emplace_back(cells, 1);
}

std::string Folded::text(std::vector<std::string> head) const {
  head.insert(head.begin(), "times");
  std::vector<std::vector<std::string>> rows = {head};
  for (const auto& [row, count] : rows_) {
    rows.push_back(row);
    rows.back().insert(rows.back().begin(), fmt::format("{}", count));
  }
  return table(rows);
}

}  // namespace shardwright::cli
