// JSON of an archive: parsed with bounds, and read with messages that name the file and the field.
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace shardwright::frontend {

using Json = nlohmann::json;

// Refuses duplicate keys and nesting beyond 128. Throws Error(kBrokenFile) starting with `name`.
Json parse_json(std::string_view text, const std::string& name);

// A value of a record; every access that does not fit throws Error(kBrokenFile) with the path of
// the field.
class Field {
 public:
  Field(const Json& json, std::string path) : json_(&json), path_(std::move(path)) {}

  bool has(const char* key) const {
    return json_->is_object() && json_->contains(key) && !(*json_)[key].is_null();
  }
  Field operator[](const char* key) const;
  Field operator[](size_t index) const;
  size_t size() const { return json_->is_array() || json_->is_object() ? json_->size() : 0; }
  bool is_array() const { return json_->is_array(); }
  int64_t integer() const;
  double number() const;  // also "Infinity", "-Infinity", "NaN"
  bool boolean() const;
  const std::string& text() const;
  // A union: an object with exactly one key; that key.
  std::string tag() const;
  const Json& json() const { return *json_; }
  const std::string& path() const { return path_; }
  [[noreturn]] void broken(const std::string& expected) const;

 private:
  const Json* json_;
  std::string path_;
};

}  // namespace shardwright::frontend
