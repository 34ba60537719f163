// The operator names that a rule may use, and which operators of an imported graph they mean.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "ops/op.h"

namespace shardwright::rules {

enum class OpTypeKind : uint8_t {
  kOperator,  // operators of our table
  kAbsent,    // PyTorch's, but a captured graph never holds it, or we have it not (yet)
  kForeign,   // the original vendor's own
  kUnknown,
};

struct OpTypeMeaning {
  OpTypeKind kind = OpTypeKind::kUnknown;
  std::vector<const ops::OpDef*> ops;  // of kOperator: any of these
};

// By the framework's name without overload suffix; an alias means all operators of its family
// ("type_": every cast). In-place names ("add_") mean the operator: captured graphs have no others.
OpTypeMeaning find_op_type(std::string_view name);

// Known names nearest to `name`, for messages.
std::string nearest_op_type(std::string_view name);

// An edge of a pattern also holds through such a node: it passes its first operand on. Casts,
// copies.
bool passes_through(const ops::OpDef& op);

}  // namespace shardwright::rules
