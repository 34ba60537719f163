// The gradient of attention: which heads and rows belong together, and which thread does which.
#include "kernels/cpu/attention_gradient.h"

#include <algorithm>

#include "base/check.h"
#include "base/checked.h"
#include "kernels/cpu/attention_gradient_isa.h"
#include "kernels/cpu/isa.h"

namespace shardwright::kernels {
namespace {

const AttentionGradientTable& active_table() {
  static const AttentionGradientTable* const tables[] = {
      &portable::attention_gradient_table, &avx2::attention_gradient_table,
      &avx512::attention_gradient_table, &avx512bf16::attention_gradient_table};
  return *tables[static_cast<int>(active_isa())];
}

int64_t thread_scratch_bytes(const AttentionArgs& args) {
  return round_up(active_table().scratch_floats(args.keys, args.qk_size, args.v_size) * 4,
                  int64_t{64});
}

float* start(const AttentionTensor& tensor, int64_t b, int64_t head) {
  return static_cast<float*>(const_cast<void*>(tensor.data)) + b * tensor.batch_stride +
         head * tensor.head_stride;
}

AttentionGradientGroup group_at(const AttentionGradientArgs& args, int64_t index) {
  const AttentionArgs& f = args.forward;
  const int64_t b = index / f.kv_heads;
  const int64_t g = index % f.kv_heads;
  const int64_t r = f.queries_per_kv;
  const int64_t first = (f.head_begin / r + g) * r - f.head_begin;
  const int64_t begin = std::clamp<int64_t>(first, 0, f.q_heads);
  const int64_t end = std::clamp<int64_t>(first + r, 0, f.q_heads);
  return {.q = start(f.q, b, begin),
          .k = start(f.k, b, g),
          .v = start(f.v, b, g),
          .dy = start(args.dy, b, begin),
          .dq = start(args.dq, b, begin),
          .dk = start(args.dk, b, g),
          .dv = start(args.dv, b, g),
          .q_head_stride = f.q.head_stride,
          .q_row_stride = f.q.row_stride,
          .k_row_stride = f.k.row_stride,
          .v_row_stride = f.v.row_stride,
          .dy_head_stride = args.dy.head_stride,
          .dy_row_stride = args.dy.row_stride,
          .dq_head_stride = args.dq.head_stride,
          .dq_row_stride = args.dq.row_stride,
          .dk_row_stride = args.dk.row_stride,
          .dv_row_stride = args.dv.row_stride,
          .heads = end - begin,
          .q_rows = f.q_rows,
          .keys = f.keys,
          .qk_size = f.qk_size,
          .v_size = f.v_size,
          .scale = f.scale,
          .causal = f.causal,
          .query_begin = f.query_begin};
}

}  // namespace

int64_t attention_gradient_scratch_bytes(const AttentionGradientArgs& args, int n_threads) {
  const AttentionArgs& f = args.forward;
  CHECK(f.dtype == DType::kF32 && f.mask == nullptr && f.positions == nullptr && f.window == 0);
  CHECK(f.queries_per_kv > 0 && f.head_begin >= 0);
  return n_threads * thread_scratch_bytes(f);
}

void attention_gradient(Member& member, const AttentionGradientArgs& args) {
  auto* scratch = reinterpret_cast<float*>(static_cast<std::byte*>(args.scratch) +
                                           member.thread() * thread_scratch_bytes(args.forward));
  const Range groups = member.share(args.forward.batch * args.forward.kv_heads);
  for (int64_t index = groups.begin; index < groups.end; ++index)
    active_table().run(group_at(args, index), scratch);
}

}  // namespace shardwright::kernels
