// Printing.
#include "cli/print.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include <fmt/format.h>

namespace shardwright::cli {

LogLevel Globals::level() const {
  if (quiet || log_level == "error") return LogLevel::kError;
  return log_level == "debug"     ? LogLevel::kDebug
         : log_level == "warning" ? LogLevel::kWarning
                                  : LogLevel::kInfo;
}

std::string label(const Globals& globals, LogLevel level) {
  struct Style {
    const char* name;
    const char* code;
  };
  constexpr Style kStyles[] = {// by LogLevel: red, yellow, plain, grey
                               {"error: ", "1;31"},
                               {"warning: ", "1;33"},
                               {"", "0"},
                               {"debug: ", "2"}};
  const char* no_color = std::getenv("NO_COLOR");
  const bool plain = no_color != nullptr && *no_color != '\0';
  const bool color = globals.color == "always" ||
                     (globals.color == "auto" && !plain && isatty(STDERR_FILENO) != 0);
  const Style& style = kStyles[static_cast<size_t>(level)];
  return color ? fmt::format("\x1b[{}m{}\x1b[0m", style.code, style.name) : style.name;
}

void log(const Globals& globals, LogLevel level, const std::string& text) {
  if (level <= globals.level()) fmt::print(stderr, "{}{}\n", label(globals, level), text);
}

// On a terminal the seconds count on.
Progress::Progress(const Globals& globals)
    : Progress(globals, isatty(STDERR_FILENO) != 0
                            ? ProgressOutput{stderr, true, std::chrono::milliseconds(1000)}
                            : ProgressOutput{}) {}

Progress::Progress(const Globals& globals, const ProgressOutput& output)
    : globals_(globals), output_(output) {}

void Progress::stage(const std::string& name, int64_t done, int64_t total) {
  if (globals_.progress)
    globals_.progress(name, total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 0);
  if (!globals_.show_progress()) return;
  const std::lock_guard lock(mutex_);
  const bool is_new = name != name_;
  if (is_new) begin_ = std::chrono::steady_clock::now();
  name_ = name, done_ = done, total_ = total;
  if (is_new || output_.terminal) print();
  if (!thread_.joinable()) thread_ = std::jthread([this](std::stop_token stop) { repeat(stop); });
}

void Progress::print() {
  printed_ = std::chrono::steady_clock::now();
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(printed_ - begin_).count();
  const double share = total_ > 0 ? static_cast<double>(done_) / static_cast<double>(total_) : 0;
  const std::string elapsed = seconds > 0 ? fmt::format(" {} s", seconds) : "";
  const std::string percent = total_ > 0 ? fmt::format(" {:.0f} %", 100 * share) : "";
  if (output_.terminal) {
    constexpr int kCells = 24;
    const int full = std::clamp(static_cast<int>(share * kCells), 0, kCells);
    const std::string bar =
        total_ > 0 ? fmt::format(" [{:=<{}}{: <{}}]", "", full, "", kCells - full) : "";
    fmt::print(output_.file, "\r\x1b[K{}{}{}{}", name_, bar, percent, elapsed);
  } else {
    fmt::print(output_.file, "{} ...{}{}\n", name_, total_ > 0 && done_ > 0 ? percent : "",
               elapsed);
  }
  std::fflush(output_.file);
}

void Progress::repeat(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    const auto due = printed_ + output_.silence;
    if (std::chrono::steady_clock::now() >= due)
      print();
    else
      changed_.wait_until(lock, stop, due, [] { return false; });
  }
}

void Progress::end() {
  if (thread_.joinable()) {
    thread_.request_stop();
    thread_.join();
  }
  if (output_.terminal && !name_.empty()) {
    fmt::print(output_.file, "\r\x1b[K");
    std::fflush(output_.file);
  }
  name_.clear();
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
