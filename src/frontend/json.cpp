// Bounded JSON parsing.
#include "frontend/json.h"

#include <limits>
#include <set>
#include <vector>

#include <fmt/format.h>

#include "base/error.h"

namespace shardwright::frontend {

Json parse_json(std::string_view text, const std::string& name) {
  constexpr int kMaxDepth = 128;
  std::vector<std::set<std::string>> keys;  // of the open objects
  const auto check = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kMaxDepth)
      throw Error(ErrorCode::kBrokenFile,
                  fmt::format("{}: nested deeper than {}", name, kMaxDepth));
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second)
      throw Error(ErrorCode::kBrokenFile,
                  fmt::format("{}: key {} occurs twice in one object", name, parsed.dump()));
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), check);
  } catch (const Json::exception& error) {
    throw Error(ErrorCode::kBrokenFile, fmt::format("{}: {}", name, error.what()));
  }
}

void Field::broken(const std::string& expected) const {
  std::string found = json_->dump(-1, ' ', false, Json::error_handler_t::replace);
  if (found.size() > 60) found = found.substr(0, 57) + "...";
  throw Error(ErrorCode::kBrokenFile, fmt::format("{} is {}, expected {}", path_, found, expected));
}

Field Field::operator[](const char* key) const {
  if (!json_->is_object() || !json_->contains(key))
    broken(fmt::format("an object with the key '{}'", key));
  return {(*json_)[key], path_ + "." + key};
}

Field Field::operator[](size_t index) const {
  if (!json_->is_array() || index >= json_->size())
    broken(fmt::format("a list with an entry {}", index));
  return {(*json_)[index], fmt::format("{}[{}]", path_, index)};
}

int64_t Field::integer() const {
  if (!json_->is_number_integer()) broken("an integer");
  if (json_->is_number_unsigned() &&
      json_->get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
    broken("a 64-bit integer");
  return json_->get<int64_t>();
}

double Field::number() const {
  if (json_->is_number()) return json_->get<double>();
  if (json_->is_string()) {
    const std::string& word = json_->get_ref<const std::string&>();
    if (word == "Infinity") return std::numeric_limits<double>::infinity();
    if (word == "-Infinity") return -std::numeric_limits<double>::infinity();
    if (word == "NaN") return std::numeric_limits<double>::quiet_NaN();
  }
  broken("a number");
}

bool Field::boolean() const {
  if (!json_->is_boolean()) broken("true or false");
  return json_->get<bool>();
}

const std::string& Field::text() const {
  if (!json_->is_string()) broken("a string");
  return json_->get_ref<const std::string&>();
}

std::string Field::tag() const {
  if (!json_->is_object() || json_->size() != 1) broken("an object with exactly one key");
  return json_->begin().key();
}

}  // namespace shardwright::frontend
