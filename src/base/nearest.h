// Names nearest to a mistyped one, for messages.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace shardwright {

// Up to `count` of `candidates`, nearest to `name` by edit distance first; equally near ones in
// alphabetical order.
std::vector<std::string> nearest_names(std::string_view name, std::vector<std::string> candidates,
                                       size_t count);

}  // namespace shardwright
