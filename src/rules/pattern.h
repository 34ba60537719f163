// The pattern of a rule: from YAML to nodes, edges and variants.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "rules/file.h"
#include "rules/problems.h"

namespace shardwright::rules {

// Operators that a rule names but no graph holds: name -> where.
using Unmatchable = std::map<std::string, std::vector<Place>>;

// Fills nodes and variants of `rule`; problems are added.
void read_pattern(const Yaml& pattern, Rule* rule, Problems* problems, Unmatchable* unmatchable);

// "text" of a scalar, "a list", "a mapping", "nothing": what stands there, for messages.
std::string what_is(const Yaml& yaml);

// Adds a problem for each key of the map that occurs twice, and for each that is not in `known`.
void check_keys(const Yaml& map, const std::vector<std::string_view>& known, const char* whose,
                Problems* problems);
void check_duplicate_keys(const Yaml& map, Problems* problems);
// The value of a key, or null.
const Yaml* find_key(const Yaml& map, std::string_view key);

}  // namespace shardwright::rules
