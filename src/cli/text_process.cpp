// A line of JSON there, a line of JSON back (python/shardwright/text.py).
#include "cli/text_process.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/python.h"

namespace shardwright::cli {
namespace {

using Json = nlohmann::json;

[[noreturn]] void fail_to_start() {
  throw Error(ErrorCode::kUsage,
              fmt::format("the tokenizer's process can't be started: {}; token numbers need none: "
                          "--prompt-tokens 1,2,3",
                          std::strerror(errno)));
}

}  // namespace

TextProcess::TextProcess(const std::string& pef) {
  int there[2] = {-1, -1};
  int back[2] = {-1, -1};
  if (pipe2(there, O_CLOEXEC) != 0 || pipe2(back, O_CLOEXEC) != 0) fail_to_start();
  const std::string python = python_program();
  process_ = fork();
  if (process_ < 0) fail_to_start();
  if (process_ == 0) {
    dup2(there[0], STDIN_FILENO);
    dup2(back[1], STDOUT_FILENO);
    execlp(python.c_str(), python.c_str(), "-m", "shardwright.text", pef.c_str(), nullptr);
    dprintf(STDERR_FILENO, "%s: %s\n", python.c_str(), std::strerror(errno));
    _exit(127);
  }
  close(there[0]);
  close(back[1]);
  to_ = fdopen(there[1], "w");
  from_ = fdopen(back[0], "r");
}

TextProcess::~TextProcess() {
  std::fclose(to_);  // its end of input: it leaves
  std::fclose(from_);
  waitpid(process_, nullptr, 0);
}

std::string TextProcess::ask(const std::string& request) {
  // A process that could not start reads nothing: that is said below, not by a signal.
  struct sigaction ignore {};
  struct sigaction before {};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &ignore, &before);
  std::fputs((request + "\n").c_str(), to_);
  std::fflush(to_);
  sigaction(SIGPIPE, &before, nullptr);
  std::string line;
  for (int c = std::fgetc(from_); c != EOF && c != '\n'; c = std::fgetc(from_))
    line.push_back(static_cast<char>(c));
  if (line.empty())
    throw Error(ErrorCode::kUsage,
                "text needs the tokenizer of the Python package (see above): `pip install "
                "'shardwright[text]'`, or set SHARDWRIGHT_PYTHON to a Python that has it; token "
                "numbers need none: --prompt-tokens 1,2,3");
  return line;
}

std::vector<int64_t> TextProcess::encode(const std::string& text, bool chat) {
  // What is no UTF-8 becomes U+FFFD, as tokenizers would make of it.
  const std::string line =
      Json{{"encode", text}, {"chat", chat}}.dump(-1, ' ', false, Json::error_handler_t::replace);
  const Json answer = Json::parse(ask(line));
  if (answer.contains("error"))
    throw Error(ErrorCode::kUsage, answer.at("error").get<std::string>());
  return answer.at("tokens").get<std::vector<int64_t>>();
}

std::string TextProcess::add(size_t row, int64_t token) {
  return Json::parse(ask(Json{{"row", row}, {"token", token}}.dump())).at("text");
}

std::string TextProcess::end(size_t row) {
  return Json::parse(ask(Json{{"row", row}}.dump())).at("text");
}

}  // namespace shardwright::cli
