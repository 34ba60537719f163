// cache_write: the new keys or values of some tokens, put where they belong in a KV cache.
#include <cstring>

#include "base/check.h"
#include "base/error.h"
#include "kernels/cpu/rows.h"
#include "ops/build.h"
#include "ops/fused_stage.h"
#include "ops/lookup.h"
#include "ops/table.h"

namespace shardwright::ops {
namespace {

constexpr size_t kCache = kWrittenCache;
constexpr size_t kPosition = kWrittenAt;
constexpr size_t kSource = kWritten;

std::string cache_write_rule(const Attrs&, OperandTypes operands) {
  const TensorType& cache = *operands[kCache];
  const TensorType& position = *operands[kPosition];
  if (cache.ndim() != 4 || operands[kSource]->ndim() != 4 || position.ndim() != 2 ||
      position.dtype != DType::kI64)
    throw Error(ErrorCode::kUsage, "cache is " + to_string(cache) + ", position " +
                                       to_string(position) + ", source " +
                                       to_string(*operands[kSource]) +
                                       "; they must be [B, H, T, D], i64 [B, S] and [B, H, S, D]");
  return "b h t d, b s, b h s d -> b h t d; t s: whole";
}

std::vector<DType> cache_write_dtypes(const Attrs&, OperandTypes operands) {
  const std::optional<TensorType> values[] = {operands[kCache], {}, operands[kSource]};
  return {common_dtype(cache_write, values)};
}

void cache_write_reference(const RefCall& call) {
  const RefTensor& source = call.in(kSource);
  const Shape& shape = source.type.shape;
  const int64_t length = call.in(kCache).type.shape[2];
  call.out().data = call.in(kCache).data;
  if (source.data.empty()) return;
  const Strides strides = contiguous_strides(call.in(kCache).type.shape);
  std::vector<int64_t> place(4, 0);
  size_t from = 0;
  do {
    std::vector<int64_t> to = place;
    to[2] = static_cast<int64_t>(
        call.in(kPosition).data[static_cast<size_t>(place[0] * shape[2] + place[2])]);
    if (to[2] >= 0 && to[2] < length)
      call.out().data[static_cast<size_t>(position_of(to, strides))] = source.data[from];
    ++from;
  } while (next_index(shape, place));
}

// Threads share the rows of the source, all of one head together; where two rows of one head have
// the same position the later one stays.
class CacheWriteKernel : public Kernel {
 public:
  explicit CacheWriteKernel(const KernelSpec& spec)
      : element_bytes_(dtype_bytes(spec.operands[kCache].type.dtype)),
        shape_(spec.operands[kSource].type.shape),
        length_(spec.operands[kCache].type.shape[2]),
        position_(spec.operands[kPosition].strides),
        source_(spec.operands[kSource].strides),
        cache_(spec.results[0].strides),
        all_(element_bytes_, spec.operands[kCache].type.shape, spec.operands[kCache].strides,
             spec.results[0].strides) {}

  void run(Member& member, const void* const* operands, void* const* results,
           void* /*scratch*/) const noexcept override {
    if (results[0] != operands[kCache]) {
      all_.run(member, operands[kCache], results[0]);
      member.barrier();
    }
    const auto* position = static_cast<const int64_t*>(operands[kPosition]);
    const auto* source = static_cast<const std::byte*>(operands[kSource]);
    auto* cache = static_cast<std::byte*>(results[0]);
    const auto row_bytes = static_cast<size_t>(shape_[3] * element_bytes_);
    const Range heads = member.share(shape_[0] * shape_[1]);
    for (int64_t i = heads.begin; i < heads.end; ++i) {
      const int64_t b = i / shape_[1];
      const int64_t h = i % shape_[1];
      for (int64_t s = 0; s < shape_[2]; ++s) {
        const int64_t row = position[b * position_[0] + s * position_[1]];
        if (row < 0 || row >= length_) continue;
        std::memcpy(cache + (b * cache_[0] + h * cache_[1] + row * cache_[2]) * element_bytes_,
                    source + (b * source_[0] + h * source_[1] + s * source_[2]) * element_bytes_,
                    row_bytes);
      }
    }
  }

 private:
  int64_t element_bytes_;
  Shape shape_;     // of the source: B, H, S, D
  int64_t length_;  // of the cache
  Strides position_;
  Strides source_;
  Strides cache_;
  kernels::StridedCopy all_;
};

// The rows of a block of a fused step, one after the other, into the cache.
class CacheRowsKernel : public Kernel {
 public:
  CacheRowsKernel(const OperandSpec& position, const OperandSpec& source, const OperandSpec& cache,
                  const OperandSpec& whole)
      : rows_(source.type.shape[0]),
        length_(whole.type.shape[2]),
        position_step_(position.strides[0]),
        source_step_(source.strides[0] * dtype_bytes(source.type.dtype)),
        cache_step_(cache.strides[0] * dtype_bytes(source.type.dtype)),
        place_step_(whole.strides[2] * dtype_bytes(source.type.dtype)),
        row_bytes_(static_cast<size_t>(source.type.shape[1] * dtype_bytes(source.type.dtype))) {}

  void run(Member& /*alone*/, const void* const* operands, void* const* results,
           void* /*scratch*/) const noexcept override {
    const auto* position = static_cast<const int64_t*>(operands[0]);
    const auto* source = static_cast<const std::byte*>(operands[1]);
    auto* cache = static_cast<std::byte*>(results[0]);
    for (int64_t i = 0; i < rows_; ++i) {
      const int64_t place = position[i * position_step_];
      if (place >= 0 && place < length_)
        std::memcpy(cache + i * cache_step_ + place * place_step_, source + i * source_step_,
                    row_bytes_);
    }
  }

 private:
  int64_t rows_;
  int64_t length_;         // of the cache
  int64_t position_step_;  // elements; the others: bytes
  int64_t source_step_;
  int64_t cache_step_;
  int64_t place_step_;
  size_t row_bytes_;
};

std::unique_ptr<Kernel> make_cache_write(const KernelSpec& spec) {
  return std::make_unique<CacheWriteKernel>(spec);
}

}  // namespace

std::unique_ptr<Kernel> make_cache_rows_kernel(const OperandSpec& position,
                                               const OperandSpec& source, const OperandSpec& cache,
                                               const OperandSpec& whole) {
  return std::make_unique<CacheRowsKernel>(position, source, cache, whole);
}

bool places_rise(const OperandSpec& position, const void* places, int64_t length) {
  const auto* of = static_cast<const int64_t*>(places);
  for (int64_t b = 0; b < position.type.shape[0]; ++b) {
    int64_t last = -1;
    for (int64_t s = 0; s < position.type.shape[1]; ++s) {
      const int64_t place = of[b * position.strides[0] + s * position.strides[1]];
      if (place < 0 || place >= length) continue;
      if (place <= last) return false;
      last = place;
    }
  }
  return true;
}

// In place when the result takes the memory of the cache. A position outside the cache (-1:
// padding) writes nothing.
const OpDef cache_write{
    .name = "cache_write",
    .arguments = "cache, position, source",
    .rule_for = cache_write_rule,
    .linear = {"cache source"},
    .result_dtypes = cache_write_dtypes,
    .reference = cache_write_reference,
    .make_kernel = make_cache_write,
    .operand_strides = Strided::kLast,
    .result_strides = Strided::kLast,
    .in_place = true,
    .samples = {"cache: f32[2, 3, 7, 5], position: i64[2, 1] < 7, source: f32[2, 3, 1, 5]",
                "cache: bf16[1, 2, 9, 4], position: i64[1, 1] < 9, source: bf16[1, 2, 1, 4]"},
};

}  // namespace shardwright::ops
