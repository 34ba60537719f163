// Text to tokens and back, by the tokenizer that a PEF holds: the Python package's, in a process of
// its own, so that the program needs no Python for anything else.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace shardwright::cli {

class TextProcess {
 public:
  // Starts it; what goes wrong is said by the first call. `pef`: a path.
  explicit TextProcess(const std::string& pef);
  ~TextProcess();
  TextProcess(const TextProcess&) = delete;
  TextProcess& operator=(const TextProcess&) = delete;

  // The tokens of a text, or (chat) of the message of a user, by the model's chat template. Throws
  // Error(kUsage): the PEF holds no tokenizer, no Python package, no chat template.
  std::vector<int64_t> encode(const std::string& text, bool chat);
  // What a new token of sequence `row` adds to its text; half a character is kept back.
  std::string add(size_t row, int64_t token);
  // What was kept back.
  std::string end(size_t row);

 private:
  std::string ask(const std::string& request);

  pid_t process_ = -1;
  FILE* to_ = nullptr;
  FILE* from_ = nullptr;
};

}  // namespace shardwright::cli
