// Chips in one process: they read each other's buffers.
#pragma once

#include <memory>
#include <optional>

#include "comm/communicator.h"

namespace shardwright::comm {

// Shared by the n communicators of one session, and outlived by none of them.
class ThreadWorld {
 public:
  // `deadline_ms`: how long a chip waits for another in one exchange before it ends the run and
  // names the late one. Throws Error(kUnsupported) for more than kMaxChips.
  ThreadWorld(int n_chips, int64_t deadline_ms);
  ~ThreadWorld();
  std::unique_ptr<Communicator> communicator(int chip);
  // The first failure since the last reset; nullopt if none.
  std::optional<Failure> failure() const;
  // Ends the run on all chips.
  void abort(Failure failure);
  // Between runs, when no chip is inside.
  void reset();

  struct Shared;

 private:
  std::unique_ptr<Shared> shared_;
};

}  // namespace shardwright::comm
