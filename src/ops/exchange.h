// exchange: the one operator by which chips hand data to each other. What it does follows from
// where the pieces lie before and after.
//
// A value of `shape` (whole) is held by n chips as pieces and is wanted as other pieces. Before:
// split along `from_dim` at `from_cuts` (from_dim = -1: every chip holds a full-size piece), after:
// along `to_dim` at `to_cuts` (-1: whole on every chip). An element's value is `combine` of the
// pieces that hold it:
//   copy  the copies are equal (state whole, split same): taken from the first chip that holds it
//   (own: the same, owner = first chip) sum   their sum, in chip order; partial (from_dim = -1) or
//   split(sum) with overlapping cuts max   their maximum
// The common cases have names, which `kind` holds for people, for cost and for the runtime's choice
// of algorithm:
//   all_reduce       from -1   to -1    sum|max        reduce_scatter  from -1  to d   sum|max
//   all_gather       from d    to -1    copy|sum       all_to_all      from d   to e   copy|sum
//   overlap_reduce   from d    to d     sum         rebalance       from d   to d   copy|sum
// Attributes: kind: str, combine: str, from_dim: int, from_cuts: ints [b0, e0, b1, e1, ...],
// to_dim, to_cuts, shape: ints, n: int, with_previous: bool.
//
// Exchanges that are ready together meet once: all of them but the first say with_previous. They
// stand one after another, and none reads or overwrites what another of them reads or writes.
#pragma once

#include <string>
#include <vector>

#include "base/team.h"
#include "ops/op.h"
#include "tensor/dtype.h"

namespace shardwright::ops {

enum class Combine : uint8_t { kCopy, kSum, kMax };

struct Exchange {
  std::string kind;
  Combine combine = Combine::kCopy;
  int from_dim = -1;
  std::vector<Range> from_cuts;  // one a chip; empty if from_dim is -1
  int to_dim = -1;
  std::vector<Range> to_cuts;
  Shape shape;  // of the whole value
  int n = 1;
  bool with_previous = false;

  Shape from_shape(int chip) const;
  Shape to_shape(int chip) const;
};

// A box of a tensor: one range a dimension.
using Piece = std::vector<Range>;

// An all_reduce of more bytes than this goes in two phases: each chip adds up its part for all,
// then all gather the parts; a chip reads 2 (n-1)/n of the bytes and not n-1 times all of them.
// Measured cross-over between threads of one machine: 64..256 KiB.
inline constexpr int64_t kTwoPhaseBytes = 128 * 1024;
bool in_two_phases(const Exchange& exchange, DType dtype);
// The elements that a chip adds up for all, of an all_reduce of `count` in two phases.
Range reduced_part(int64_t count, int n, int chip);
// What a chip takes from the other chips. Counted from the cuts alone: what a transport counts when
// it moves the pieces must be the same.
int64_t received_bytes(const Exchange& exchange, DType dtype, int chip);

Attrs to_attrs(const Exchange& exchange);
Exchange exchange_of(const Attrs& attrs);  // CHECKs

// Name "exchange"; no rule, no kernel: local graphs alone hold it, and comm runs it.
extern const OpDef exchange;

// The meaning of all this as plain loops: the interpreter, and the oracle of tests.
RefTensor cut_piece(const RefTensor& whole, const Piece& piece);
// CHECKs that together the pieces hold every element, and with kCopy that copies agree; `name` is
// the value's, for the message.
RefTensor join_pieces(const TensorType& whole, Combine combine,
                      std::span<const RefTensor* const> tensors, std::span<const Piece> pieces,
                      std::string_view name);
// What each chip has after the exchange, from what each has before.
std::vector<RefTensor> run_exchange(const Exchange& spec, std::span<const RefTensor* const> before,
                                    std::string_view name);

}  // namespace shardwright::ops
