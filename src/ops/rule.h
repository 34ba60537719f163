// The rule language: one line of einsum-like text per operator, from which shapes, strategies, cost
// and tests follow.
//
//   rule    = operands "->" results [";" kinds]     operands, results = words separated by "," (an
//   absent optional operand is "-") word    = f | (f g ...) | f/k | 1 | f... | f=N f       a
//   factor: one dimension. (h d): one dimension made of two factors, major first. 1: a dimension of
//   size 1. f/k     k (a number) consecutive rows of f share one row here: KV heads. t...    any
//   number of dimensions, one factor each (t0, t1, ...); binds to as many as there are. f=N states
//   the size of a factor that the operands don't give (slice, cat, reshape); factors of a compound
//   in an operand
//           need it too, all but one.
//   kinds   "f g: sum" | "f: max" | "f: whole", separated by ";". A factor missing from any result,
//   or present as f/k in a result,
//           must have a kind. A factor only in results must be `whole`, unless it has f=N and no
//           operand could be split along it (then it may stand without a kind: one_hot).
// Examples: "t... k, m k -> t... m; k: sum"    "b h q d, b h/3 k d, b h/3 k e -> b h q e; k d e:
// whole"    "v d, t... -> t... d; v: sum"
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/shape.h"

namespace shardwright::ops {

enum class FactorKind : uint8_t { kPlain, kSum, kMax, kWhole };

struct Factor {
  std::string name;
  int64_t size = 0;
  FactorKind kind = FactorKind::kPlain;
};

// What one dimension of an operand or result is made of. No factor: size 1.
struct Word {
  std::vector<int> factors;  // indices into Rule::factors, major first
  int64_t share = 1;  // k of f/k (then factors.size() == 1): this dimension has ceil(size / k) rows
};

using Words = std::vector<Word>;  // one tensor; a dimension each

// A rule bound to operand types: every factor has its size.
struct Rule {
  std::vector<Factor> factors;
  std::vector<Words> operands;  // an absent operand has no words and `present` false
  std::vector<bool> present;
  std::vector<Words> results;

  int find_factor(std::string_view name) const;  // -1 if there is none
  // The dimension of `words` whose major factor is `factor`, or -1.
  static int dim_of(const Words& words, int factor);
  bool contains(const Words& words, int factor) const;  // as any factor of any word
  // May be split: not whole, size > 1, major wherever it occurs, at most once a tensor.
  bool splittable(int factor) const;
  Shape result_shape(int result) const;
};

// Binds `text` to operand types (nullopt: absent). Throws Error(kUsage) where the shapes don't fit
// the rule, saying which operand's dimension has which size and what was expected; CHECKs that the
// text itself is well formed.
Rule bind_rule(std::string_view text, std::span<const std::optional<TensorType>> operands);

// Helpers to build rule texts.
// One letter word per dimension of `shape` with prefix ("a0 a1 a2"), sizes of 1 as "1".
std::string broadcast_rule(std::span<const std::optional<TensorType>>
                               operands);  // NumPy broadcasting of all of them -> one result

}  // namespace shardwright::ops
