// YAML as a tree in which everything knows its line and column.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace shardwright::rules {

struct Place {
  int line = 0;    // 1-based; 0: unknown
  int column = 0;  // 1-based
  auto operator<=>(const Place&) const = default;
};

struct Yaml {
  struct Entry;
  enum class Kind : uint8_t { kNull, kScalar, kList, kMap };

  Kind kind = Kind::kNull;
  Place place;
  std::string text;            // of a scalar
  bool quoted = false;         // a scalar that can only be a string
  std::vector<Yaml> items;     // of a list
  std::vector<Entry> entries;  // of a map, in the order of the file
};

struct Yaml::Entry {
  Yaml key;
  Yaml value;
};

inline constexpr size_t kMostYamlBytes = size_t{1} << 20;
inline constexpr int kMostYamlDepth = 16;

// The one document of `text`; kNull for an empty one. Anchors, aliases, tags, a second document,
// keys that are no scalars, text above kMostYamlBytes and nesting above kMostYamlDepth are refused.
// Throws Error(kUsage): "NAME:line:column: what is wrong".
Yaml parse_yaml(std::string_view text, const std::string& name);

}  // namespace shardwright::rules
