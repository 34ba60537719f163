// How the commands speak: numbers for people, progress lines, tables.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/commands.h"

namespace shardwright::cli {

std::string bytes_text(int64_t bytes);     // "538.1 MB"
std::string seconds_text(double seconds);  // "1.23 s", "4.56 ms", "7.8 us"

// Progress on standard error: one line that is overwritten on a terminal, a line a stage otherwise.
class Progress {
 public:
  explicit Progress(const Globals& globals);
  ~Progress();
  void stage(const std::string& name, int64_t done, int64_t total);
  void end();

 private:
  const Globals& globals_;
  bool terminal_;
  std::string last_;
};

// Columns padded to their widest cell; the first row is the head. Numbers (cells that start with a
// digit) align right.
std::string table(const std::vector<std::vector<std::string>>& rows);

}  // namespace shardwright::cli
