// The list of all operators, one line each. Each is defined in its own file of this folder.
#pragma once

#include "ops/op.h"

// clang-format off
#define SHARDWRIGHT_OPS(OP) \
  /* elementwise */         \
  OP(add)                   \
  OP(sub)                   \
  OP(rsub)                  \
  OP(mul)                   \
  OP(div)                   \
  OP(floor_divide)          \
  OP(remainder)             \
  OP(pow)                   \
  OP(maximum)               \
  OP(minimum)               \
  OP(neg)                   \
  OP(abs)                   \
  OP(floor)                 \
  OP(exp)                   \
  OP(log)                   \
  OP(sqrt)                  \
  OP(rsqrt)                 \
  OP(reciprocal)            \
  OP(sin)                   \
  OP(cos)                   \
  OP(tanh)                  \
  OP(erf)                   \
  OP(sigmoid)               \
  OP(silu)                  \
  OP(relu)                  \
  OP(gelu)                  \
  OP(square)                \
  OP(eq)                    \
  OP(ne)                    \
  OP(lt)                    \
  OP(le)                    \
  OP(gt)                    \
  OP(ge)                    \
  OP(logical_and)           \
  OP(logical_or)            \
  OP(logical_not)           \
  OP(bitwise_and)           \
  OP(bitwise_or)            \
  OP(bitwise_not)           \
  OP(where)                 \
  OP(masked_fill)           \
  OP(cast)                  \
  OP(type_as)               \
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
