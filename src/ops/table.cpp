// The operator table: all operators in the order of table.h.
#include "ops/table.h"

namespace shardwright::ops {

const std::vector<const OpDef*>& all_ops() {
#define SHARDWRIGHT_ADDRESS_OF_OP(name) &name,
  static const std::vector<const OpDef*> ops{SHARDWRIGHT_OPS(SHARDWRIGHT_ADDRESS_OF_OP)};
#undef SHARDWRIGHT_ADDRESS_OF_OP
  return ops;
}

}  // namespace shardwright::ops
