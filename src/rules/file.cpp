// Rule files: rules, heuristics, notes. Patterns are read in pattern.cpp.
#include "rules/file.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "base/file.h"
#include "ops/table.h"
#include "rules/pattern.h"
#include "rules/problems.h"

namespace shardwright::rules {
namespace {

// What a heuristic says of its rule here (docs/rules.md): which of its operators it is about.
enum class About : uint8_t { kAnything, kGemms, kAttention };

struct Heuristic {
  std::string_view name;
  About about;
};

constexpr Heuristic kHeuristics[] = {{"SAFE_GEMM", About::kGemms},
                                     {"GEMM", About::kGemms},
                                     {"SAFE_INFERENCE_GEMM", About::kGemms},
                                     {"MHA", About::kAttention},
                                     {"SDPA", About::kAttention},
                                     {"GPT2_QKV", About::kGemms},
                                     {"DEFAULT", About::kAnything}};

// Knobs of the original hardware.
constexpr std::string_view kMeaningless[] = {"head_dim_sharding_degree", "spatial_split_degree",
                                             "fwd_num_sections"};
// The source document's spelling of the first has a space.
constexpr std::string_view kTpDim[] = {"tp_dim", "tensor_parallel_dim", "tensor parallel_dim"};

std::string heuristic_names() {
  std::string text;
  for (const Heuristic& h : kHeuristics) text += (text.empty() ? "" : ", ") + std::string(h.name);
  return text;
}

const Heuristic* find_heuristic(std::string_view name) {
  const auto* found = std::find_if(std::begin(kHeuristics), std::end(kHeuristics),
                                   [&](const Heuristic& h) { return h.name == name; });
  return found == std::end(kHeuristics) ? nullptr : found;
}

bool holds_any(const Rule& rule, std::initializer_list<const ops::OpDef*> wanted) {
  return std::any_of(rule.nodes.begin(), rule.nodes.end(), [&](const PatternNode& node) {
    return std::any_of(node.ops.begin(), node.ops.end(), [&](const ops::OpDef* op) {
      return std::find(wanted.begin(), wanted.end(), op) != wanted.end();
    });
  });
}

bool holds_gemm(const Rule& rule) {
  return holds_any(rule, {&ops::linear, &ops::mm, &ops::addmm, &ops::matmul, &ops::bmm,
                          &ops::baddbmm, &ops::conv2d});
}

bool holds_attention(const Rule& rule) {
  return holds_any(rule, {&ops::attention, &ops::softmax, &ops::matmul, &ops::bmm});
}

class Parser {
 public:
  Parser(std::string path) : problems_(path) { file_.path = std::move(path); }

  RuleFile run(std::string_view text) {
    const Yaml tree = parse_yaml(text, file_.path);
    if (tree.kind != Yaml::Kind::kMap)
      throw Error(ErrorCode::kUsage,
                  fmt::format("{}: {} where rules should be; a rule file is a mapping, "
                              "`name: {{priority: 1, pattern: ...}}`",
                              file_.path, what_is(tree)));
    if (tree.entries.size() > kMostRules)
      throw Error(ErrorCode::kUsage, fmt::format("{}: {} rules; a file has at most {}", file_.path,
                                                 tree.entries.size(), kMostRules));
    for (const auto& [key, value] : tree.entries) read_rule(key, value);
    problems_.raise();
    note_unmatchable();
    return std::move(file_);
  }

 private:
  void read_rule(const Yaml& key, const Yaml& value) {
    Rule rule;
    rule.name = key.text;
    rule.place = key.place;
    if (value.kind != Yaml::Kind::kMap) {
      problems_.add(value.place, fmt::format("rule '{}' is {}; give a mapping with pattern and, if "
                                             "you like, priority and heuristic",
                                             rule.name, what_is(value)));
      return;
    }
    check_keys(value, {"priority", "heuristic", "pattern"}, "a rule", &problems_);
    if (const Yaml* priority = find_key(value, "priority")) read_priority(*priority, &rule);
    if (const Yaml* pattern = find_key(value, "pattern"))
      read_pattern(*pattern, &rule, &problems_, &unmatchable_);
    else
      problems_.add(rule.place, fmt::format("rule '{}' has no pattern", rule.name));
    if (const Yaml* heuristic = find_key(value, "heuristic")) read_heuristic(*heuristic, &rule);
    add_rule(std::move(rule));
  }

  // F1: a later rule of the same name replaces the earlier.
  void add_rule(Rule rule) {
    const auto same = std::find_if(file_.rules.begin(), file_.rules.end(),
                                   [&](const Rule& other) { return other.name == rule.name; });
    if (same != file_.rules.end()) {
      note(rule.place, fmt::format("rule '{}' replaces the rule of the same name in line {}",
                                   rule.name, same->place.line));
      file_.rules.erase(same);
    }
    file_.rules.push_back(std::move(rule));
  }

  void read_priority(const Yaml& value, Rule* rule) {
    const char* end = value.text.data() + value.text.size();
    const auto [stop, error] = std::from_chars(value.text.data(), end, rule->priority);
    const bool plain = value.kind == Yaml::Kind::kScalar && !value.quoted && !value.text.empty();
    if (!plain || stop != end || error != std::errc())
      problems_.add(value.place,
                    fmt::format("priority is {}; give a whole number, as in 4", what_is(value)));
  }

  void read_heuristic(const Yaml& value, Rule* rule) {
    if (value.kind == Yaml::Kind::kMap) {
      std::vector<std::string_view> known{"name"};
      known.insert(known.end(), std::begin(kTpDim), std::end(kTpDim));
      known.insert(known.end(), std::begin(kMeaningless), std::end(kMeaningless));
      check_keys(value, known, "a heuristic", &problems_);
      const Yaml* name = find_key(value, "name");
      if (name == nullptr)
        problems_.add(value.place, "a heuristic needs a name: " + heuristic_names());
      else
        read_heuristic_name(*name, rule);
      for (const std::string_view key : kMeaningless) note_meaningless(value, key);
      read_tp_dims(value, rule);
    } else {
      read_heuristic_name(value, rule);
    }
    const Heuristic* heuristic = find_heuristic(rule->heuristic);
    if (heuristic == nullptr || rule->nodes.empty()) return;
    if (heuristic->about == About::kGemms && !holds_gemm(*rule))
      note(value.place, fmt::format("{} is about gemms, but rule '{}' has no linear, addmm, matmul "
                                    "or other gemm",
                                    rule->heuristic, rule->name));
    if (heuristic->about == About::kAttention && !holds_attention(*rule))
      note(value.place, fmt::format("{} is about attention, but rule '{}' has no "
                                    "scaled_dot_product_attention, softmax or matmul",
                                    rule->heuristic, rule->name));
  }

  void read_heuristic_name(const Yaml& value, Rule* rule) {
    if (value.kind == Yaml::Kind::kScalar && find_heuristic(value.text) != nullptr)
      rule->heuristic = value.text;
    else
      problems_.add(value.place, fmt::format("the heuristic is {}; there are {}", what_is(value),
                                             heuristic_names()));
  }

  void note_meaningless(const Yaml& map, std::string_view key) {
    for (const auto& [name, value] : map.entries)
      if (name.text == key)
        note(name.place, fmt::format("{} means nothing here: it is a knob of the original hardware",
                                     name.text));
  }

  void read_tp_dims(const Yaml& map, Rule* rule) {
    const Yaml* first = nullptr;
    for (const auto& [key, value] : map.entries) {
      if (std::find(std::begin(kTpDim), std::end(kTpDim), key.text) == std::end(kTpDim)) continue;
      if (first != nullptr && first->text != key.text)
        problems_.add(key.place, fmt::format("'{}' and '{}' are the same key; give one of them",
                                             first->text, key.text));
      first = &key;
      read_tp_dim(key.text, value, rule);
    }
  }

  void read_tp_dim(const std::string& key, const Yaml& value, Rule* rule) {
    if (value.kind == Yaml::Kind::kList && value.items.size() == 1 &&
        value.items[0].text == "M|K") {
      problems_.add(value.place, fmt::format("{}: [M|K] is the placeholder of the documentation; "
                                             "write M, K or Auto",
                                             key));
      return;
    }
    const std::string text = value.kind == Yaml::Kind::kScalar ? value.text : "";
    if (text == "M") {
      rule->split = "m";
    } else if (text == "K") {
      rule->split = "k";
    } else if (text != "Auto") {
      problems_.add(value.place, fmt::format("{} is {}; give M (output features), K (contracted "
                                             "dimension) or Auto",
                                             key, what_is(value)));
    }
    const Heuristic* heuristic = find_heuristic(rule->heuristic);
    if (!rule->split.empty() && heuristic != nullptr && heuristic->about == About::kAttention)
      problems_.add(value.place,
                    fmt::format("{} {} with {}: attention has no weight to split; give it to a "
                                "rule with SAFE_GEMM, or Auto",
                                key, text, rule->heuristic));
  }

  // One note an operator, with all its lines.
  void note_unmatchable() {
    for (const auto& [name, places] : unmatchable_) {
      std::vector<int> lines;
      for (const Place& place : places)
        if (lines.empty() || lines.back() != place.line) lines.push_back(place.line);
      std::string where =
          places.size() > 1 ? fmt::format(" (lines {})", fmt::join(lines, ", ")) : "";
      const bool foreign = find_op_type(name).kind == OpTypeKind::kForeign;
      note(places[0], fmt::format("op_type {}{} matches nothing: {}", name, where,
                                  foreign ? "it is the original vendor's own operator"
                                          : "no graph that Shardwright reads holds it"));
    }
  }

  void note(const Place& place, const std::string& what) {
    file_.notes.push_back(problems_.at(place, what));
  }

  RuleFile file_;
  Problems problems_;
  Unmatchable unmatchable_;
};

}  // namespace

std::string Problems::at(const Place& place, const std::string& what) const {
  return fmt::format("{}:{}:{}: {}", path_, place.line, place.column, what);
}

void Problems::raise() {
  constexpr size_t kMostShown = 50;
  if (list_.empty()) return;
  std::stable_sort(list_.begin(), list_.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  list_.erase(std::unique(list_.begin(), list_.end()), list_.end());  // found in several variants
  std::string text = list_.size() == 1 ? "" : fmt::format("{}: {} problems", path_, list_.size());
  for (size_t i = 0; i < std::min(kMostShown, list_.size()); ++i)
    text += (list_.size() == 1 ? "" : "\n  ") + at(list_[i].first, list_[i].second);
  if (list_.size() > kMostShown) text += fmt::format("\n  and {} more", list_.size() - kMostShown);
  throw Error(ErrorCode::kUsage, text);
}

std::string RuleFile::origin(const Place& place) const {
  return fmt::format("{}:{}", path.substr(path.rfind('/') + 1), place.line);
}

RuleFile parse_rules(std::string_view text, const std::string& path) {
  return Parser(path).run(text);
}

RuleFile read_rules(const std::string& path) {
  const auto file = MappedFile::open(path);
  const auto* data = reinterpret_cast<const char*>(file->data());
  return parse_rules({data == nullptr ? "" : data, static_cast<size_t>(file->size())}, path);
}

RuleFile builtin_rules() { return parse_rules(builtin_rules_text(), "builtin.yaml"); }

}  // namespace shardwright::rules
