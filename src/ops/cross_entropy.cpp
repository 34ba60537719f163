// cross_entropy_loss: -log softmax(x) at the target class, the mean or the sum of it, or each.
#include "base/error.h"
#include "ops/build.h"
#include "ops/lookup.h"
#include "ops/table.h"

namespace shardwright::ops {
namespace {

enum class Reduction : uint8_t { kNone, kMean, kSum };  // at::Reduction

// The dimension of x that the classes lie along: the second, or the only one.
size_t class_dim(const Shape& x) { return x.size() == 1 ? 0 : 1; }

Reduction reduction_of(const Attrs& attrs) {
  const int64_t code = attrs.integer("reduction");
  if (code < 0 || code > 2)
    throw Error(ErrorCode::kUsage, "reduction is " + std::to_string(code) +
                                       "; it may be 0 (none), 1 (mean) or 2 (sum)");
  return static_cast<Reduction>(code);
}

void check_supported(const Attrs& attrs, OperandTypes operands) {
  const TensorType& x = *operands[0];
  const TensorType& target = *operands[1];
  const auto refuse = [](const std::string& text) { throw Error(ErrorCode::kUnsupported, text); };
  if (is_floating(target.dtype))
    refuse("target is " + to_string(target) +
           ", which are probabilities of classes; give the index of a class, as i64");
  check_index_type("target", target);
  if (operands[2])
    refuse("weight is " + to_string(*operands[2]) +
           "; weights of classes are not supported yet: "
           "leave weight out");
  if (attrs.number("label_smoothing") != 0)
    refuse("label_smoothing is " + to_string(*attrs.find("label_smoothing")) +
           "; only 0.0 is supported yet");
  if (!is_floating(x.dtype) || x.ndim() == 0 || target.ndim() != x.ndim() - 1)
    throw Error(ErrorCode::kUsage, "x is " + to_string(x) + " and target " + to_string(target) +
                                       "; with x of f32[N, C, d...] target must be i64[N, d...]");
}

// "n0 c n2, n0 n2 -> n0 n2; c: whole": of the types alone, since it is expanded.
std::string loss_rule(const Attrs& attrs, OperandTypes operands) {
  check_supported(attrs, operands);
  const bool keeps = reduction_of(attrs) == Reduction::kNone;
  std::vector<std::string> words = dim_words("n", operands[0]->shape);
  const size_t dim = class_dim(operands[0]->shape);
  words[dim] = "c";
  const std::string x = join_words(words);
  words.erase(words.begin() + static_cast<std::ptrdiff_t>(dim));
  const std::string rows = join_words(words);
  std::string whole = "c";
  for (const std::string& word : words)
    if (!keeps && word != "1") whole += " " + word;
  return x + ", " + rows + ", - -> " + (keeps ? rows : "") + "; " + whole + ": whole";
}

std::string cast_text(const std::string& text, DType from, DType to) {
  return from == to ? text : "_to_copy(" + text + ", dtype=" + std::string(dtype_name(to)) + ")";
}

// log sum_c exp(x_c - m) - (x_target - m) with m = max_c x_c. Where the classes are split over
// chips, these are three small exchanges: of the maximum, the sum, and x_target. A row whose target
// is ignored counts 0. In f32, rounded once. The maximum cancels: its gradient is 0, and not worked
// out.
std::string loss_expansion(const Attrs& attrs, OperandTypes operands) {
  const Shape& shape = operands[0]->shape;
  const DType own = operands[0]->dtype;
  const DType inner = own == DType::kF64 ? DType::kF64 : DType::kF32;
  std::string x = "x";
  if (shape.size() > 2) {
    Shape last;
    for (int64_t d = 0; d < std::ssize(shape); ++d)
      if (d != 1) last.push_back(d);
    last.push_back(1);
    x = "permute(x, dims=" + ints_text(last) + ")";
  }
  const std::string ignored = std::to_string(attrs.integer("ignore_index"));
  const std::string over = ", dim=[-1], keepdim=true)";
  std::string text = "a = " + x + "; c = unsqueeze(target, dim=-1); counts = ne(c, " + ignored +
                     "); w = " + cast_text("a", own, inner) + "; m = detach(amax(w" + over +
                     "); s = log(sum(exp(sub(w, m))" + over + ")" +
                     "; p = " + cast_text("gather(a, c, dim=-1)", own, inner) +
                     "; l = where(counts, sub(s, sub(p, m)), 0.0); ";
  switch (reduction_of(attrs)) {
    case Reduction::kNone:
      return text + cast_text("squeeze(l, dim=-1)", inner, own);
    case Reduction::kMean:
      return text + cast_text("div(sum(l), sum(" + cast_text("counts", DType::kBool, inner) + "))",
                              inner, own);
    case Reduction::kSum:
      return text + cast_text("sum(l)", inner, own);
  }
  return "";
}

}  // namespace

// A target outside of the classes that is not ignore_index counts as if its x were 0, where PyTorch
// raises. The mean of no rows at all is nan, as there.
const OpDef cross_entropy_loss{
    .name = "cross_entropy_loss",
    .aliases = {"cross_entropy"},
    .arguments =
        "x[self], target, weight?, reduction: int = 1, ignore_index: int = -100, "
        "label_smoothing: float = 0.0",
    .rule_for = loss_rule,
    .result_dtypes = first_dtype,
    .expansion_for = loss_expansion,
    .samples = {"x: f32[5, 37], target: i64[5] < 37", "x: f32[37], target: i64[] < 37, reduction=0",
                "x: bf16[2, 9, 3], target: i64[2, 3] < 9, reduction=2, ignore_index=4"},
};

}  // namespace shardwright::ops
