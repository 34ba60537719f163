// Packing one panel of a weight, compiled once per instruction set (see cmake/kernels.cmake).
// A panel is a matrix of 32-bit words [word of k][column]: floats, two bf16 of successive k, or
// four bytes w + 128.
#include "kernels/cpu/gemm_isa.h"
#include "kernels/cpu/vector.h"

namespace shardwright::kernels::SHARDWRIGHT_ISA_NAMESPACE {
namespace {

constexpr int64_t kPanel = 32;  // columns of a panel

// One word of a, one of b, and so on, from the low or the high halves of a and b.
#if SHARDWRIGHT_ISA_LEVEL >= 2
inline U interleave_low(U a, U b) {
  return __builtin_shuffle(a, b, (U){0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23});
}
inline U interleave_high(U a, U b) {
  return __builtin_shuffle(a, b, (U){8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31});
}
#elif SHARDWRIGHT_ISA_LEVEL == 1
inline U interleave_low(U a, U b) { return __builtin_shuffle(a, b, (U){0, 8, 1, 9, 2, 10, 3, 11}); }
inline U interleave_high(U a, U b) {
  return __builtin_shuffle(a, b, (U){4, 12, 5, 13, 6, 14, 7, 15});
}
#else
inline U interleave_low(U a, U b) { return __builtin_shuffle(a, b, (U){0, 4, 1, 5}); }
inline U interleave_high(U a, U b) { return __builtin_shuffle(a, b, (U){2, 6, 3, 7}); }
#endif

// Each turn moves the top bit of the row number to the bottom of the lane number and the other way
// round; after log2(kLanes) turns rows and lanes have changed places.
inline void transpose(U (&rows)[kLanes]) {
#pragma GCC unroll 4
  for (int width = kLanes; width > 1; width /= 2) {
    U next[kLanes];
#pragma GCC unroll 8
    for (int i = 0; i < kLanes / 2; ++i) {
      next[2 * i] = interleave_low(rows[i], rows[i + kLanes / 2]);
      next[2 * i + 1] = interleave_high(rows[i], rows[i + kLanes / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) rows[i] = next[i];
  }
}

constexpr int kStoreI8 = 7;  // the number of its DType
template <int kStorage>
struct ItemOf {
  using Type = typename StorageOf<kStorage>::Type;
};
template <>
struct ItemOf<kStoreI8> {
  using Type = int8_t;
};

// kPerWord: 1 float, 2 bf16 or 4 bytes. kStorage: of w.
template <int kStorage, int64_t kPerWord>
struct Packer {
  using T = typename ItemOf<kStorage>::Type;
  static constexpr bool kBytes = kPerWord == 4;
  static constexpr bool kPairs = kPerWord == 2;
  static constexpr int64_t kItems = kPerWord * kLanes;  // of k, in kLanes words

  const PackPanelArgs& args;
  const T* w = static_cast<const T*>(args.w);
  int64_t n_words = (args.k + kPerWord - 1) / kPerWord;

  // kLanes words of one column from kItems elements of successive k.
  static U words_of(const T* p) {
    U words;
    if constexpr (kBytes || (kPairs && kStorage == kStoreBF16)) {
      __builtin_memcpy(&words, p, sizeof(words));
    } else if constexpr (kPairs) {
      const H halves[2] = {to_bf16(load<kStorage>(p)), to_bf16(load<kStorage>(p + kLanes))};
      __builtin_memcpy(&words, halves, sizeof(words));
    } else {
      words = (U)load<kStorage>(p);
    }
    return words;
  }
  U column_words(int64_t column, int64_t k) const {
    if (column >= args.n_columns) return U{};
    const T* p = w + column * args.stride_n + k * args.stride_k;
    const int64_t left = args.k - k;
    if (args.stride_k == 1 && left >= kItems) return words_of(p);
    T items[kItems] = {};
    for (int64_t i = 0; i < kItems && i < left; ++i) items[i] = p[i * args.stride_k];
    return words_of(items);
  }
  void pack_by_columns() const {
    for (int64_t word = 0; word < n_words; word += kLanes)
      for (int64_t column = 0; column < kPanel; column += kLanes) {
        U rows[kLanes];
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) rows[i] = column_words(column + i, word * kPerWord);
        transpose(rows);
        if constexpr (kBytes)
          for (U& row : rows) row ^= 0x80808080U;
        for (int64_t i = 0; i < kLanes && word + i < n_words; ++i)
          __builtin_memcpy(args.panel + (word + i) * kPanel + column, &rows[i], sizeof(U));
      }
  }

  // kLanes columns of one k.
  F row_values(int64_t column, int64_t k) const {
    if (column >= args.n_columns || k >= args.k) return F{};
    const T* p = w + column + k * args.stride_k;
    const int64_t left = args.n_columns - column;
    return left >= kLanes ? load<kStorage>(p) : load_part<kStorage>(p, left);
  }
  void pack_by_rows() const {
    for (int64_t word = 0; word < n_words; ++word)
      for (int64_t column = 0; column < kPanel; column += kLanes) {
        U words = (U)row_values(column, word * kPerWord);
        if constexpr (kPairs) {
          const U low = __builtin_convertvector(to_bf16((F)words), U);
          const U high = __builtin_convertvector(to_bf16(row_values(column, 2 * word + 1)), U);
          words = low | (high << 16);
        }
        __builtin_memcpy(args.panel + word * kPanel + column, &words, sizeof(words));
      }
  }
};

template <int kStorage>
void pack_from(const PackPanelArgs& args) {
  const bool by_rows = args.stride_n == 1 && args.stride_k != 1;
  if (args.per_word == 2) {
    const Packer<kStorage, 2> packer{args};
    by_rows ? packer.pack_by_rows() : packer.pack_by_columns();
  } else {
    const Packer<kStorage, 1> packer{args};
    by_rows ? packer.pack_by_rows() : packer.pack_by_columns();
  }
}

void pack_panel(const PackPanelArgs* args) {
  if (args->per_word == 4) return Packer<kStoreI8, 4>{*args}.pack_by_columns();
  if (args->w_dtype == kStoreF32) return pack_from<kStoreF32>(*args);
  if (args->w_dtype == kStoreBF16) return pack_from<kStoreBF16>(*args);
  return pack_from<kStoreF16>(*args);
}

}  // namespace

constinit const PackKernels pack_kernels = {.pack_panel = pack_panel};

}  // namespace shardwright::kernels::SHARDWRIGHT_ISA_NAMESPACE
