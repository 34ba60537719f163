// reshape: the same elements in row-major order under other sizes; and what is written with it:
// unsqueeze, squeeze, repeat, repeat_interleave.
#include <algorithm>
#include <numeric>
#include <set>

#include "base/check.h"
#include "base/error.h"
#include "ops/build.h"
#include "ops/copy.h"
#include "ops/table.h"

namespace shardwright::ops {

namespace {

// `sizes` with a -1 replaced by what is left of the elements of `from`.
Shape resolve_sizes(const Shape& sizes, const Shape& from) {
  const int64_t count = element_count(from);
  Shape result = sizes;
  int64_t known = 1;
  int64_t* unknown = nullptr;
  for (int64_t& size : result) {
    if (size == -1 && unknown == nullptr) {
      unknown = &size;
    } else if (size < 0) {
      known = -1;
      break;
    } else {
      known *= size;
    }
  }
  if (unknown != nullptr && known > 0 && count % known == 0) {
    *unknown = count / known;
    known = count;
  }
  if (known != count)
    throw Error(ErrorCode::kUsage, "the " + std::to_string(count) + " elements of shape " +
                                       to_string(from) + " can't have shape " + to_string(sizes) +
                                       "; the product of the sizes must be the same");
  return result;
}

// The words of both sides: as many common factors as there are. The digits of a mixed radix are the
// same on both sides, in the same order, so any of them may be split where it is major.
class Refinement {
 public:
  Refinement(const Shape& from, const Shape& to)
      : from_{from, std::vector<std::string>(from.size(), "1")},
        to_{to, std::vector<std::string>(to.size(), "1")} {}

  std::string text() {
    if (element_count(from_.sizes) == 0) {
      all_whole(dims(from_), dims(to_), 1);
    } else {
      group_dims();
    }
    std::string text = join_words(from_.words) + " -> " + join_words(to_.words);
    return whole_.empty() ? text : text + "; " + whole_ + ": whole";
  }

 private:
  struct Side {
    const Shape& sizes;
    std::vector<std::string> words;
    int64_t size(size_t dim) const { return sizes[dim]; }
  };
  using Dims = std::vector<size_t>;

  static Dims dims(const Side& side) {
    Dims result;
    for (size_t d = 0; d < side.sizes.size(); ++d)
      if (side.sizes[d] != 1) result.push_back(d);
    return result;
  }

  std::string new_factor() { return "f" + std::to_string(n_factors_++); }

  // Walks both sides; a group ends where the products meet.
  void group_dims() {
    const Dims from = dims(from_);
    const Dims to = dims(to_);
    for (size_t i = 0, j = 0; i < from.size();) {
      Dims from_group{from[i++]};
      Dims to_group{to[j++]};
      int64_t from_product = from_.size(from_group[0]);
      int64_t to_product = to_.size(to_group[0]);
      while (from_product != to_product) {
        if (from_product < to_product) {
          from_product *= from_.size(from[i]);
          from_group.push_back(from[i++]);
        } else {
          to_product *= to_.size(to[j]);
          to_group.push_back(to[j++]);
        }
      }
      refine(from_group, to_group);
    }
  }

  // The products of the last dims of the group, from 1 up.
  static void add_borders(const Side& side, const Dims& group, std::set<int64_t>* borders) {
    int64_t product = 1;
    borders->insert(product);
    for (size_t i = group.size(); i-- > 0;) borders->insert(product *= side.size(group[i]));
  }

  void refine(const Dims& from, const Dims& to) {
    std::set<int64_t> set;
    add_borders(from_, from, &set);
    add_borders(to_, to, &set);
    const std::vector<int64_t> borders(set.begin(), set.end());
    for (size_t i = 1; i < borders.size(); ++i)
      if (borders[i] % borders[i - 1] != 0)
        return all_whole(from, to, std::gcd(from_.size(from[0]), to_.size(to[0])));
    std::vector<std::string> names(borders.size() - 1);  // of the factor above each border
    std::for_each(names.rbegin(), names.rend(), [&](std::string& name) { name = new_factor(); });
    write_words(&from_, from, borders, names);
    write_words(&to_, to, borders, names);
  }

  static void write_words(Side* side, const Dims& group, const std::vector<int64_t>& borders,
                          const std::vector<std::string>& names) {
    size_t border = 0;
    int64_t product = 1;
    for (size_t i = group.size(); i-- > 0;) {
      product *= side->size(group[i]);
      const size_t first = border;
      while (borders[border] < product) ++border;
      if (border == first + 1) {
        side->words[group[i]] = names[first];
        continue;
      }
      std::string word;
      for (size_t f = border; f-- > first;)
        word += (word.empty() ? "(" : " ") + names[f] + "=" +
                std::to_string(borders[f + 1] / borders[f]);
      side->words[group[i]] = word + ")";
    }
  }

  // No common refinement: only the common part of the first dims, `major`, may be split.
  void all_whole(const Dims& from, const Dims& to, int64_t major) {
    const std::string common = major > 1 ? new_factor() : "";
    for (Side* side : {&from_, &to_})
      for (size_t i = 0; i < (side == &from_ ? from : to).size(); ++i) {
        const size_t dim = (side == &from_ ? from : to)[i];
        std::string& word = side->words[dim];
        const int64_t shared = i == 0 ? major : 1;
        if (shared > 1 && side->size(dim) == shared) {
          word = common;
          continue;
        }
        const std::string rest = new_factor();
        whole_ += (whole_.empty() ? "" : " ") + rest;
        word = rest + "=" + std::to_string(side->size(dim) / shared);
        if (shared > 1) word = "(" + common + "=" + std::to_string(shared) + " " + word + ")";
      }
  }

  Side from_;
  Side to_;
  std::string whole_;
  int n_factors_ = 0;
};

std::string reshape_rule(const Attrs& attrs, OperandTypes operands) {
  const Shape& from = operands[0]->shape;
  return Refinement(from, resolve_sizes(attrs.integers("shape"), from)).text();
}

void reshape_reference(const RefCall& call) { call.out().data = call.in(0).data; }

// Dims of the operand that lie like one (no jump between them) may be cut anywhere.
bool reshape_view(const KernelSpec& spec, const Strides& in, Strides* out, int64_t* offset) {
  const Shape& from = spec.operands[0].type.shape;
  const Shape& to = spec.results[0].type.shape;
  *offset = 0;
  if (element_count(from) == 0) {
    *out = contiguous_strides(to);
    return true;
  }
  out->assign(to.size(), 1);
  size_t j = to.size();
  int64_t step = 1;    // stride of the innermost dim of the present run
  int64_t run = 1;     // elements of the present run of operand dims
  int64_t filled = 1;  // elements of the result dims laid over it
  const auto fill = [&] {
    while (j > 0 && (filled < run || to[j - 1] == 1)) {
      --j;
      (*out)[j] = step * filled;
      filled *= to[j];
    }
    return filled == run;
  };
  bool started = false;
  for (size_t i = from.size(); i-- > 0;) {
    if (from[i] == 1) continue;
    if (started && in[i] == step * run) {
      run *= from[i];
      continue;
    }
    if (started && !fill()) return false;
    started = true;
    step = in[i];
    run = from[i];
    filled = 1;
  }
  return fill();
}

std::string reshape_text(const std::string& x, const Shape& shape) {
  return "reshape(" + x + ", shape=" + to_string(shape) + ")";
}

Shape unsqueezed(const Attrs& attrs, OperandTypes operands) {
  Shape shape = operands[0]->shape;
  const int dim = normal_dim(attrs.integer("dim"), operands[0]->ndim() + 1);
  shape.insert(shape.begin() + dim, 1);
  return shape;
}

std::string unsqueeze_rule(const Attrs& attrs, OperandTypes operands) {
  return whole_rule(operands, {unsqueezed(attrs, operands)});
}

std::string unsqueeze_expansion(const Attrs& attrs, OperandTypes operands) {
  return reshape_text("x", unsqueezed(attrs, operands));
}

Shape squeezed(const Attrs& attrs, OperandTypes operands) {
  const Shape& from = operands[0]->shape;
  std::vector<bool> removed(from.size(), !attrs.has("dim"));
  if (attrs.has("dim"))
    for (int64_t dim : dims_of(attrs, "dim"))
      if (!from.empty()) removed[static_cast<size_t>(normal_dim(dim, operands[0]->ndim()))] = true;
  Shape shape;
  for (size_t d = 0; d < from.size(); ++d)
    if (from[d] != 1 || !removed[d]) shape.push_back(from[d]);
  return shape;
}

std::string squeeze_rule(const Attrs& attrs, OperandTypes operands) {
  return whole_rule(operands, {squeezed(attrs, operands)});
}

std::string squeeze_expansion(const Attrs& attrs, OperandTypes operands) {
  return reshape_text("x", squeezed(attrs, operands));
}

// The operand's sizes, with leading 1s for the repeats it has no dimension for.
Shape repeat_base(const Attrs& attrs, OperandTypes operands) {
  Shape shape = operands[0]->shape;
  const size_t n = attrs.integers("repeats").size();
  if (n < shape.size())
    throw Error(ErrorCode::kUsage, "repeat: " + std::to_string(n) + " repeats for shape " +
                                       to_string(shape) + "; there must be one for each dimension");
  shape.insert(shape.begin(), n - shape.size(), 1);
  return shape;
}

std::string repeat_rule(const Attrs& attrs, OperandTypes operands) {
  Shape shape = repeat_base(attrs, operands);
  for (size_t d = 0; d < shape.size(); ++d) shape[d] *= attrs.integers("repeats")[d];
  return whole_rule(operands, {shape});
}

std::string repeat_expansion(const Attrs& attrs, OperandTypes operands) {
  const std::vector<int64_t>& repeats = attrs.integers("repeats");
  const Shape base = repeat_base(attrs, operands);
  Shape split;
  Shape expanded;
  Shape result;
  for (size_t d = 0; d < base.size(); ++d) {
    if (repeats[d] != 1) {
      split.push_back(1);
      expanded.push_back(repeats[d]);
    }
    split.push_back(base[d]);
    expanded.push_back(base[d]);
    result.push_back(base[d] * repeats[d]);
  }
  return reshape_text("expand(" + reshape_text("x", split) + ", shape=" + to_string(expanded) + ")",
                      result);
}

// Without a dimension, the operand is flattened first.
Shape interleave_base(const Attrs& attrs, OperandTypes operands, size_t* dim) {
  *dim = 0;
  if (!attrs.has("dim")) return {operands[0]->count()};
  *dim = static_cast<size_t>(normal_dim(attrs.integer("dim"), operands[0]->ndim()));
  return operands[0]->shape;
}

std::string interleave_rule(const Attrs& attrs, OperandTypes operands) {
  size_t dim = 0;
  Shape shape = interleave_base(attrs, operands, &dim);
  shape[dim] *= attrs.integer("repeats");
  return whole_rule(operands, {shape});
}

std::string interleave_expansion(const Attrs& attrs, OperandTypes operands) {
  size_t dim = 0;
  Shape result = interleave_base(attrs, operands, &dim);
  Shape split = result;
  split.insert(split.begin() + static_cast<std::ptrdiff_t>(dim) + 1, 1);
  Shape expanded = split;
  expanded[dim + 1] = attrs.integer("repeats");
  result[dim] *= attrs.integer("repeats");
  return reshape_text("expand(" + reshape_text("x", split) + ", shape=" + to_string(expanded) + ")",
                      result);
}

// Back to the sizes of x.
std::string reshape_gradient(const Attrs&, OperandTypes operands) {
  return "dx = reshape(dy, shape=" + ints_text(operands[0]->shape) + ")";
}

}  // namespace

const OpDef reshape{
    .name = "reshape",
    .aliases = {"view", "_unsafe_view"},
    .arguments = "x[self], shape[size]: ints",
    .rule_for = reshape_rule,
    .linear = {"x"},
    .gradient_for = reshape_gradient,
    .reference = reshape_reference,
    .make_kernel = make_view_copy,
    .operand_strides = Strided::kAny,
    .view = reshape_view,
    .samples = {"x: f32[2, 6, 12], shape=[2, 6, 3, 4]", "x: f32[3, 5, 1, 4], shape=[15, 4]",
                "x: f32[8, 3, 2], shape=[4, 3, 4]", "x: bf16[6, 4], shape=[2, -1]",
                "x: f32[1, 7], shape=[7, 1, 1]", "x: i64[], shape=[1]"},
};

const OpDef unsqueeze{
    .name = "unsqueeze",
    .arguments = "x[self], dim: int",
    .rule_for = unsqueeze_rule,
    .expansion_for = unsqueeze_expansion,
    .samples = {"x: f32[3, 5], dim=1", "x: f32[3, 5], dim=-1"},
};

const OpDef squeeze{
    .name = "squeeze",
    .arguments = "x[self], dim: ints?",
    .rule_for = squeeze_rule,
    .expansion_for = squeeze_expansion,
    .samples = {"x: f32[3, 1, 5, 1]", "x: f32[3, 1, 5, 1], dim=[1, 2]"},
};

const OpDef repeat{
    .name = "repeat",
    .arguments = "x[self], repeats: ints",
    .rule_for = repeat_rule,
    .expansion_for = repeat_expansion,
    .samples = {"x: f32[3, 5], repeats=[2, 1]", "x: f32[3], repeats=[4, 1, 2]"},
};

const OpDef repeat_interleave{
    .name = "repeat_interleave",
    .arguments = "x[self], repeats: int, dim: int?",
    .rule_for = interleave_rule,
    .expansion_for = interleave_expansion,
    .samples = {"x: f32[3, 5], repeats=2, dim=1", "x: f32[3, 5], repeats=3"},
};

}  // namespace shardwright::ops
