// CHECK: how a broken invariant is reported.
#include "base/check.h"

#include <cstring>

#include "base/error.h"

namespace shardwright {

void check_failed(const char* file, int line, const char* condition, const std::string& message) {
  const char* slash = std::strrchr(file, '/');
  std::string text = std::string("bug in shardwright at ") + (slash ? slash + 1 : file) + ":" +
                     std::to_string(line) + ": CHECK(" + condition + ") failed";
  if (!message.empty()) text += ": " + message;
  throw Error(ErrorCode::kBug, text);
}

}  // namespace shardwright
