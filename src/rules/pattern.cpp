// Patterns: nodes, edges, checks; then a variant for every way to take the options.
#include "rules/pattern.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/nearest.h"

namespace shardwright::rules {
namespace {

constexpr int kNoNode = -1;

class PatternReader {
 public:
  PatternReader(Rule* rule, Problems* problems, Unmatchable* unmatchable)
      : rule_(*rule), problems_(*problems), unmatchable_(*unmatchable) {}

  void run(const Yaml& pattern) {
    const size_t before = problems_.count();
    if (pattern.kind != Yaml::Kind::kMap || pattern.entries.empty()) {
      problems_.add(pattern.place, fmt::format("the pattern of '{}' is {}; give a mapping, "
                                               "`node: {{op_type: linear, child: other_node}}`",
                                               rule_.name, what_is(pattern)));
      return;
    }
    if (pattern.entries.size() > kMostPatternNodes) {
      problems_.add(pattern.place, fmt::format("{} nodes; a pattern has at most {}",
                                               pattern.entries.size(), kMostPatternNodes));
      return;
    }
    check_duplicate_keys(pattern, &problems_);
    for (const auto& [key, value] : pattern.entries) {
      PatternNode node;
      node.name = key.text;
      node.place = key.place;
      rule_.nodes.push_back(std::move(node));
    }
    for (size_t i = 0; i < pattern.entries.size(); ++i)
      read_node(pattern.entries[i].value, &rule_.nodes[i]);
    if (problems_.count() != before || has_cycle()) return;
    free_getitems();
    add_variants();
  }

 private:
  void read_node(const Yaml& value, PatternNode* node) {
    if (value.kind != Yaml::Kind::kMap) {
      problems_.add(value.place, fmt::format("node '{}' is {}; give a mapping with op_type",
                                             node->name, what_is(value)));
      return;
    }
    check_keys(value,
               {"op_type", "child", "children", "required", "included", "match_first_option"},
               "a node", &problems_);
    const Yaml* options = find_key(value, "match_first_option");
    const Yaml* op_type = find_key(value, "op_type");
    if (options != nullptr) {
      if (value.entries.size() > 1)
        problems_.add(node->place,
                      fmt::format("node '{}' has match_first_option and other keys; it "
                                  "must be the only one (the options have the rest)",
                                  node->name));
      node->options = names_of(*options, "match_first_option");
      return;
    }
    if (op_type == nullptr)
      problems_.add(node->place, fmt::format("node '{}' has no op_type", node->name));
    else
      read_op_types(*op_type, node);
    read_children(value, node);
    if (const Yaml* flag = find_key(value, "required")) node->required = truth(*flag, "required");
    if (const Yaml* flag = find_key(value, "included")) node->included = truth(*flag, "included");
  }

  void read_op_types(const Yaml& value, PatternNode* node) {
    if (value.kind == Yaml::Kind::kScalar) return read_op_type(value, node);
    if (value.kind != Yaml::Kind::kList || value.items.empty()) {
      problems_.add(value.place,
                    fmt::format("op_type is {}; give a name, or a list of names", what_is(value)));
      return;
    }
    for (const Yaml& item : value.items) read_op_type(item, node);
  }

  void read_op_type(const Yaml& value, PatternNode* node) {
    if (value.kind != Yaml::Kind::kScalar) {
      problems_.add(value.place, fmt::format("op_type is {}; give a name", what_is(value)));
      return;
    }
    OpTypeMeaning meaning = find_op_type(value.text);
    if (meaning.kind == OpTypeKind::kUnknown) {
      problems_.add(value.place, fmt::format("unknown op_type '{}'; the nearest are {}", value.text,
                                             nearest_op_type(value.text)));
      return;
    }
    if (meaning.ops.empty()) unmatchable_[value.text].push_back(value.place);
    node->op_types.push_back(value.text);
    for (const ops::OpDef* op : meaning.ops)
      if (std::find(node->ops.begin(), node->ops.end(), op) == node->ops.end())
        node->ops.push_back(op);
  }

  void read_children(const Yaml& value, PatternNode* node) {
    const Yaml* child = find_key(value, "child");
    const Yaml* children = find_key(value, "children");
    if (child != nullptr && children != nullptr)
      problems_.add(node->place, fmt::format("node '{}' has child and children; list all in "
                                             "children",
                                             node->name));
    if (child != nullptr) {
      if (child->kind != Yaml::Kind::kScalar)
        problems_.add(child->place, fmt::format("child is {}; give the name of one node (children "
                                                "takes a list)",
                                                what_is(*child)));
      else if (const int index = node_named(*child); index != kNoNode)
        node->children.push_back(index);
    }
    if (children != nullptr) node->children = names_of(*children, "children");
  }

  std::vector<int> names_of(const Yaml& value, const char* key) {
    std::vector<int> indices;
    if (value.kind != Yaml::Kind::kList || value.items.empty()) {
      problems_.add(value.place, fmt::format("{} is {}; give a list of nodes, as in [a, b]", key,
                                             what_is(value)));
      return indices;
    }
    for (const Yaml& item : value.items) {
      const int index = node_named(item);
      if (index == kNoNode) continue;
      if (std::find(indices.begin(), indices.end(), index) != indices.end())
        problems_.add(item.place, fmt::format("'{}' stands twice in {}", item.text, key));
      else
        indices.push_back(index);
    }
    return indices;
  }

  int node_named(const Yaml& name) {
    std::vector<std::string> names;
    for (size_t i = 0; i < rule_.nodes.size(); ++i) {
      if (name.kind == Yaml::Kind::kScalar && rule_.nodes[i].name == name.text)
        return static_cast<int>(i);
      names.emplace_back(rule_.nodes[i].name);
    }
    if (name.kind == Yaml::Kind::kScalar)
      problems_.add(name.place, fmt::format("no node of this pattern is called '{}'; the nearest "
                                            "is {}",
                                            name.text, nearest_names(name.text, names, 1)[0]));
    else
      problems_.add(name.place,
                    fmt::format("{} where the name of a node should be", what_is(name)));
    return kNoNode;
  }

  bool truth(const Yaml& value, const char* key) {
    if (value.kind == Yaml::Kind::kScalar && !value.quoted) {
      if (value.text == "true" || value.text == "True") return true;
      if (value.text == "false" || value.text == "False") return false;
    }
    problems_.add(value.place, fmt::format("{} is {}; give true or false", key, what_is(value)));
    return true;
  }

  // In a graph here the pieces of a split are its results: its readers read them without a getitem.
  void free_getitems() {
    const std::vector<const ops::OpDef*> pieces = find_op_type("split").ops;
    for (const PatternNode& from : rule_.nodes) {
      const bool splits = from.ops == pieces || from.ops == find_op_type("unbind").ops ||
                          from.ops == find_op_type("topk").ops;
      for (const int child : from.children) {
        PatternNode& below = rule_.nodes[static_cast<size_t>(child)];
        if (splits && below.op_types == std::vector<std::string>{"getitem"}) below.required = false;
      }
    }
  }

  const PatternNode& node(int index) const { return rule_.nodes[static_cast<size_t>(index)]; }

  // Reports a cycle through children and options.
  bool has_cycle() {
    enum : uint8_t { kNew, kOpen, kDone };
    std::vector<uint8_t> state(rule_.nodes.size(), kNew);
    std::vector<int> path;
    const std::function<bool(int)> walk = [&](int at) {
      uint8_t& mine = state[static_cast<size_t>(at)];
      if (mine == kDone) return false;
      path.push_back(at);
      if (mine == kOpen) return true;
      mine = kOpen;
      for (const auto* next : {&node(at).children, &node(at).options})
        for (const int child : *next)
          if (walk(child)) return true;
      mine = kDone;
      path.pop_back();
      return false;
    };
    for (size_t i = 0; i < rule_.nodes.size(); ++i) {
      if (!walk(static_cast<int>(i))) continue;
      path.erase(path.begin(), std::find(path.begin(), path.end(), path.back()));
      std::vector<std::string_view> names;
      for (const int at : path) names.emplace_back(node(at).name);
      problems_.add(node(path[0]).place, fmt::format("a cycle: {}", fmt::join(names, " -> ")));
      return true;
    }
    return false;
  }

  void add_variants() {
    std::vector<int> choosers;
    size_t count = 1;
    for (size_t i = 0; i < rule_.nodes.size(); ++i) {
      if (rule_.nodes[i].options.empty()) continue;
      choosers.push_back(static_cast<int>(i));
      count *= rule_.nodes[i].options.size();
      if (count > kMostVariants) {
        problems_.add(rule_.nodes[i].place,
                      fmt::format("more than {} combinations of match_first_option in rule '{}'",
                                  kMostVariants, rule_.name));
        return;
      }
    }
    for (size_t number = 0; number < count; ++number) {
      // The digits of `number`, the first chooser's the most significant.
      std::vector<int> choice(rule_.nodes.size(), kNoNode);
      size_t rest = number;
      for (size_t c = choosers.size(); c-- > 0;) {
        const std::vector<int>& options = node(choosers[c]).options;
        choice[static_cast<size_t>(choosers[c])] = options[rest % options.size()];
        rest /= options.size();
      }
      add_variant(choice);
    }
  }

  // What is reached from the roots, taking the chosen options.
  void add_variant(const std::vector<int>& choice) {
    const auto chosen = [&](int index) {
      while (choice[static_cast<size_t>(index)] != kNoNode)
        index = choice[static_cast<size_t>(index)];
      return index;
    };
    std::vector<bool> has_parent(rule_.nodes.size(), false), reached(rule_.nodes.size(), false);
    for (const PatternNode& n : rule_.nodes)
      for (const auto* next : {&n.children, &n.options})
        for (const int child : *next) has_parent[static_cast<size_t>(child)] = true;
    std::vector<int> open;
    for (size_t i = 0; i < rule_.nodes.size(); ++i)
      if (!has_parent[i]) open.push_back(chosen(static_cast<int>(i)));
    Variant variant;
    while (!open.empty()) {
      const int at = open.back();
      open.pop_back();
      if (reached[static_cast<size_t>(at)]) continue;
      reached[static_cast<size_t>(at)] = true;
      variant.nodes.push_back(at);
      for (const int child : node(at).children) {
        variant.edges.emplace_back(at, chosen(child));
        open.push_back(chosen(child));
      }
    }
    std::sort(variant.nodes.begin(), variant.nodes.end());
    std::sort(variant.edges.begin(), variant.edges.end());
    variant.edges.erase(std::unique(variant.edges.begin(), variant.edges.end()),
                        variant.edges.end());
    if (check_variant(variant)) rule_.variants.push_back(std::move(variant));
  }

  bool check_variant(const Variant& variant) {
    const auto none = [&](auto&& predicate) {
      return std::none_of(variant.nodes.begin(), variant.nodes.end(),
                          [&](int index) { return predicate(node(index)); });
    };
    const size_t before = problems_.count();
    if (none([](const PatternNode& n) { return n.required; }))
      problems_.add(rule_.place,
                    fmt::format("rule '{}' matches everywhere: no node is required", rule_.name));
    if (none([](const PatternNode& n) { return n.included; }))
      problems_.add(rule_.place,
                    fmt::format("rule '{}' fuses nothing: no node is included", rule_.name));
    // Union of what edges link.
    std::vector<int> root(rule_.nodes.size());
    std::iota(root.begin(), root.end(), 0);
    const auto find = [&](int index) {
      while (root[static_cast<size_t>(index)] != index) index = root[static_cast<size_t>(index)];
      return index;
    };
    for (const auto& [from, to] : variant.edges) root[static_cast<size_t>(find(to))] = find(from);
    for (const int index : variant.nodes) {
      if (find(index) == find(variant.nodes[0])) continue;
      problems_.add(node(index).place,
                    fmt::format("no edges link node '{}' to '{}': a pattern must hang together; "
                                "add child or children",
                                node(index).name, node(variant.nodes[0]).name));
      break;
    }
    return problems_.count() == before;
  }

  Rule& rule_;
  Problems& problems_;
  Unmatchable& unmatchable_;
};

}  // namespace

void read_pattern(const Yaml& pattern, Rule* rule, Problems* problems, Unmatchable* unmatchable) {
  PatternReader(rule, problems, unmatchable).run(pattern);
}

std::string what_is(const Yaml& yaml) {
  constexpr size_t kMostShown = 40;
  switch (yaml.kind) {
    case Yaml::Kind::kNull:
      return "nothing";
    case Yaml::Kind::kScalar:
      if (yaml.text.size() > kMostShown) return "'" + yaml.text.substr(0, kMostShown) + "...'";
      return (yaml.quoted ? "the text '" : "'") + yaml.text + "'";
    case Yaml::Kind::kList:
      return yaml.items.empty() ? "an empty list" : "a list";
    case Yaml::Kind::kMap:
      return yaml.entries.empty() ? "an empty mapping" : "a mapping";
  }
  return {};
}

void check_duplicate_keys(const Yaml& map, Problems* problems) {
  std::map<std::string_view, int> lines;
  for (const auto& [key, value] : map.entries) {
    const auto [first, is_new] = lines.emplace(key.text, key.place.line);
    if (!is_new)
      problems->add(key.place, fmt::format("'{}' stands in line {} already; leave one out",
                                           key.text, first->second));
  }
}

void check_keys(const Yaml& map, const std::vector<std::string_view>& known, const char* whose,
                Problems* problems) {
  check_duplicate_keys(map, problems);
  for (const auto& [key, value] : map.entries)
    if (std::find(known.begin(), known.end(), key.text) == known.end())
      problems->add(key.place,
                    fmt::format("unknown key '{}' of {}; the nearest is {}", key.text, whose,
                                nearest_names(key.text, {known.begin(), known.end()}, 1)[0]));
}

const Yaml* find_key(const Yaml& map, std::string_view key) {
  for (const auto& [name, value] : map.entries)
    if (name.text == key) return &value;
  return nullptr;
}

}  // namespace shardwright::rules
