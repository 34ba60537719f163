// What is wrong with a rule file, collected, so that a user sees all of it at once.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "rules/yaml.h"

namespace shardwright::rules {

class Problems {
 public:
  explicit Problems(std::string path) : path_(std::move(path)) {}

  void add(const Place& place, std::string what) { list_.emplace_back(place, std::move(what)); }
  size_t count() const { return list_.size(); }
  // "rules.yaml:3:5: what"
  std::string at(const Place& place, const std::string& what) const;
  // Throws Error(kUsage) if there are any.
  void raise();

 private:
  std::string path_;
  std::vector<std::pair<Place, std::string>> list_;
};

}  // namespace shardwright::rules
