// Attrs: getters, and the text form of attributes.
#include "ops/attrs.h"

#include <cctype>
#include <charconv>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "base/error.h"

namespace shardwright::ops {

namespace {

template <typename T>
const T& get(const Attrs& attrs, std::string_view name) {
  const Attr* attr = attrs.find(name);
  CHECK(attr != nullptr, "no attribute " + std::string(name));
  const T* value = std::get_if<T>(attr);
  CHECK(value != nullptr, "attribute " + std::string(name) + " is " + to_string(*attr));
  return *value;
}

std::string number_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value).ptr;
  std::string text(buffer, end);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string quoted(const std::string& value) {
  std::string text = "\"";
  for (char c : value) {
    if (c == '"' || c == '\\') text += '\\';
    if (c == '\n') {
      text += "\\n";
    } else {
      text += c;
    }
  }
  return text + "\"";
}

template <typename T, typename Print>
std::string list_text(const std::vector<T>& values, Print print) {
  std::string text = "[";
  for (size_t i = 0; i < values.size(); ++i) text += (i ? ", " : "") + print(values[i]);
  return text + "]";
}

[[noreturn]] void fail(std::string_view text) {
  throw Error(ErrorCode::kBrokenFile,
              "expected an attribute (None, true, 3, 1.5, \"text\", [1, 2], f32), found '" +
                  std::string(text.substr(0, 24)) + "'");
}

void skip_space(std::string_view& text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text[0]))) text.remove_prefix(1);
}

Attr parse_string(std::string_view& text) {
  std::string value;
  size_t i = 1;
  for (; i < text.size() && text[i] != '"'; ++i) {
    if (text[i] == '\\' && i + 1 < text.size()) {
      ++i;
      value += text[i] == 'n' ? '\n' : text[i];
    } else {
      value += text[i];
    }
  }
  if (i >= text.size()) fail(text);
  text.remove_prefix(i + 1);
  return value;
}

// A word, or a number: up to the next separator.
Attr parse_atom(std::string_view& text) {
  const size_t end = std::min(text.find_first_of(" ,])}=\n\t;"), text.size());
  const std::string_view word = text.substr(0, end);
  const auto take = [&](Attr value) {
    text.remove_prefix(end);
    return value;
  };
  if (word == "None") return take(std::monostate());
  if (word == "true") return take(true);
  if (word == "false") return take(false);
  if (word == "inf") return take(std::numeric_limits<double>::infinity());
  if (word == "-inf") return take(-std::numeric_limits<double>::infinity());
  if (word == "nan") return take(std::numeric_limits<double>::quiet_NaN());
  const char* last = word.data() + word.size();
  int64_t integer = 0;
  auto parsed = std::from_chars(word.data(), last, integer);
  if (parsed.ec == std::errc() && parsed.ptr == last) return take(integer);
  double number = 0;
  parsed = std::from_chars(word.data(), last, number);
  if (parsed.ec == std::errc() && parsed.ptr == last && !word.empty()) return take(number);
  if (const auto dtype = parse_dtype(word)) return take(*dtype);
  fail(text);
}

Attr parse_list(std::string_view& text) {
  const std::string_view all = text;
  std::vector<int64_t> integers;
  std::vector<double> numbers;
  text.remove_prefix(1);
  for (skip_space(text); !text.empty() && text[0] != ']'; skip_space(text)) {
    const Attr item = parse_atom(text);
    if (const auto* integer = std::get_if<int64_t>(&item)) {
      integers.push_back(*integer);
      numbers.push_back(static_cast<double>(*integer));
    } else if (const auto* number = std::get_if<double>(&item)) {
      numbers.push_back(*number);
    } else {
      fail(all);
    }
    skip_space(text);
    if (!text.empty() && text[0] == ',') text.remove_prefix(1);
  }
  if (text.empty()) fail(all);
  text.remove_prefix(1);
  if (integers.size() == numbers.size()) return integers;
  return numbers;
}

}  // namespace

const Attr* Attrs::find(std::string_view name) const {
  for (const auto& [key, value] : entries_)
    if (key == name) return &value;
  return nullptr;
}

bool Attrs::has(std::string_view name) const {
  const Attr* attr = find(name);
  return attr != nullptr && !std::holds_alternative<std::monostate>(*attr);
}

void Attrs::set(std::string_view name, Attr value) {
  for (auto& [key, old] : entries_)
    if (key == name) {
      old = std::move(value);
      return;
    }
  entries_.emplace_back(name, std::move(value));
}

void Attrs::erase(std::string_view name) {
  std::erase_if(entries_, [&](const auto& entry) { return entry.first == name; });
}

bool Attrs::boolean(std::string_view name, std::optional<bool> otherwise) const {
  if (otherwise && !has(name)) return *otherwise;
  if (const auto* integer = find(name) ? std::get_if<int64_t>(find(name)) : nullptr)
    return *integer != 0;
  return get<bool>(*this, name);
}

int64_t Attrs::integer(std::string_view name, std::optional<int64_t> otherwise) const {
  return otherwise && !has(name) ? *otherwise : get<int64_t>(*this, name);
}

double Attrs::number(std::string_view name, std::optional<double> otherwise) const {
  if (otherwise && !has(name)) return *otherwise;
  if (const auto* integer = find(name) ? std::get_if<int64_t>(find(name)) : nullptr)
    return static_cast<double>(*integer);
  if (const auto* boolean = find(name) ? std::get_if<bool>(find(name)) : nullptr) return *boolean;
  return get<double>(*this, name);
}

const std::string& Attrs::text(std::string_view name) const {
  return get<std::string>(*this, name);
}

const std::vector<int64_t>& Attrs::integers(std::string_view name) const {
  return get<std::vector<int64_t>>(*this, name);
}

DType Attrs::dtype(std::string_view name) const { return get<DType>(*this, name); }

std::optional<DType> Attrs::maybe_dtype(std::string_view name) const {
  if (!has(name)) return std::nullopt;
  return dtype(name);
}

std::string to_string(const Attr& attr) {
  struct Printer {
    std::string operator()(std::monostate) const { return "None"; }
    std::string operator()(bool value) const { return value ? "true" : "false"; }
    std::string operator()(int64_t value) const { return std::to_string(value); }
    std::string operator()(double value) const { return number_text(value); }
    std::string operator()(const std::string& value) const { return quoted(value); }
    std::string operator()(const std::vector<int64_t>& values) const {
      return list_text(values, [](int64_t value) { return std::to_string(value); });
    }
    std::string operator()(const std::vector<double>& values) const {
      return list_text(values, number_text);
    }
    std::string operator()(DType value) const { return std::string(dtype_name(value)); }
  };
  return std::visit(Printer(), attr);
}

Attr parse_attr(std::string_view& text) {
  skip_space(text);
  if (text.empty()) fail(text);
  if (text[0] == '"') return parse_string(text);
  if (text[0] == '[') return parse_list(text);
  return parse_atom(text);
}

int normal_dim(int64_t dim, int ndim) {
  CHECK(-ndim <= dim && dim < ndim,
        "dimension " + std::to_string(dim) + " of " + std::to_string(ndim));
  return static_cast<int>(dim < 0 ? dim + ndim : dim);
}

}  // namespace shardwright::ops
