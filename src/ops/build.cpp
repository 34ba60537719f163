// Helpers to write operator definitions.
#include "ops/build.h"

#include <utility>

#include "base/check.h"
#include "base/error.h"

namespace shardwright::ops {

std::vector<std::string> dim_words(std::string_view prefix, const Shape& shape) {
  std::vector<std::string> words;
  for (size_t i = 0; i < shape.size(); ++i)
    words.push_back(shape[i] == 1 ? "1" : std::string(prefix) + std::to_string(i));
  return words;
}

std::string join_words(std::span<const std::string> words) {
  std::string text;
  for (const std::string& word : words) text += text.empty() ? word : " " + word;
  return text;
}

std::string ints_text(std::span<const int64_t> values) {
  std::string text;
  for (const int64_t value : values) text += (text.empty() ? "" : ", ") + std::to_string(value);
  return "[" + text + "]";
}

std::string swapped_dims_text(int ndim, int a, int b) {
  std::vector<int64_t> dims(static_cast<size_t>(ndim));
  for (size_t i = 0; i < dims.size(); ++i) dims[i] = static_cast<int64_t>(i);
  std::swap(dims[static_cast<size_t>(a)], dims[static_cast<size_t>(b)]);
  return ints_text(dims);
}

std::string scaled_sum_text(const Attrs& attrs, const std::string& product,
                            const std::string& added) {
  const auto scaled = [&](const std::string& text, const char* factor) {
    if (attrs.number(factor, 1) == 1) return text;
    return "mul(" + text + ", " + to_string(*attrs.find(factor)) + ")";
  };
  const std::string scaled_product = scaled(product, "alpha");
  if (attrs.number("beta", 1) == 0) return scaled_product;  // whatever `added` holds, as in PyTorch
  return "add(" + scaled_product + ", " + scaled(added, "beta") + ")";
}

DType common_dtype(const OpDef& op, OperandTypes operands) {
  const std::vector<Argument>& arguments = arguments_of(op);
  const TensorType* first = nullptr;
  for (size_t i = 0; i < operands.size(); ++i) {
    if (!operands[i] || !is_floating(operands[i]->dtype)) continue;
    if (first == nullptr) {
      first = &*operands[i];
    } else if (operands[i]->dtype != first->dtype) {
      const std::string name = i < arguments.size() ? arguments[i].name : std::to_string(i);
      throw Error(ErrorCode::kUsage, "operand " + name + " is " + to_string(*operands[i]) +
                                         ", but " + arguments[0].name + " is " + to_string(*first) +
                                         "; all must be of one type: cast one of them");
    }
  }
  CHECK(first != nullptr || !operands.empty());
  return first != nullptr ? first->dtype : operands[0]->dtype;
}

std::vector<DType> first_dtype(const Attrs&, OperandTypes operands) { return {operands[0]->dtype}; }

double einsum_flops(const Attrs&, const Rule& rule) {
  double flops = 2;
  for (const Factor& factor : rule.factors) flops *= static_cast<double>(factor.size);
  return flops;
}

void check_int8_weight(const TensorType& weight, const TensorType& scale) {
  if (weight.dtype == DType::kI8 && scale.dtype == DType::kF32) return;
  throw Error(ErrorCode::kUsage, "weight is " + to_string(weight) + " and scale " +
                                     to_string(scale) + "; they must be i8 and f32");
}

bool is_kernel_float(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16;
}

std::optional<RowsOf> maybe_rows_of(const TensorType& type, const Strides& strides) {
  const Shape& shape = type.shape;
  if (shape.empty()) return std::nullopt;
  RowsOf rows{.count = 1, .size = shape.back(), .stride = shape.back()};
  if (strides.back() != 1 && rows.size > 1) return std::nullopt;
  bool found = false;
  for (size_t i = shape.size() - 1; i-- > 0;) {
    if (shape[i] != 1) {
      if (!found) rows.stride = strides[i];
      if (rows.count != 0 && shape[i] != 0 && strides[i] != rows.stride * rows.count)
        return std::nullopt;
      found = true;
    }
    rows.count *= shape[i];
  }
  return rows;
}

RowsOf rows_of(const OperandSpec& spec) {
  CHECK(spec.type.shape.size() == spec.strides.size());
  const std::optional<RowsOf> rows = maybe_rows_of(spec.type, spec.strides);
  CHECK(rows,
        "strides " + to_string(spec.strides) + " of " + to_string(spec.type) + " are not rows");
  return *rows;
}

bool next_index(const Shape& shape, std::vector<int64_t>& index) {
  for (size_t i = shape.size(); i-- > 0;) {
    if (++index[i] < shape[i]) return true;
    index[i] = 0;
  }
  return false;
}

int64_t position_of(std::span<const int64_t> index, const Strides& strides) {
  int64_t position = 0;
  for (size_t i = 0; i < index.size(); ++i) position += index[i] * strides[i];
  return position;
}

}  // namespace shardwright::ops
