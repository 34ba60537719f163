// The list of all operators, one line each. Each is defined in its own file of this folder.
#pragma once

#include "ops/op.h"

// clang-format off
#define SHARDWRIGHT_OPS(OP) \
  /* elementwise */         \
  OP(add)                   \
  OP(sub)                   \
  OP(rsub)                  \
  OP(clamp)                 \
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
  OP(reshape)               \
  OP(permute)               \
  OP(slice)                 \
  OP(expand)                \
  OP(cat)                   \
  OP(clone)                 \
  OP(detach)                \
  OP(pad)                   \
  OP(unsqueeze)             \
  OP(squeeze)               \
  OP(repeat)                \
  OP(repeat_interleave)     \
  OP(transpose)             \
  OP(t)                     \
  OP(select)                \
  OP(unbind)                \
  OP(split)                 \
  OP(split_with_sizes)      \
  OP(chunk)                 \
  OP(broadcast_tensors)     \
  OP(stack)                 \
  OP(constant_pad_nd)       \
  OP(arange)                \
  OP(full)                  \
  OP(zeros)                 \
  OP(ones)                  \
  OP(new_zeros)             \
  OP(new_ones)              \
  OP(new_full)              \
  OP(zeros_like)            \
  OP(ones_like)             \
  OP(full_like)             \
  OP(scalar_tensor)         \
  OP(cumsum)                \
  OP(diff)                  \
  OP(tril)                  \
  OP(triu)                  \
  OP(zero_pad)              \
  OP(keep)                  \
  /* sums of products */    \
  OP(linear)                \
  OP(linear_int8)           \
  OP(mm)                    \
  OP(addmm)                 \
  OP(matmul)                \
  OP(bmm)                   \
  OP(baddbmm)               \
  OP(conv2d)                \
  OP(attention)             \
  OP(attention_gradient)    \
  /* norms, reductions */   \
  OP(rms_norm)              \
  OP(layer_norm)            \
  OP(softmax)               \
  OP(log_softmax)           \
  OP(cross_entropy_loss)    \
  OP(sum)                   \
  OP(mean)                  \
  OP(amax)                  \
  OP(amin)                  \
  OP(argmax)                \
  OP(topk)                  \
  /* lookups */             \
  OP(embedding)             \
  OP(embedding_gradient)    \
  OP(embedding_int8)        \
  OP(index_select)          \
  OP(gather)                \
  OP(index)                 \
  OP(index_copy)            \
  OP(cache_write)           \
  OP(one_hot)               \
  /* between chips */       \
  OP(exchange)

// clang-format on

namespace shardwright::ops {

#define SHARDWRIGHT_DECLARE_OP(name) extern const OpDef name;
SHARDWRIGHT_OPS(SHARDWRIGHT_DECLARE_OP)
#undef SHARDWRIGHT_DECLARE_OP

}  // namespace shardwright::ops
