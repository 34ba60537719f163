// Who wrote which bytes.
#pragma once

#include <map>

#include "tensor/tensor.h"

namespace shardwright::pef {

// Bytes of one memory with the step that wrote each last.
class Owners {
 public:
  void write(const Range& range, int step) {
    if (range.empty()) return;
    split(range.begin);
    split(range.end);
    owners_.erase(owners_.lower_bound(range.begin), owners_.lower_bound(range.end));
    owners_[range.begin] = {range.end, step};
  }

  // None of the range was written.
  bool none(const Range& range) const {
    if (range.empty()) return true;
    auto after = owners_.lower_bound(range.end);
    return after == owners_.begin() || (--after)->second.end <= range.begin;
  }

  // All of the range was written by one step.
  bool whole(const Range& range) const {
    if (range.empty()) return true;
    auto after = owners_.upper_bound(range.begin);
    return after != owners_.begin() && (--after)->second.end >= range.end;
  }

 private:
  struct Owned {
    int64_t end = 0;
    int step = -1;
  };

  void split(int64_t at) {
    auto after = owners_.upper_bound(at);
    if (after == owners_.begin()) return;
    Owned& before = (--after)->second;
    if (after->first == at || before.end <= at) return;
    owners_[at] = before;
    before.end = at;
  }

  std::map<int64_t, Owned> owners_;  // by first byte; they don't overlap
};

}  // namespace shardwright::pef
