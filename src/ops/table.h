// The list of all operators, one line each. Each is defined in its own file of this folder.
#pragma once

#include "ops/op.h"

// clang-format off
#define SHARDWRIGHT_OPS(OP) \
  /* elementwise */         \
  /* shapes */              \
  /* sums of products */    \
  /* norms, reductions */   \
  /* lookups */             \
  /* between chips */       \
  OP(exchange)

// clang-format on

namespace shardwright::ops {

#define SHARDWRIGHT_DECLARE_OP(name) extern const OpDef name;
SHARDWRIGHT_OPS(SHARDWRIGHT_DECLARE_OP)
#undef SHARDWRIGHT_DECLARE_OP

}  // namespace shardwright::ops
