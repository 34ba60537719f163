// How reports stay short: what differs only in a layer's number is said once.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace shardwright::cli {

// "model.layers.17.mlp" -> "model.layers.*.mlp"
std::string folded(const std::string& name);

// A module path that goes through a numbered module: "model.layers.17.mlp" is in layer 17 of
// "model.layers". The first number counts.
struct Layer {
  std::string of;
  int number = 0;
  bool operator==(const Layer&) const = default;
};
std::optional<Layer> layer_of(const std::string& path);

// {0, 1, 2, 3, 5} -> "0-3, 5"; ascending.
std::string ranges_text(const std::vector<int>& numbers);

// How an operator is split, in the field's words: "m" of a linear is M (output features), "k" is K
// (contracted); a table of an embedding is split by vocabulary. `otherwise` for all others.
std::string split_words(const std::string& op, const std::string& factor,
                        const std::string& otherwise);

// Equal lines are counted.
class Folded {
 public:
  void add(const std::vector<std::string>& cells);
  // As a table, with a first column "times".
  std::string text(std::vector<std::string> head) const;

 private:
  std::vector<std::pair<std::vector<std::string>, int>> rows_;
};

}  // namespace shardwright::cli
