// OpDef: everything that is known of an operator. One file an operator (or a family of one shape),
// one line in table.cpp.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ops/kernel.h"
#include "ops/reference.h"
#include "ops/rule.h"

namespace shardwright::kernels {
enum class TileCode : uint8_t;  // kernels/cpu/tile.h
}

namespace shardwright::ops {

using OperandTypes = std::span<const std::optional<TensorType>>;  // nullopt: absent

// Which strides a kernel takes in its operands or writes in its results.
enum class Strided : uint8_t {
  kNo,    // contiguous
  kRows,  // last dimension contiguous, all others collapse to one stride (rows of a matrix with a
          // row stride)
  kLast,  // last dimension contiguous (stride 1), the others any
  kAny,
};

// Whether a tensor of that shape with these strides (elements) is one of them.
bool accepts(Strided strided, const Shape& shape, const Strides& strides);

struct OpDef {
  const char* name;
  std::vector<std::string_view> aliases =
      {};  // other ATen names, without "aten." and overload suffix
  // Tensor operands first come by position, then attributes, in ATen's order, names and defaults:
  //   "x, weight, bias?, dim: int = -1, sizes: ints, dtype: dtype?, other: number, approximate: str
  //   = none, xs: tensors"
  // "name" a tensor; "name?" an optional tensor; "name: tensors" a list (only one, the rest of the
  // operands); types int, float, number, bool, str, ints, floats, dtype; "?" after a type: may be
  // None (the default). ATen's name of an argument, where ours differs, stands in brackets:
  // "x[self]". A tensor argument that may also be a Python number ("other") becomes a constant of
  // no dimensions.
  const char* arguments;
  const char* rule = nullptr;  // text, or
  std::string (*rule_for)(const Attrs&, OperandTypes) =
      nullptr;  // the same kind of text from attributes and types
  // Groups of operands in which the operator is jointly linear: {"x y"} add, {"x", "y"} mul. Names
  // of `arguments`.
  std::vector<std::string_view> linear = {};
  // Result dtypes; null: that of PyTorch's promotion of all operands (a scalar constant does not
  // promote a tensor of its category).
  std::vector<DType> (*result_dtypes)(const Attrs&, OperandTypes) = nullptr;
  // Gradient of each floating-point operand, in the expression language of passes/expression.h,
  // from the operands, the result y and its gradient dy: "dx = mul(dy, other); dother = ...".
  // passes/gradient.h casts it to the operand's dtype and adds it up where the operand was
  // broadcast. "": none flows, the result counts as constant. null (and no gradient_for): not
  // known.
  const char* gradient = nullptr;
  std::string (*gradient_for)(const Attrs&, OperandTypes) = nullptr;
  // Not canonical: what it stands for, in the same language: "add(linear(x, weight, -), bias)"; of
  // several results, "(slice(x, ...), slice(x, ...))". Empty result: it stays as it is.
  const char* expansion = nullptr;
  std::string (*expansion_for)(const Attrs&, OperandTypes) = nullptr;

  void (*reference)(const RefCall&) = nullptr;
  std::unique_ptr<Kernel> (*make_kernel)(const KernelSpec&) =
      nullptr;  // null: only on constants, or expanded before
  Strided operand_strides = Strided::kNo;
  Strided result_strides = Strided::kNo;
  // Operand (its index) whose parameter is kept packed in panels when all its readers want that; -1
  // none. `panels_readable`: the operator can read that operand packed but does not need to
  // (embedding).
  int panel_operand = -1;
  bool panels_readable = false;
  // A view: gives strides and offset (elements) of the result over the operand's memory; false if
  // it must copy.
  bool (*view)(const KernelSpec& spec, const Strides& in, Strides* out, int64_t* offset) = nullptr;
  // Result i may share the memory of operand i of the same bytes when that operand dies here
  // (elementwise).
  bool in_place = false;
  // Multiply-adds count twice. null: one flop a result element.
  double (*flops)(const Attrs&, const Rule& rule) = nullptr;
  // Reads and writes element by element, with broadcasting: may join a fused group. Its operation
  // in the tile engine; the operands in order.
  bool elementwise = false;
  kernels::TileCode (*tile_code)(const Attrs&) = nullptr;
  std::vector<std::string_view> samples =
      {};  // "x: f32[3, 5, 8], dim=-1"; integers: "ids: i64[4] < 10"
};

// One argument of OpDef::arguments, parsed.
struct Argument {
  enum class Kind : uint8_t {
    kTensor,
    kOptionalTensor,
    kTensors,
    kInt,
    kFloat,
    kNumber,
    kBool,
    kString,
    kInts,
    kFloats,
    kDType
  };
  std::string name;
  std::string aten_name;
  Kind kind = Kind::kTensor;
  bool optional = false;          // "?" after the type
  std::optional<Attr> otherwise;  // the default
  bool is_tensor() const { return kind <= Kind::kTensors; }
};
const std::vector<Argument>& arguments_of(const OpDef& op);  // parsed once
// Adds the defaults of arguments that `attrs` lacks. Rules, references and kernels rely on it:
// whoever makes a node calls it.
void fill_defaults(const OpDef& op, Attrs* attrs);

// The operator of that name or alias (without "aten." and overload), or null.
const OpDef* find_op(std::string_view name);
const std::vector<const OpDef*>& all_ops();
// Known names nearest to `name` (edit distance), for messages.
std::string nearest_op(std::string_view name);

// The bound rule of a node: text from rule or rule_for, bound to types.
std::string rule_text(const OpDef& op, const Attrs& attrs, OperandTypes operands);
Rule rule_of(const OpDef& op, const Attrs& attrs, OperandTypes operands);
// Result types from rule and dtypes. Throws Error(kUsage) where operands don't fit.
std::vector<TensorType> infer_types(const OpDef& op, const Attrs& attrs, OperandTypes operands);
// PyTorch's result_type of all operands that are there.
DType promoted_dtype(OperandTypes operands);
double flops_of(const OpDef& op, const Attrs& attrs, const Rule& rule);

// For rare operators on small tensors: a kernel that runs `reference` on one thread.
std::unique_ptr<Kernel> make_reference_kernel(const KernelSpec& spec);

// A sample of OpDef::samples, parsed.
struct Sample {
  std::vector<std::optional<TensorType>> operands;
  std::vector<int64_t> below;  // for integer operands: values in [0, below); 0 = not stated
  Attrs attrs;
};
Sample parse_sample(const OpDef& op, std::string_view text);

}  // namespace shardwright::ops
