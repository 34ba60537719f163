// The one exception type for wrong input, and the exit codes it ends in.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace shardwright {

// The value of each code is the exit status of the command line.
enum class ErrorCode : int {
  kUsage = 2,        // an option, a value, a shape that the user gave
  kUnsupported = 3,  // an operator, a dtype, a file kind that we do not handle
  kDoesNotFit = 4,   // memory
  kBrokenFile = 5,   // damaged, truncated, or of another version
  kPeerFailed = 6,   // a chip failed or missed a deadline
  kMismatch = 7,     // results differ from the expected ones
  kBug = 70,         // our own fault: see CHECK in check.h
};

// Wrong input. The message says what was given, what is wrong with it and a value that works.
// `context` is added on the way up, outermost first: "layer 3, mlp.up_proj (linear), model.py:41:
// ...".
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}

  ErrorCode code() const { return code_; }
  // A copy whose message starts with `context + ": "`.
  Error within(const std::string& context) const { return {code_, context + ": " + what()}; }

 private:
  ErrorCode code_;
};

}  // namespace shardwright
