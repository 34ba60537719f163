// The tree is built from yaml-cpp's events: its own nodes hide aliases and tags.
#include "rules/yaml.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <sstream>

#include <fmt/format.h>

#include "base/check.h"
#include "base/error.h"

namespace shardwright::rules {
namespace {

Place place_of(const YAML::Mark& mark) { return {mark.line + 1, mark.column + 1}; }

class Builder : public YAML::EventHandler {
 public:
  explicit Builder(const std::string& name) : name_(name) {}

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    check(mark, {}, anchor);
    add({Yaml::Kind::kNull, place_of(mark), {}, false, {}, {}});
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    refuse(mark, "an alias (*name); write the value out");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    check(mark, tag, anchor);
    add({Yaml::Kind::kScalar, place_of(mark), value, tag == "!", {}, {}});
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    check(mark, tag, anchor);
    open({Yaml::Kind::kList, place_of(mark), {}, false, {}, {}});
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    check(mark, tag, anchor);
    open({Yaml::Kind::kMap, place_of(mark), {}, false, {}, {}});
  }
  void OnMapEnd() override { close(); }

  Yaml take() { return std::move(root_); }

 private:
  [[noreturn]] void refuse(const YAML::Mark& mark, const std::string& what) const {
    const Place place = place_of(mark);
    throw Error(ErrorCode::kUsage,
                fmt::format("{}:{}:{}: {}", name_, place.line, place.column, what));
  }

  void check(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) const {
    if (anchor != YAML::NullAnchor) refuse(mark, "an anchor (&name); leave it out");
    if (!tag.empty() && tag != "?" && tag != "!")  // what yaml-cpp gives to plain and quoted ones
      refuse(mark, fmt::format("a tag ({}); leave it out", tag));
  }

  void open(Yaml node) {
    if (open_.size() >= kMostYamlDepth)
      throw Error(ErrorCode::kUsage,
                  fmt::format("{}:{}:{}: nested more than {} deep", name_, node.place.line,
                              node.place.column, kMostYamlDepth));
    open_.push_back(std::move(node));
    has_key_.push_back(false);
  }

  void close() {
    Yaml node = std::move(open_.back());
    open_.pop_back();
    has_key_.pop_back();
    add(std::move(node));
  }

  // To the innermost open list or map, where keys and values take turns.
  void add(Yaml node) {
    if (open_.empty()) {
      root_ = std::move(node);
      return;
    }
    Yaml& parent = open_.back();
    if (parent.kind == Yaml::Kind::kList) {
      parent.items.push_back(std::move(node));
    } else if (has_key_.back()) {
      // Nothing stands nowhere: it is shown at its key.
      if (node.kind == Yaml::Kind::kNull) node.place = parent.entries.back().key.place;
      parent.entries.back().value = std::move(node);
      has_key_.back() = false;
    } else {
      if (node.kind != Yaml::Kind::kScalar)
        throw Error(ErrorCode::kUsage,
                    fmt::format("{}:{}:{}: a key that is no name; write `name: value`", name_,
                                node.place.line, node.place.column));
      parent.entries.push_back({std::move(node), {}});
      has_key_.back() = true;
    }
  }

  const std::string& name_;
  Yaml root_;
  std::vector<Yaml> open_;
  std::vector<bool> has_key_;  // of each open map: its value is next
};

}  // namespace

Yaml parse_yaml(std::string_view text, const std::string& name) {
  if (text.size() > kMostYamlBytes)
    throw Error(ErrorCode::kUsage, fmt::format("{}: {} bytes; a rule file has at most {}", name,
                                               text.size(), kMostYamlBytes));
  std::istringstream stream{std::string(text)};
  Builder builder(name);
  try {
    YAML::Parser parser(stream);
    if (!parser.HandleNextDocument(builder)) return {};
    Yaml tree = builder.take();
    Builder more(name);
    if (parser.HandleNextDocument(more))
      throw Error(ErrorCode::kUsage, name + ": a second document (---); a rule file is one");
    return tree;
  } catch (const YAML::Exception& error) {
    throw Error(ErrorCode::kUsage, fmt::format("{}:{}:{}: not YAML: {}", name, error.mark.line + 1,
                                               error.mark.column + 1, error.msg));
  }
}

}  // namespace shardwright::rules
