// Who wrote which bytes.
#pragma once

#include <map>
#include <optional>

#include "tensor/tensor.h"

namespace shardwright::pef {

// Bytes of one memory with the step that wrote each last.
class Writers {
 public:
  void write(const Range& range, int step) {
    if (range.empty()) return;
    split(range.begin);
    split(range.end);
    written_.erase(written_.lower_bound(range.begin), written_.lower_bound(range.end));
    written_[range.begin] = {range.end, step};
  }

  // The step that wrote all of the range; -1 if none wrote any of it; nothing if several steps (or
  // one and what was there before) share it.
  std::optional<int> writer(const Range& range) const {
    auto after = written_.lower_bound(range.end);
    if (after == written_.begin() || (--after)->second.end <= range.begin) return -1;
    const bool all = after->first <= range.begin && after->second.end >= range.end;
    return all ? std::optional(after->second.step) : std::nullopt;
  }

 private:
  struct Written {
    int64_t end = 0;
    int step = -1;
  };

  void split(int64_t at) {
    auto after = written_.upper_bound(at);
    if (after == written_.begin()) return;
    Written& before = (--after)->second;
    if (after->first == at || before.end <= at) return;
    written_[at] = before;
    before.end = at;
  }

  std::map<int64_t, Written> written_;  // by first byte; they don't overlap
};

}  // namespace shardwright::pef
