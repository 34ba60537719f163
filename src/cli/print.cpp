// Printing.
#include "cli/print.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include <fmt/format.h>

namespace shardwright::cli {

std::string bytes_text(int64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (bytes < 10'000) return fmt::format("{} B", bytes);
  if (bytes < 10'000'000) return fmt::format("{:.1f} kB", value * 1e-3);
  if (bytes < 10'000'000'000) return fmt::format("{:.1f} MB", value * 1e-6);
  return fmt::format("{:.2f} GB", value * 1e-9);
}

std::string seconds_text(double seconds) {
  if (seconds < 1e-3) return fmt::format("{:.1f} us", seconds * 1e6);
  if (seconds < 1) return fmt::format("{:.2f} ms", seconds * 1e3);
  return fmt::format("{:.2f} s", seconds);
}

Progress::Progress(const Globals& globals)
    : globals_(globals), terminal_(isatty(STDERR_FILENO) != 0) {}

Progress::~Progress() { end(); }

void Progress::stage(const std::string& name, int64_t done, int64_t total) {
  if (globals_.progress)
    globals_.progress(name, total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 0);
  if (!globals_.show_progress()) return;
  const std::string percent = total > 0
                                  ? fmt::format(" {:3.0f} %", 100.0 * static_cast<double>(done) /
                                                                  static_cast<double>(total))
                                  : "";
  if (terminal_) {
    fmt::print(stderr, "\r\x1b[K{}{}", name, percent);
    std::fflush(stderr);
    last_ = name;
  } else if (name != last_) {
    fmt::print(stderr, "{} ...\n", name);
    last_ = name;
  }
}

void Progress::end() {
  if (globals_.show_progress() && terminal_ && !last_.empty()) fmt::print(stderr, "\r\x1b[K");
  last_.clear();
}

std::string table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const bool number = !row[i].empty() && row[i][0] >= '0' && row[i][0] <= '9';
      line += number ? fmt::format("  {:>{}}", row[i], widths[i])
                     : fmt::format("  {:<{}}", row[i], widths[i]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

}  // namespace shardwright::cli
