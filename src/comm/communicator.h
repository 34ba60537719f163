// Communicator: how chips hand data to each other. One object a chip; all chips call the same
// operations in the same order.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/team.h"
#include "ops/exchange.h"
#include "tensor/dtype.h"

namespace shardwright::comm {

// Chips that one exchange can be between.
inline constexpr int kMaxChips = 1024;

// Why a run ended early: shared by all chips; the first failure is the one that is reported.
struct Failure {
  int chip = -1;
  std::string
      text;  // "chip 2 did not reach all_reduce 17 (model.layers.3.mlp.down_proj) within 30 s"
};

// An exchange, made ready at load: which bytes come from which chip.
class PreparedExchange {
 public:
  virtual ~PreparedExchange() = default;
  int64_t received_bytes = 0;  // that this chip takes from other chips, each time
};

struct Transfer {
  const PreparedExchange* exchange = nullptr;
  const void* source = nullptr;  // this chip's piece before, contiguous; may be null if it is empty
  void* target = nullptr;        // its piece after; must not overlap any chip's source
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int chip() const = 0;
  virtual int n_chips() const = 0;

  virtual std::unique_ptr<PreparedExchange> prepare(const ops::Exchange& exchange, DType dtype,
                                                    std::string what) = 0;
  // Runs exchanges that are ready together (ops/exchange.h) with one meeting of the chips; every
  // chip gives the same ones in the same order. `transfers` must live until it returns.
  // Called by all threads of the chip's team, which have met before (what they wrote into the
  // sources is visible); returns when the targets are whole and no chip reads this chip's sources
  // any more. False, on all threads alike, if the run was aborted: then every thread must leave the
  // program at once. Adds the time spent waiting for other chips to `waited_ns` (thread 0 alone
  // writes it).
  virtual bool run(Member& member, std::span<const Transfer> transfers, int64_t& waited_ns) = 0;
  // All chips meet. False if aborted.
  virtual bool barrier(Member& member) = 0;
  // Ends the run on all chips; the first call's failure is kept.
  virtual void abort(Failure failure) = 0;
  virtual bool aborted() const = 0;
};

}  // namespace shardwright::comm
