// Values of symbols, chosen by input dimensions.
#include "frontend/symbols.h"

#include <algorithm>
#include <limits>
#include <set>

#include <fmt/format.h>

#include "base/checked.h"
#include "base/error.h"
#include "frontend/expression.h"
#include "frontend/guard.h"

namespace shardwright::frontend {
namespace {

constexpr int64_t kUnbounded = std::numeric_limits<int64_t>::max();

}  // namespace

Symbols::Symbols(const Field& program, const std::vector<DimChoice>& choices, std::string file)
    : file_(std::move(file)) {
  const Field graph = program["graph_module"]["graph"];
  graph_ = &graph.json();
  graph_path_ = graph.path();
  if (program.has("range_constraints")) {
    const Field ranges = program["range_constraints"];
    for (const auto& [symbol, unused] : ranges.json().items()) {
      const Field range = ranges[symbol.c_str()];
      ranges_[symbol] = {range.has("min_val") ? range["min_val"].integer() : 0,
                         range.has("max_val") ? range["max_val"].integer() : kUnbounded};
    }
  }
  find_open(graph, program["graph_module"]["signature"]);
  for (const DimChoice& choice : choices)
    for (const Open& open : open_)
      if (open.dim == choice.dim) choose(open, choice);
  // Plain symbols first: what is made of them is a number then.
  for (const bool plain : {true, false})
    for (const Open& open : open_) {
      if (open.hint == 0 || open.expression.starts_with("Symbol(") != plain) continue;
      const Affine affine = affine_of(open);
      if (!affine.symbol.empty())
        values_.emplace(affine.symbol, (open.hint - affine.offset) / affine.scale);
    }
  if (!chosen_by_.empty() && program.has("guards_code")) check_guards(program);
}

// A branch that the export took is in the program no more: for other sizes it would be wrong. For
// the example's sizes guards hold.
void Symbols::check_guards(const Field& program) const {
  const Field values = Field(*graph_, graph_path_)["tensor_values"];
  const Field guards = program["guards_code"];
  for (size_t i = 0; i < guards.size(); ++i) {
    const std::string& guard = guards[i].text();
    std::string sizes;
    const bool holds = guard_holds(guard, [&](const std::string& input, int64_t dim) {
      const int64_t size =
          integer(values[input.c_str()]["sizes"][static_cast<size_t>(std::max<int64_t>(dim, 0))]);
      const std::string text = fmt::format("{}.{} = {}", input, dim, size);
      if (sizes.find(text) == std::string::npos) sizes += (sizes.empty() ? "" : ", ") + text;
      return size;
    });
    if (!holds)
      throw Error(
          ErrorCode::kUsage,
          fmt::format("--dim: {} was exported for sizes with {}, which doesn't hold for {}; "
                      "choose others, or export again",
                      file_, guard, sizes));
  }
}

void Symbols::find_open(const Field& graph, const Field& signature) {
  const auto add = [&](const std::string& dim, const Field& size) {
    if (size.tag() != "as_expr") return;
    const Field expression = size["as_expr"];
    const int64_t hint = expression.has("hint") ? expression["hint"]["as_int"].integer() : 0;
    open_.push_back({dim, expression["expr_str"].text(), hint});
  };
  const Field inputs = graph["inputs"], specs = signature["input_specs"];
  for (size_t i = 0; i < std::min(inputs.size(), specs.size()); ++i) {
    if (specs[i].tag() != "user_input") continue;
    const std::string tag = inputs[i].tag();
    if (tag == "as_sym_int") {
      const std::string& name = inputs[i][tag.c_str()]["as_name"].text();
      add(name, graph["sym_int_values"][name.c_str()]);
    } else if (tag == "as_tensor") {
      const std::string& name = inputs[i][tag.c_str()]["name"].text();
      const Field sizes = graph["tensor_values"][name.c_str()]["sizes"];
      for (size_t d = 0; d < sizes.size(); ++d) add(fmt::format("{}.{}", name, d), sizes[d]);
    }
  }
}

Symbols::Range Symbols::range_of(const std::string& symbol) const {
  const auto found = ranges_.find(symbol);
  return found == ranges_.end() ? Range{0, kUnbounded} : found->second;
}

// With the symbols that have a value already; no symbol if it is a number by now.
Symbols::Affine Symbols::affine_of(const Open& open) const {
  std::set<std::string> unknown;
  const auto at = [&](int64_t x) {
    return evaluate(open.expression, [&](const std::string& symbol) {
      const auto found = values_.find(symbol);
      if (found != values_.end()) return found->second;
      unknown.insert(symbol);
      return x;
    });
  };
  const int64_t one = at(1), two = at(2);
  Affine affine;
  affine.scale = checked_add(two, checked_mul(one, -1));
  affine.offset = checked_add(one, checked_mul(affine.scale, -1));
  if (unknown.empty()) return affine;
  const int64_t three = checked_add(checked_mul(affine.scale, 3), affine.offset);
  if (unknown.size() > 1 || affine.scale < 1 || at(3) != three)
    throw Error(ErrorCode::kUnsupported,
                fmt::format("{}: the size of {} is {}; a size of an input must be a symbol, or a "
                            "multiple of one plus a number",
                            file_, open.dim, open.expression));
  affine.symbol = *unknown.begin();
  const Range range = range_of(affine.symbol);
  const auto size_at = [&](int64_t x) {
    return x > (kUnbounded - std::max<int64_t>(affine.offset, 0)) / affine.scale
               ? kUnbounded
               : affine.scale * x + affine.offset;
  };
  affine.range = {size_at(std::max<int64_t>(range.min, 0)), size_at(range.max)};
  return affine;
}

std::string Symbols::Affine::text() const {
  std::string text = scale == 1 ? symbol : fmt::format("{}*{}", scale, symbol);
  if (offset != 0) text += fmt::format(" {} {}", offset < 0 ? '-' : '+', std::abs(offset));
  return text;
}

std::string Symbols::Affine::allowed() const {
  std::string text = range.max == kUnbounded ? fmt::format("{} or more", range.min)
                                             : fmt::format("{} to {}", range.min, range.max);
  if (scale > 1) text += fmt::format(" in steps of {}", scale);
  return text;
}

void Symbols::choose(const Open& open, const DimChoice& choice) {
  const std::string given = fmt::format("--dim {}={}", choice.dim, choice.size);
  const Affine affine = affine_of(open);
  if (affine.symbol.empty()) {  // an earlier choice fixed its symbol
    if (affine.offset == choice.size) return;
    std::string earlier;
    (void)evaluate(open.expression, [&](const std::string& symbol) {
      earlier = chosen_by_.at(symbol);
      return values_.at(symbol);
    });
    throw Error(ErrorCode::kUsage,
                fmt::format("{}: contradicts {}, which makes {} {} (the file ties both sizes "
                            "together); leave one of them out",
                            given, earlier, choice.dim, affine.offset));
  }
  const int64_t steps = choice.size - affine.offset;
  if (choice.size < affine.range.min || choice.size > affine.range.max ||
      steps % affine.scale != 0) {
    const Range range = range_of(affine.symbol);
    const std::string constraint =
        range.max == kUnbounded
            ? fmt::format("{} >= {}", affine.symbol, range.min)
            : fmt::format("{} <= {} <= {}", range.min, affine.symbol, range.max);
    throw Error(ErrorCode::kUsage,
                fmt::format("{}: {} allows {} (range constraint {}, {} is {})", given, file_,
                            affine.allowed(), constraint, open.dim, affine.text()));
  }
  values_[affine.symbol] = steps / affine.scale;
  chosen_by_[affine.symbol] = given;
}

std::string Symbols::open_text() const {
  std::string text;
  Symbols without(*this);
  without.values_.clear();
  for (const Open& open : open_)
    text += fmt::format("{}{} ({}, default {})", text.empty() ? "" : ", ", open.dim,
                        without.affine_of(open).allowed(), open.hint);
  return text;
}

int64_t Symbols::value_of(const std::string& symbol) const {
  const auto found = values_.find(symbol);
  if (found == values_.end())
    throw Error(ErrorCode::kUnsupported,
                fmt::format("the size {} depends on data, but a PEF has fixed sizes: change the "
                            "model so that shapes follow from the shapes of its inputs",
                            symbol));
  return found->second;
}

int64_t Symbols::number(const Field& field, const char* table) const {
  const std::string tag = field.tag();
  if (tag == "as_int") return field[tag.c_str()].integer();
  if (tag == "as_bool") return field[tag.c_str()].boolean() ? 1 : 0;
  if (tag == "as_sym_int" || tag == "as_sym_bool") return number(field[tag.c_str()], table);
  if (tag == "as_name" && graph_ != nullptr) {
    const Field values = Field(*graph_, graph_path_)[table];
    const Field value = values[field[tag.c_str()].text().c_str()];
    if (value.tag() == "as_name") value.broken("an expression or a number");
    return number(value, table);
  }
  if (tag != "as_expr") field.broken("a size");
  const std::string& text = field[tag.c_str()]["expr_str"].text();
  try {
    return evaluate(text, [this](const std::string& symbol) { return value_of(symbol); });
  } catch (const Error& error) {
    throw error.within(field.path());
  }
}

int64_t Symbols::integer(const Field& field) const { return number(field, "sym_int_values"); }

bool Symbols::boolean(const Field& field) const { return number(field, "sym_bool_values") != 0; }

}  // namespace shardwright::frontend
