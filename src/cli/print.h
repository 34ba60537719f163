// How the commands speak: numbers for people, progress lines, tables.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "base/units.h"
#include "cli/commands.h"

namespace shardwright::cli {

// A line on standard error, "warning: ..." or "debug: ...", if --log-level asks for it.
void log(const Globals& globals, LogLevel level, const std::string& text);
// "error: ", red where --color, NO_COLOR and the terminal allow it.
std::string label(const Globals& globals, LogLevel level);

// Where progress goes, and how long it may be silent.
struct ProgressOutput {
  std::FILE* file = stderr;
  bool terminal = false;
  std::chrono::milliseconds silence{5000};
};

// Progress: a bar that is overwritten on a terminal, a line a stage otherwise; and while a stage
// takes long, again with its seconds. Not copied: a thread of its own prints the latter.
class Progress {
 public:
  explicit Progress(const Globals& globals);
  Progress(const Globals& globals, const ProgressOutput& output);
  ~Progress() { end(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `total` 0: nobody knows how long the stage is.
  void stage(const std::string& name, int64_t done, int64_t total);
  void end();

 private:
  void print();  // under mutex_
  void repeat(const std::stop_token& stop);

  const Globals& globals_;
  ProgressOutput output_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::string name_;
  int64_t done_ = 0, total_ = 0;
  std::chrono::steady_clock::time_point begin_, printed_;
  std::jthread thread_;  // last: it uses the members above
};

// Columns padded to their widest cell; the first row is the head. Numbers (cells that start with a
// digit) align right.
std::string table(const std::vector<std::vector<std::string>>& rows);

}  // namespace shardwright::cli
