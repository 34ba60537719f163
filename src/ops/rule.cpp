// Parses rule texts and binds them to operand types.
#include "ops/rule.h"

#include <algorithm>
#include <cctype>
#include <charconv>

#include "base/check.h"
#include "base/checked.h"
#include "base/error.h"

namespace shardwright::ops {

namespace {

struct ParsedFactor {
  std::string name;
  int64_t size = -1;  // of f=N
};

struct ParsedWord {
  std::vector<ParsedFactor> factors;  // none: the word 1
  int64_t share = 1;
  bool ellipsis = false;
};

struct ParsedTensor {
  bool absent = false;
  std::vector<ParsedWord> words;
};

struct ParsedRule {
  std::vector<ParsedTensor> operands;
  std::vector<ParsedTensor> results;
  std::vector<std::pair<std::string, FactorKind>> kinds;  // name, with "..." for an ellipsis
};

class RuleParser {
 public:
  explicit RuleParser(std::string_view text) : all_(text), text_(text) {}

  ParsedRule parse() {
    ParsedRule rule;
    skip_space();
    if (!text_.starts_with("->")) rule.operands = tensors();
    expect("->");
    rule.results = tensors();
    while (take(";")) kinds(&rule.kinds);
    check(text_.empty(), "unexpected text");
    return rule;
  }

 private:
  void check(bool condition, const char* what) const {
    CHECK(condition, std::string(what) + " at '" + std::string(text_) + "' in rule \"" +
                         std::string(all_) + "\"");
  }
  void skip_space() {
    while (!text_.empty() && text_[0] == ' ') text_.remove_prefix(1);
  }
  bool take(std::string_view token) {
    skip_space();
    if (!text_.starts_with(token)) return false;
    text_.remove_prefix(token.size());
    return true;
  }
  void expect(std::string_view token) {
    check(take(token), ("expected '" + std::string(token) + "'").c_str());
  }

  std::string name() {
    skip_space();
    size_t n = 0;
    while (n < text_.size() &&
           (std::isalnum(static_cast<unsigned char>(text_[n])) || text_[n] == '_'))
      ++n;
    check(n > 0 && !std::isdigit(static_cast<unsigned char>(text_[0])), "expected a factor");
    std::string result(text_.substr(0, n));
    text_.remove_prefix(n);
    return result;
  }

  int64_t number() {
    int64_t value = -1;
    const auto end = std::from_chars(text_.data(), text_.data() + text_.size(), value).ptr;
    check(end != text_.data() && value >= 0, "expected a number");
    text_.remove_prefix(static_cast<size_t>(end - text_.data()));
    return value;
  }

  ParsedFactor factor() {
    ParsedFactor result{name(), -1};
    if (text_.starts_with("=")) {
      text_.remove_prefix(1);
      result.size = number();
    }
    return result;
  }

  ParsedWord word() {
    ParsedWord result;
    if (std::isdigit(static_cast<unsigned char>(text_[0]))) {
      check(number() == 1, "a word that is a number must be 1");
    } else if (take("(")) {
      while (!take(")")) result.factors.push_back(factor());
      check(!result.factors.empty(), "empty compound before");
    } else {
      result.factors.push_back(factor());
      if (text_.starts_with("...")) {
        text_.remove_prefix(3);
        result.ellipsis = true;
      } else if (text_.starts_with("/")) {
        text_.remove_prefix(1);
        result.share = number();
        check(result.share >= 1, "a share must be at least 1 before");
      }
    }
    return result;
  }

  ParsedTensor tensor() {
    ParsedTensor result;
    skip_space();
    if (text_.starts_with("-") && !text_.starts_with("->")) {
      text_.remove_prefix(1);
      result.absent = true;
      skip_space();
    }
    while (!text_.empty() && text_[0] != ',' && text_[0] != ';' && !text_.starts_with("->")) {
      check(!result.absent, "a word after '-'");
      result.words.push_back(word());
      skip_space();
    }
    return result;
  }

  std::vector<ParsedTensor> tensors() {
    std::vector<ParsedTensor> result{tensor()};
    while (take(",")) result.push_back(tensor());
    return result;
  }

  void kinds(std::vector<std::pair<std::string, FactorKind>>* result) {
    std::vector<std::string> names;
    while (!take(":")) {
      names.push_back(name());
      if (take("...")) names.back() += "...";
    }
    const std::string kind = name();
    check(kind == "sum" || kind == "max" || kind == "whole", "a kind is sum, max or whole, before");
    for (std::string& factor : names)
      result->emplace_back(std::move(factor), kind == "sum"   ? FactorKind::kSum
                                              : kind == "max" ? FactorKind::kMax
                                                              : FactorKind::kWhole);
  }

  std::string_view all_;
  std::string_view text_;
};

// Binds a parsed rule. Sizes of factors are -1 until they are known.
class Binder {
 public:
  Binder(std::string_view text, std::span<const std::optional<TensorType>> types)
      : text_(text), types_(types), parsed_(RuleParser(text).parse()) {}

  Rule bind() {
    if (parsed_.operands.size() == 1 && types_.empty() && parsed_.operands[0].words.empty())
      parsed_.operands.clear();
    if (parsed_.operands.empty() && types_.size() == 1) parsed_.operands.emplace_back();
    check(parsed_.operands.size() == types_.size(),
          "it has " + std::to_string(types_.size()) + " operands");
    count_ellipses();
    for (size_t i = 0; i < types_.size(); ++i) {
      rule_.present.push_back(types_[i].has_value());
      rule_.operands.push_back(types_[i] ? words(parsed_.operands[i]) : Words());
    }
    for (const ParsedTensor& result : parsed_.results) rule_.results.push_back(words(result));
    bind_sizes();
    set_kinds();
    check_kinds();
    return std::move(rule_);
  }

 private:
  void check(bool condition, const std::string& what) const {
    CHECK(condition, "rule \"" + std::string(text_) + "\": " + what);
  }

  [[noreturn]] void misfit(size_t operand, const std::string& what) const {
    throw Error(ErrorCode::kUsage, "operand " + std::to_string(operand) + " is " +
                                       to_string(*types_[operand]) + ": " + what +
                                       " (rule: " + std::string(text_) + ")");
  }

  // How many dimensions each name... stands for; and that each operand has as many as its words.
  void count_ellipses() {
    for (size_t i = 0; i < types_.size(); ++i) {
      if (!types_[i]) continue;
      check(!parsed_.operands[i].absent, "operand " + std::to_string(i) + " is present");
      const ParsedWord* ellipsis = nullptr;
      int others = 0;
      for (const ParsedWord& word : parsed_.operands[i].words) {
        check(!word.ellipsis || ellipsis == nullptr, "two '...' in one operand");
        if (word.ellipsis) ellipsis = &word;
        if (!word.ellipsis) ++others;
      }
      const int ndim = types_[i]->ndim();
      if (ndim != others && (ellipsis == nullptr || ndim < others))
        misfit(i, "expected " + std::string(ellipsis != nullptr ? "at least " : "") +
                      std::to_string(others) + " dimensions");
      if (ellipsis == nullptr) continue;
      const std::string& name = ellipsis->factors[0].name;
      const int count = ndim - others;
      const auto known = find_ellipsis(name);
      if (known == nullptr) {
        ellipses_.emplace_back(name, count);
      } else if (*known != count) {
        misfit(i, "expected " + std::to_string(others + *known) + " dimensions");
      }
    }
  }

  const int* find_ellipsis(const std::string& name) const {
    for (const auto& [known, count] : ellipses_)
      if (known == name) return &count;
    return nullptr;
  }

  int factor_index(const std::string& name) {
    const int known = rule_.find_factor(name);
    if (known >= 0) return known;
    rule_.factors.push_back({name, -1, FactorKind::kPlain});
    stated_.push_back(false);
    return static_cast<int>(rule_.factors.size()) - 1;
  }

  int64_t& size_of(int factor) { return rule_.factors[static_cast<size_t>(factor)].size; }

  Words words(const ParsedTensor& tensor) {
    Words result;
    for (const ParsedWord& parsed : tensor.words) {
      if (parsed.ellipsis) {
        const int* count = find_ellipsis(parsed.factors[0].name);
        check(count != nullptr, parsed.factors[0].name + "... stands in no operand");
        for (int i = 0; i < *count; ++i)
          result.push_back({{factor_index(parsed.factors[0].name + std::to_string(i))}, 1});
        continue;
      }
      Word word;
      word.share = parsed.share;
      for (const ParsedFactor& factor : parsed.factors) {
        word.factors.push_back(factor_index(factor.name));
        if (factor.size < 0) continue;
        int64_t& size = size_of(word.factors.back());
        check(size < 0 || size == factor.size, "two sizes for " + factor.name);
        size = factor.size;
        stated_[static_cast<size_t>(word.factors.back())] = true;
      }
      result.push_back(std::move(word));
    }
    return result;
  }

  void bind_sizes() {
    for (const bool compounds : {false, true})
      for (size_t i = 0; i < rule_.operands.size(); ++i)
        for (size_t d = 0; d < rule_.operands[i].size(); ++d)
          if (const Word& word = rule_.operands[i][d];
              word.share == 1 && (word.factors.size() > 1) == compounds)
            bind_word(i, d, word);
    for (size_t i = 0; i < rule_.operands.size(); ++i)
      for (size_t d = 0; d < rule_.operands[i].size(); ++d)
        if (const Word& word = rule_.operands[i][d]; word.share > 1) check_share(i, d, word);
    for (const Factor& factor : rule_.factors)
      check(factor.size >= 0, "no operand gives the size of " + factor.name);
  }

  void bind_word(size_t operand, size_t dim, const Word& word) {
    const int64_t size = types_[operand]->shape[dim];
    int unknown = -1;
    int64_t known = 1;
    for (int factor : word.factors) {
      if (size_of(factor) >= 0) {
        known *= size_of(factor);
      } else {
        check(unknown < 0, "two unknown sizes in a compound");
        unknown = factor;
      }
    }
    const std::string where =
        "dimension " + std::to_string(dim) + " has size " + std::to_string(size);
    if (unknown < 0) {
      if (size != known) misfit(operand, where + ", expected " + std::to_string(known));
    } else {
      if (known == 0 || size % known != 0)
        misfit(operand, where + ", expected a multiple of " + std::to_string(known));
      size_of(unknown) = size / known;
    }
  }

  void check_share(size_t operand, size_t dim, const Word& word) {
    const int64_t size = size_of(word.factors[0]);
    check(size >= 0, "no operand gives the size of a shared factor");
    const int64_t expected = ceil_div(size, word.share);
    if (types_[operand]->shape[dim] != expected)
      misfit(operand, "dimension " + std::to_string(dim) + " has size " +
                          std::to_string(types_[operand]->shape[dim]) + ", expected " +
                          std::to_string(expected));
  }

  // A kind may name factors of absent operands alone: those do not exist here.
  void set_kinds() {
    for (const auto& [name, kind] : parsed_.kinds) {
      check(text_.substr(0, text_.find(';')).find(name) != std::string_view::npos,
            "a kind for the unknown factor " + name);
      if (name.ends_with("...")) {
        const std::string base = name.substr(0, name.size() - 3);
        const int* count = find_ellipsis(base);
        for (int i = 0; count != nullptr && i < *count; ++i)
          set_kind(base + std::to_string(i), kind);
      } else {
        set_kind(name, kind);
      }
    }
  }

  void set_kind(const std::string& name, FactorKind kind) {
    const int factor = rule_.find_factor(name);
    if (factor >= 0) rule_.factors[static_cast<size_t>(factor)].kind = kind;
  }

  void check_kinds() const {
    for (size_t f = 0; f < rule_.factors.size(); ++f) {
      const Factor& factor = rule_.factors[f];
      if (factor.kind == FactorKind::kWhole) continue;
      bool in_operands = false;
      for (const Words& operand : rule_.operands)
        in_operands |= rule_.contains(operand, static_cast<int>(f));
      check(in_operands || stated_[f], factor.name + " is in no operand: it must be whole");
      if (factor.kind != FactorKind::kPlain) continue;
      for (const Words& result : rule_.results) {
        check(rule_.contains(result, static_cast<int>(f)),
              factor.name + " is missing from a result: it must have a kind");
        for (const Word& word : result)
          check(word.share == 1 || word.factors[0] != static_cast<int>(f),
                factor.name + " is shared in a result: it must have a kind");
      }
    }
  }

  std::string_view text_;
  std::span<const std::optional<TensorType>> types_;
  ParsedRule parsed_;
  std::vector<std::pair<std::string, int>> ellipses_;
  std::vector<bool> stated_;  // of each factor: its size stands in the text
  Rule rule_;
};

}  // namespace

int Rule::find_factor(std::string_view name) const {
  for (size_t i = 0; i < factors.size(); ++i)
    if (factors[i].name == name) return static_cast<int>(i);
  return -1;
}

int Rule::dim_of(const Words& words, int factor) {
  for (size_t d = 0; d < words.size(); ++d)
    if (!words[d].factors.empty() && words[d].factors[0] == factor) return static_cast<int>(d);
  return -1;
}

bool Rule::contains(const Words& words, int factor) const {
  return std::any_of(words.begin(), words.end(), [&](const Word& word) {
    return std::find(word.factors.begin(), word.factors.end(), factor) != word.factors.end();
  });
}

bool Rule::splittable(int factor) const {
  const Factor& f = factors[static_cast<size_t>(factor)];
  if (f.kind == FactorKind::kWhole || f.size <= 1) return false;
  const auto fits = [&](const Words& words) {
    int times = 0;
    for (const Word& word : words)
      for (size_t i = 0; i < word.factors.size(); ++i) {
        if (word.factors[i] != factor) continue;
        if (i > 0 || ++times > 1) return false;
      }
    return true;
  };
  return std::all_of(operands.begin(), operands.end(), fits) &&
         std::all_of(results.begin(), results.end(), fits);
}

Shape Rule::result_shape(int result) const {
  Shape shape;
  for (const Word& word : results[static_cast<size_t>(result)]) {
    int64_t size = 1;
    for (int factor : word.factors)
      size = checked_mul(size, factors[static_cast<size_t>(factor)].size);
    shape.push_back(ceil_div(size, word.share));
  }
  return shape;
}

Rule bind_rule(std::string_view text, std::span<const std::optional<TensorType>> operands) {
  return Binder(text, operands).bind();
}

std::string broadcast_rule(std::span<const std::optional<TensorType>> operands) {
  int ndim = 0;
  for (const auto& type : operands)
    if (type) ndim = std::max(ndim, type->ndim());
  Shape shape(static_cast<size_t>(ndim), 1);
  for (const auto& type : operands) {
    if (!type) continue;
    for (int d = 0; d < type->ndim(); ++d) {
      const int64_t size = type->shape[static_cast<size_t>(d)];
      int64_t& common = shape[static_cast<size_t>(ndim - type->ndim() + d)];
      if (size == 1 || size == common) continue;
      if (common != 1)
        throw Error(ErrorCode::kUsage, "operand of shape " + to_string(type->shape) +
                                           " does not broadcast: its dimension " +
                                           std::to_string(d) + " must be 1 or " +
                                           std::to_string(common));
      common = size;
    }
  }
  const auto words = [&](int n_dims, auto size_at) {
    std::string text;
    for (int d = 0; d < n_dims; ++d) {
      if (d > 0) text += ' ';
      text += size_at(d) == 1 ? "1" : "a" + std::to_string(ndim - n_dims + d);
    }
    return text;
  };
  std::string text;
  for (size_t i = 0; i < operands.size(); ++i) {
    if (i > 0) text += ", ";
    text += !operands[i] ? "-" : words(operands[i]->ndim(), [&](int d) {
      return operands[i]->shape[static_cast<size_t>(d)];
    });
  }
  return text + " -> " + words(ndim, [&](int d) { return shape[static_cast<size_t>(d)]; });
}

}  // namespace shardwright::ops
