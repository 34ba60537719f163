// Chips in one process: they read each other's buffers.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "comm/communicator.h"

namespace shardwright::comm {

// Shared by the n communicators of one session. `deadline_ms`: how long a chip waits for another in
// one exchange.
class ThreadWorld {
 public:
  ThreadWorld(int n_chips, int64_t deadline_ms);
  ~ThreadWorld();
  std::unique_ptr<Communicator> communicator(int chip);
  // The first failure since the last reset; nullopt if none.
  std::optional<Failure> failure() const;
  void reset();  // between runs, when no chip is inside

  struct Shared;

 private:
  std::unique_ptr<Shared> shared_;
};

}  // namespace shardwright::comm
