// expand: dimensions of size 1 repeated without a copy; clone, detach: the same tensor;
// broadcast_tensors.
#include "base/error.h"
#include "ops/build.h"
#include "ops/copy.h"
#include "ops/elementwise.h"
#include "ops/table.h"

namespace shardwright::ops {

namespace {

// New dimensions come from no operand dimension, so each chip can make just its rows of them.
std::string expand_rule(const Attrs& attrs, OperandTypes operands) {
  const Shape& from = operands[0]->shape;
  const std::vector<int64_t>& to = attrs.integers("shape");
  const auto refuse = [&] {
    throw Error(ErrorCode::kUsage, "shape " + to_string(from) + " can't be expanded to " +
                                       to_string(to) + "; only dimensions of size 1 can change");
  };
  if (to.size() < from.size()) refuse();
  const size_t leading = to.size() - from.size();
  const std::vector<std::string> from_words = dim_words("a", from);
  std::vector<std::string> to_words;
  for (size_t d = 0; d < to.size(); ++d) {
    const int64_t own = d < leading ? 1 : from[d - leading];
    const int64_t size = to[d] == -1 && d >= leading ? own : to[d];
    if (size < 0 || (own != 1 && size != own)) refuse();
    if (own != 1 || size == 1) {
      to_words.push_back(own == 1 ? "1" : from_words[d - leading]);
    } else {
      to_words.push_back("e" + std::to_string(d) + "=" + std::to_string(size));
    }
  }
  return join_words(from_words) + " -> " + join_words(to_words);
}

void expand_reference(const RefCall& call) {
  const RefTensor& x = call.in(0);
  const Strides strides =
      broadcast_strides(x.type.shape, contiguous_strides(x.type.shape), call.out().type.shape);
  gather_elements(x, call.out(),
                  [&](std::span<const int64_t> index) { return position_of(index, strides); });
}

bool expand_view(const KernelSpec& spec, const Strides& in, Strides* out, int64_t* offset) {
  *out = broadcast_strides(spec.operands[0].type.shape, in, spec.results[0].type.shape);
  *offset = 0;
  return true;
}

bool clone_view(const KernelSpec&, const Strides& in, Strides* out, int64_t* offset) {
  *out = in;
  *offset = 0;
  return true;
}

void clone_reference(const RefCall& call) { call.out().data = call.in(0).data; }

Shape common_shape(OperandTypes operands) {
  return bind_rule(broadcast_rule(operands), operands).result_shape(0);
}

std::string broadcast_tensors_rule(const Attrs&, OperandTypes operands) {
  return whole_rule(operands, std::vector<Shape>(operands.size(), common_shape(operands)));
}

std::vector<DType> own_dtypes(const Attrs&, OperandTypes operands) {
  std::vector<DType> dtypes;
  for (const auto& type : operands) dtypes.push_back(type->dtype);
  return dtypes;
}

std::string broadcast_tensors_expansion(const Attrs&, OperandTypes operands) {
  const std::string shape = to_string(common_shape(operands));
  std::string text;
  for (size_t i = 0; i < operands.size(); ++i)
    text += (i > 0 ? ", expand(xs" : "(expand(xs") + std::to_string(i) + ", shape=" + shape + ")";
  return text + ")";
}

}  // namespace

const OpDef expand{
    .name = "expand",
    .arguments = "x[self], shape[size]: ints",
    .rule_for = expand_rule,
    .linear = {"x"},
    .gradient = "dx = dy",
    .reference = expand_reference,
    .make_kernel = make_view_copy,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .view = expand_view,
    .samples = {"x: f32[3, 1, 5], shape=[3, 4, 5]", "x: bf16[1, 5], shape=[2, 3, -1]",
                "x: i64[], shape=[7]"},
};

const OpDef clone{
    .name = "clone",
    .aliases = {"alias", "contiguous", "lift_fresh_copy", "lift_fresh"},
    .arguments = "x[self]",
    .rule_for = elementwise_rule,
    .linear = {"x"},
    .gradient = "dx = dy",
    .reference = clone_reference,
    .make_kernel = make_view_copy,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .view = clone_view,
    .samples = {"x: f32[3, 5, 7]", "x: i64[9]"},
};

// The same tensor, through which no gradient flows. Only a graph with a loss keeps it.
const OpDef detach{
    .name = "detach",
    .arguments = "x[self]",
    .rule_for = elementwise_rule,
    .linear = {"x"},
    .gradient = "",
    .reference = clone_reference,
    .make_kernel = make_view_copy,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .view = clone_view,
    .samples = {"x: f32[3, 5, 7]"},
};

const OpDef broadcast_tensors{
    .name = "broadcast_tensors",
    .arguments = "xs[tensors]: tensors",
    .rule_for = broadcast_tensors_rule,
    .result_dtypes = own_dtypes,
    .expansion_for = broadcast_tensors_expansion,
    .samples = {"xs: f32[3, 1], xs: f32[5]", "xs: f32[7], xs: bool[2, 1], xs: i64[]"},
};

}  // namespace shardwright::ops
