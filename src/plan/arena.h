// Memory of a chip's program: which storages live when, and where each lies in the arena.
#pragma once

#include <vector>

#include "pef/program.h"

namespace shardwright::plan {

// Memory that values of one graph share: made by one step, read by others. The same on all chips
// but for its size.
struct Storage {
  std::vector<int64_t> bytes;  // one a chip
  int first_step = -1;         // that writes or reads it; -1: none
  int last_step = -1;
  bool exchanged = false;  // an exchange reads or writes it
};

struct ArenaUse {
  int64_t arena_bytes = 0;
  int64_t transfer_bytes = 0;  // of storages that exchanges touch, at their peak
};

// A result takes the memory of an operand that nobody reads after its step, where the operator can
// work in place on every chip (pef::may_share). `steps[chip]` as in find_lifetimes, which comes
// first; the lifetimes are those of the shared memory afterwards.
void share_in_place(std::vector<std::vector<pef::Step>>& steps, std::vector<Storage>& storages);

// Finds when each storage lives, from the steps of a chip: their arena buffers have a storage's
// index and an offset in it.
void find_lifetimes(const std::vector<pef::Step>& steps, std::vector<Storage>& storages);

// Gives each storage of chip `chip` a place, so that no two that live in one step overlap, and the
// arena buffers of its steps their offsets in the arena.
ArenaUse place_storages(const std::vector<Storage>& storages, size_t chip,
                        std::vector<pef::Step>& steps);

// Drops barriers before steps that touch nothing that the steps since the last barrier wrote, and
// write nothing that those read.
void drop_barriers(std::vector<pef::Step>& steps);

}  // namespace shardwright::plan
