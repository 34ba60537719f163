// one_hot: y[t..., v] = 1 where v is indices[t...], else 0.
#include "base/error.h"
#include "ops/build.h"
#include "ops/lookup.h"
#include "ops/table.h"

namespace shardwright::ops {
namespace {

std::string one_hot_rule(const Attrs& attrs, OperandTypes operands) {
  check_index_type("indices", *operands[0]);
  const int64_t n = attrs.integer("num_classes", -1);
  if (n < 0)
    throw Error(ErrorCode::kUnsupported,
                "num_classes is " + std::to_string(n) +
                    ", so the shape would depend on the data; give num_classes, for example 10");
  return "t... -> t... v=" + std::to_string(n);
}

std::vector<DType> one_hot_dtypes(const Attrs&, OperandTypes) { return {DType::kI64}; }

void one_hot_reference(const RefCall& call) {
  const int64_t n = call.out().type.shape.back();
  for (size_t t = 0; t < call.in(0).data.size(); ++t) {
    const int64_t at = static_cast<int64_t>(call.in(0).data[t]) - call.begin("v");
    if (at >= 0 && at < n)
      call.out().data[t * static_cast<size_t>(n) + static_cast<size_t>(at)] = 1;
  }
}

}  // namespace

const OpDef one_hot{
    .name = "one_hot",
    .arguments = "indices[self], num_classes: int = -1",
    .rule_for = one_hot_rule,
    .result_dtypes = one_hot_dtypes,
    .reference = one_hot_reference,
    .make_kernel = make_reference_kernel,
    .operand_strides = Strided::kAny,
    .result_strides = Strided::kAny,
    .samples = {"indices: i64[3, 5] < 7, num_classes=7"},
};

}  // namespace shardwright::ops
