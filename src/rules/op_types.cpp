// Tables of names.
#include "rules/op_types.h"

#include <algorithm>
#include <span>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/nearest.h"
#include "ops/table.h"

namespace shardwright::rules {
namespace {

// Names for one thing. In the graph a cast is `cast` or `type_as`, a part of a tensor `slice` or
// `select`, and so on: a rule that says one of the names means them all.
struct Family {
  std::vector<std::string_view> names;
  std::vector<const ops::OpDef*> ops;
};

const std::vector<Family>& families() {
  static const std::vector<Family> all{
      {{"to", "type_", "type", "_to_copy", "type_as", "cast", "float", "half", "bfloat16", "double",
        "int", "long", "bool"},
       {&ops::cast, &ops::type_as}},
      {{"view", "reshape", "_unsafe_view", "_reshape_alias", "view_as", "reshape_as", "flatten",
        "unflatten"},
       {&ops::reshape}},
      {{"getitem", "slice", "select"}, {&ops::slice, &ops::select}},
      {{"split", "chunk", "split_with_sizes", "tensor_split"},
       {&ops::split, &ops::chunk, &ops::split_with_sizes}},
      {{"truediv"}, {&ops::div}},
      {{"dropout", "native_dropout", "alpha_dropout", "clone", "contiguous", "alias", "detach"},
       {&ops::clone}},
  };
  return all;
}

// PyTorch's operators that we have not, or that no captured graph holds: rule files name them
// beside others, so they are no mistakes.
// clang-format off
constexpr std::string_view kAbsent[] = {
    "nll_loss", "nll_loss_forward", "mse_loss", "einsum",
    "scatter", "scatter_add", "index_add", "index_put", "copy", "fill", "masked_scatter",
    "batch_norm", "group_norm", "native_group_norm", "instance_norm", "conv1d", "conv3d",
    "convolution", "max_pool2d", "avg_pool2d", "prod", "std", "var", "norm", "argsort", "sort",
    "roll", "flip", "outer", "dot", "mv", "bilinear", "clamp", "clamp_min", "clamp_max",
    "hardtanh", "leaky_relu", "elu", "softplus", "mish", "hardswish", "log1p", "expm1", "sign",
    "round", "ceil", "trunc", "isnan", "isinf", "nonzero", "unfold", "interpolate",
    "upsample_nearest2d"};
// clang-format on

// Of the source system's own compiler.
constexpr std::string_view kForeign[] = {"zipmapreduce", "triufill"};

bool is_in(std::string_view name, std::span<const std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

OpTypeMeaning find_exactly(std::string_view name) {
  for (const Family& family : families())
    if (is_in(name, family.names)) return {OpTypeKind::kOperator, family.ops};
  if (const ops::OpDef* op = ops::find_op(name)) return {OpTypeKind::kOperator, {op}};
  if (is_in(name, kForeign)) return {OpTypeKind::kForeign, {}};
  if (is_in(name, kAbsent)) return {OpTypeKind::kAbsent, {}};
  return {};
}

}  // namespace

OpTypeMeaning find_op_type(std::string_view name) {
  const OpTypeMeaning meaning = find_exactly(name);
  if (meaning.kind != OpTypeKind::kUnknown || !name.ends_with('_')) return meaning;
  return find_exactly(name.substr(0, name.size() - 1));
}

std::string nearest_op_type(std::string_view name) {
  std::vector<std::string> names;
  for (const ops::OpDef* op : ops::all_ops()) {
    names.emplace_back(op->name);
    names.insert(names.end(), op->aliases.begin(), op->aliases.end());
  }
  for (const Family& family : families())
    names.insert(names.end(), family.names.begin(), family.names.end());
  names.insert(names.end(), std::begin(kAbsent), std::end(kAbsent));
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return fmt::format("{}", fmt::join(nearest_names(name, std::move(names), 3), ", "));
}

bool passes_through(const ops::OpDef& op) {
  return &op == &ops::cast || &op == &ops::type_as || &op == &ops::clone;
}

}  // namespace shardwright::rules
