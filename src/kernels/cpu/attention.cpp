// Attention: which keys and heads belong together, and which thread does which of them.
#include "kernels/cpu/attention.h"

#include <algorithm>

#include "base/check.h"
#include "base/checked.h"
#include "kernels/cpu/attention_isa.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/isa.h"

namespace shardwright::kernels {
namespace {

struct Tables {
  const AttentionTable* prefill;
  const DecodeTable* decode;
};
Tables active_tables() {
  static const Tables tables[] = {{&portable::attention_table, &portable::decode_table},
                                  {&avx2::attention_table, &avx2::decode_table},
                                  {&avx512::attention_table, &avx512::decode_table},
                                  {&avx512bf16::attention_table, &avx512bf16::decode_table}};
  return tables[static_cast<int>(active_isa())];
}

// The local query heads of local KV head g: all r of the model, or those of them that are here.
Range heads_of(const AttentionArgs& args, int64_t g) {
  const int64_t r = args.queries_per_kv;
  const int64_t first = (args.head_begin / r + g) * r - args.head_begin;
  return {std::clamp<int64_t>(first, 0, args.q_heads),
          std::clamp<int64_t>(first + r, 0, args.q_heads)};
}

const void* at(const void* base, int64_t offset, DType dtype) {
  return static_cast<const char*>(base) + offset * dtype_bytes(dtype);
}

// Batch entry and KV head number `index` of batch * kv_heads.
AttentionGroup group_at(const AttentionArgs& args, int64_t index) {
  const int64_t b = index / args.kv_heads;
  const int64_t g = index % args.kv_heads;
  const Range heads = heads_of(args, g);
  const auto start = [&](const AttentionTensor& tensor, int64_t head) {
    return at(tensor.data, b * tensor.batch_stride + head * tensor.head_stride, args.dtype);
  };
  AttentionGroup group{};
  group.q = start(args.q, heads.begin);
  group.k = start(args.k, g);
  group.v = start(args.v, g);
  group.out = const_cast<void*>(start(args.out, heads.begin));
  group.q_head_stride = args.q.head_stride;
  group.q_row_stride = args.q.row_stride;
  group.k_row_stride = args.k.row_stride;
  group.v_row_stride = args.v.row_stride;
  group.out_head_stride = args.out.head_stride;
  group.out_row_stride = args.out.row_stride;
  group.heads = heads.size();
  group.keys = args.keys;
  group.qk_size = args.qk_size;
  group.v_size = args.v_size;
  group.scale = args.scale;
  group.causal = args.causal;
  group.query_begin = args.query_begin;
  if (args.positions != nullptr) group.positions = args.positions + b * args.position_strides[0];
  group.position_stride = args.position_strides[1];
  group.window = args.window;
  if (args.mask != nullptr) {
    const int64_t offset = b * args.mask_strides[0] + heads.begin * args.mask_strides[1];
    group.mask = at(args.mask, offset, args.mask_dtype);
  }
  group.mask_dtype = static_cast<int32_t>(args.mask_dtype);
  group.mask_head_stride = args.mask_strides[1];
  group.mask_row_stride = args.mask_strides[2];
  group.mask_key_stride = args.mask_strides[3];
  return group;
}

// The keys that one query row of a batch entry sees, but for the mask.
Range keys_of_row(const AttentionArgs& args, int64_t b, int64_t row) {
  int64_t end = args.keys;
  int64_t begin = 0;
  if (args.positions != nullptr) {
    end = args.positions[b * args.position_strides[0] + row * args.position_strides[1]] + 1;
    if (args.window > 0) begin = std::max<int64_t>(end - args.window, 0);
  } else if (args.causal) {
    end = args.query_begin + row + 1;
  }
  end = std::clamp<int64_t>(end, 0, args.keys);
  return {std::min(begin, end), end};
}

// The keys that some query row of a batch entry sees.
Range keys_seen(const AttentionArgs& args, int64_t b) {
  if (args.positions == nullptr) return keys_of_row(args, b, args.q_rows - 1);
  Range some{args.keys, 0};
  for (int64_t row = 0; row < args.q_rows; ++row) {
    const Range seen = keys_of_row(args, b, row);
    if (seen.empty()) continue;
    some = {std::min(some.begin, seen.begin), std::max(some.end, seen.end)};
  }
  return some.begin < some.end ? some : Range{0, 0};
}

int64_t most_columns(const AttentionArgs& args) {
  return std::min(args.queries_per_kv, args.q_heads) * args.q_rows;
}

// Into how many ranges of at most n_keys keys a decode is cut: none if the KV heads alone keep all
// threads busy.
int64_t decode_splits(const AttentionArgs& args, int64_t n_keys, int n_threads) {
  constexpr int64_t kFewestKeys = 64;  // of a range: below, the merge costs more than it saves
  const int64_t items = args.batch * args.kv_heads;
  if (items % n_threads == 0 || items >= 4 * n_threads) return 1;
  return std::clamp<int64_t>(ceil_div(n_keys, kFewestKeys), 1, n_threads);
}

int64_t thread_scratch_bytes(const AttentionArgs& args) {
  constexpr int64_t kMostColumns = 32;  // of a block, in any instruction set
  constexpr int64_t kPieces = 64;       // pieces of scratch, each rounded up to 64 bytes
  const int64_t sizes = args.qk_size + args.v_size;
  const int64_t floats =
      (kAttentionKeys + 1) * kMostColumns + (kAttentionKeys + kAttentionColumns) * sizes;
  return floats * 4 + kPieces * 64;
}

int64_t part_floats(const AttentionArgs& args) { return kPartHeader + args.v_size; }

// Parts of all columns of a KV head over one range of keys.
int64_t group_floats(const AttentionArgs& args) { return most_columns(args) * part_floats(args); }

void merge_columns(const AttentionArgs& args, const Tables& tables, int64_t index,
                   const float* parts, int64_t n_parts) {
  const AttentionGroup group = group_at(args, index);
  for (int64_t c = 0; c < group.heads * args.q_rows; ++c) {
    const int64_t offset =
        c % group.heads * group.out_head_stride + c / group.heads * group.out_row_stride;
    tables.decode->merge[static_cast<int>(args.dtype)](
        parts + c * part_floats(args), n_parts, group_floats(args), args.v_size,
        const_cast<void*>(at(group.out, offset, args.dtype)));
  }
}

// Threads share KV heads x ranges of keys; then they merge the ranges.
void decode(Member& member, const AttentionArgs& args, const Tables& tables) {
  int64_t most_keys = 0;
  for (int64_t b = 0; b < args.batch; ++b)
    most_keys = std::max(most_keys, keys_seen(args, b).size());
  const int64_t n_splits = decode_splits(args, most_keys, member.n_threads());
  const int64_t n_groups = args.batch * args.kv_heads;
  auto* scratch = static_cast<char*>(args.scratch) + member.thread() * thread_scratch_bytes(args);
  auto* parts = reinterpret_cast<float*>(static_cast<char*>(args.scratch) +
                                         member.n_threads() * thread_scratch_bytes(args));
  const Range items = member.share(n_groups * n_splits);
  for (int64_t item = items.begin; item < items.end; ++item) {
    const AttentionGroup group = group_at(args, item / n_splits);
    const int64_t split = item % n_splits;
    const Range keys = keys_seen(args, item / n_splits / args.kv_heads);
    float* part = parts + item * group_floats(args);
    tables.decode->decode[static_cast<int>(args.dtype)](
        group, group.heads * args.q_rows, keys.begin + keys.size() * split / n_splits,
        keys.begin + keys.size() * (split + 1) / n_splits, part, scratch);
    if (n_splits == 1) merge_columns(args, tables, item, part, 1);
  }
  if (n_splits == 1) return;
  member.barrier();
  const Range groups = member.share(n_groups);
  for (int64_t index = groups.begin; index < groups.end; ++index)
    merge_columns(args, tables, index, parts + index * n_splits * group_floats(args), n_splits);
}

// The cost of a block of columns: the keys that its first or last row sees, and a little for
// itself.
int64_t block_cost(const AttentionArgs& args, int64_t b, int64_t first_row, int64_t last_row) {
  constexpr int64_t kOwnCost = 16;
  return kOwnCost +
         std::max(keys_of_row(args, b, first_row).size(), keys_of_row(args, b, last_row).size());
}

// Threads share the blocks of columns of all KV heads: each a run of neighbours of equal cost.
void prefill(Member& member, const AttentionArgs& args, const Tables& tables,
             PrefillFunction function) {
  const int64_t width = tables.prefill->columns;
  const int64_t n_groups = args.batch * args.kv_heads;
  auto* scratch = static_cast<char*>(args.scratch) + member.thread() * thread_scratch_bytes(args);
  const auto for_each_block = [&](const auto& body) {
    for (int64_t index = 0; index < n_groups; ++index) {
      const int64_t heads = heads_of(args, index % args.kv_heads).size();
      for (int64_t first = 0; first < heads * args.q_rows; first += width) {
        const int64_t last = std::min(first + width, heads * args.q_rows) - 1;
        body(index, first, last,
             block_cost(args, index / args.kv_heads, first / heads, last / heads));
      }
    }
  };
  int64_t total = 0;
  for_each_block([&](int64_t, int64_t, int64_t, int64_t cost) { total += cost; });

  int64_t before = 0;
  int64_t run_index = -1;  // columns [run_first, run_end) of this group wait to be done
  int64_t run_first = 0;
  int64_t run_end = 0;
  const auto do_run = [&] {
    if (run_index >= 0)
      function(group_at(args, run_index), run_first, run_end - run_first, scratch);
    run_index = -1;
  };
  for_each_block([&](int64_t index, int64_t first, int64_t last, int64_t cost) {
    const int64_t owner = (before + cost / 2) * member.n_threads() / total;
    before += cost;
    if (owner != member.thread()) return;
    if (run_index != index || last + 1 - run_first > kAttentionColumns) {
      do_run();
      run_index = index;
      run_first = first;
    }
    run_end = last + 1;
  });
  do_run();
}

}  // namespace

int64_t attention_scratch_bytes(const AttentionArgs& args, int n_threads) {
  CHECK(args.dtype == DType::kF32 || args.dtype == DType::kBF16 || args.dtype == DType::kF16);
  CHECK(args.queries_per_kv > 0 && args.head_begin >= 0);
  CHECK(args.q_heads == 0 || heads_of(args, args.kv_heads - 1).end == args.q_heads,
        "each query head has its KV head");
  const int64_t columns = most_columns(args);
  int64_t bytes = n_threads * thread_scratch_bytes(args);
  if (columns <= kDecodeColumns)
    bytes += args.batch * args.kv_heads * decode_splits(args, args.keys, n_threads) *
             group_floats(args) * 4;
  return round_up(bytes, 64);
}

void attention(Member& member, const AttentionArgs& args) {
  const Tables tables = active_tables();
  if (most_columns(args) <= kDecodeColumns) return decode(member, args, tables);
  PrefillFunction function = tables.prefill->prefill[static_cast<int>(args.dtype)];
  const PrefillFunction by_dot = tables.prefill->prefill_dot;
  const bool can_dot = args.dtype == DType::kBF16 && args.qk_size % 2 == 0 && by_dot != nullptr;
  if (can_dot && bf16_dot_is_used()) function = by_dot;
  prefill(member, args, tables, function);
}

}  // namespace shardwright::kernels
