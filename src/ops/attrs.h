// Attributes of a node: its arguments that are not tensors, by ATen's names.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "tensor/dtype.h"

namespace shardwright::ops {

// monostate is Python's None.
using Attr = std::variant<std::monostate, bool, int64_t, double, std::string, std::vector<int64_t>,
                          std::vector<double>, DType>;

// A small ordered map. Getters CHECK that the attribute is there and of that type, unless a default
// is given.
class Attrs {
 public:
  Attrs() = default;
  Attrs(std::initializer_list<std::pair<std::string, Attr>> entries) : entries_(entries) {}

  bool has(std::string_view name) const;  // present and not None
  const Attr* find(std::string_view name) const;
  void set(std::string_view name, Attr value);
  void erase(std::string_view name);

  bool boolean(std::string_view name, std::optional<bool> otherwise = {}) const;
  int64_t integer(std::string_view name, std::optional<int64_t> otherwise = {}) const;
  double number(std::string_view name,
                std::optional<double> otherwise = {}) const;  // int, float or bool
  const std::string& text(std::string_view name) const;
  const std::vector<int64_t>& integers(std::string_view name) const;
  DType dtype(std::string_view name) const;
  std::optional<DType> maybe_dtype(std::string_view name) const;

  const std::vector<std::pair<std::string, Attr>>& entries() const { return entries_; }
  bool operator==(const Attrs&) const = default;

 private:
  std::vector<std::pair<std::string, Attr>> entries_;  // in order of insertion
};

// Text form: None, true, 3, 1.5, "x", [1, 2], [1.0, 2.5], f32. Floats print so that they parse back
// to the same bits.
std::string to_string(const Attr& attr);
// Parses one attribute at the start of `text` and removes it. Throws Error(kBrokenFile) naming what
// stands there.
Attr parse_attr(std::string_view& text);

// A dim argument as an index: -1 is the last. CHECKs the range.
int normal_dim(int64_t dim, int ndim);

}  // namespace shardwright::ops
