// docs/ops.md is what the operator table says. With SHARDWRIGHT_UPDATE_DOCS=1 it is written anew.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>

#include "ops/op.h"

namespace shardwright::ops {
namespace {

constexpr const char* kPath = SHARDWRIGHT_TEST_DATA "/../docs/ops.md";

constexpr const char* kHead =
    "<!-- Generated from src/ops: SHARDWRIGHT_UPDATE_DOCS=1 "
    "build/release/tests/test_ops --gtest_filter='OpsDoc*' -->\n"
    "# Operators\n\n"
    "What a captured model may hold, by ATen's names and arguments (`x[self]`: ours, ATen's in "
    "brackets).\nThe rule is that of the example: a word a dimension, a name a factor; after `;` "
    "what happens where a factor\nis split (`src/ops/rule.h` has the language). Linear: operands, "
    "or groups of operands together, that may be\npartial sums.\n\n"
    "- kernel: a step of a program. Kernel*: its plain reference loop on one thread, for small or "
    "rare work.\n"
    "- expanded: becomes other operators before anything is split; \"kernel, expanded\": in some "
    "forms.\n"
    "- constants: computed by the compiler; it must not depend on an input.\n\n"
    "| operator | arguments | example | its rule | linear | runs as |\n"
    "|---|---|---|---|---|---|\n";

std::string code(const std::string& text) { return text.empty() ? "" : "`" + text + "`"; }

template <typename Names>
std::string joined(const Names& names) {
  std::string text;
  for (std::string_view name : names) text += (text.empty() ? "" : ", ") + std::string(name);
  return text;
}

// Rules are put together from parts: one blank between words, none before what ends one.
std::string tidied(const std::string& rule) {
  std::string text;
  for (const char c : rule) {
    if (std::string_view(" ,;:").find(c) != std::string_view::npos && text.ends_with(' '))
      text.pop_back();
    text += c;
  }
  return text;
}

std::string runs_as(const OpDef& op) {
  if (op.rule == nullptr && op.rule_for == nullptr) return "transfer between chips";
  const bool expands = op.expansion != nullptr || op.expansion_for != nullptr;
  if (op.make_kernel == nullptr) return expands ? "expanded" : "constants";
  const std::string kernel = op.make_kernel == make_reference_kernel ? "kernel*" : "kernel";
  return kernel + (expands ? ", expanded" : "");
}

std::string line_of(const OpDef& op) {
  std::string example, rule;
  if (!op.samples.empty()) {
    example = op.samples.front();
    const Sample sample = parse_sample(op, example);
    if (op.make_kernel != nullptr) rule = tidied(rule_text(op, sample.attrs, sample.operands));
  }
  const std::string names =
      code(op.name) + (op.aliases.empty() ? "" : " (" + joined(op.aliases) + ")");
  std::string line;
  for (const std::string& cell :
       {names, code(op.arguments), code(example), code(rule), code(joined(op.linear)), runs_as(op)})
    line += "| " + cell + (cell.empty() ? "" : " ");
  return line + "|\n";
}

TEST(OpsDoc, IsWhatTheTableSays) {
  std::string text = kHead;
  for (const OpDef* op : all_ops()) text += line_of(*op);
  if (std::getenv("SHARDWRIGHT_UPDATE_DOCS") != nullptr) std::ofstream(kPath) << text;
  std::ifstream file(kPath);
  const std::string found{std::istreambuf_iterator<char>(file), {}};
  // Not EXPECT_EQ: gtest would print both texts whole.
  EXPECT_TRUE(found == text) << "docs/ops.md is out of date: its first line says how to write it";
}

}  // namespace
}  // namespace shardwright::ops
