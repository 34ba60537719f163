// merge_groups.
#include "plan/merge.h"

#include <algorithm>
#include <map>

#include "base/check.h"
#include "ops/exchange.h"

namespace shardwright::plan {
namespace {

using pef::Buffer;
using pef::Space;
using pef::Step;

bool contains(const Buffer& outer, const Buffer& inner) {
  const Range x = pef::byte_range(outer), y = pef::byte_range(inner);
  return outer.space == inner.space && outer.index == inner.index && x.begin <= y.begin &&
         y.end <= x.end;
}

bool overlap(const Buffer& a, const Buffer& b) {
  const Range x = pef::byte_range(a), y = pef::byte_range(b);
  return a.space == b.space && a.index == b.index && x.begin < y.end && y.begin < x.end;
}

bool equal(const Buffer& a, const Buffer& b) {
  return a.space == b.space && a.index == b.index && a.offset_bytes == b.offset_bytes &&
         a.type == b.type && a.strides == b.strides && a.written_by == b.written_by;
}

// Builds the fused step of one chip, part after part.
class Fuser {
 public:
  // `inside[storage]`: no step but the parts touches it. `first`: the index of the step that
  // becomes the first part.
  Fuser(const std::vector<Storage>& storages, const std::vector<bool>& inside, size_t chip,
        size_t first)
      : storages_(storages), inside_(inside), chip_(chip), first_(static_cast<int>(first)) {
    step_.op = pef::kFused;
  }

  void add(const Step& step) {
    if (step_.parts.empty()) step_.source = step.source;
    Step part = step;
    for (Buffer& buffer : part.operands) buffer = seen(buffer);
    for (Buffer& buffer : part.results) buffer = written(buffer);
    step_.parts.push_back(std::move(part));
  }

  const Step& step() const { return step_; }

  // Parts may run block by block: what one overwrites no other may read.
  bool overwrites_what_it_reads() const {
    for (size_t r = 0; r < step_.results.size(); ++r)
      for (size_t o = 0; o < step_.operands.size(); ++o)
        if (overlap(step_.results[r], step_.operands[o]) && !pef::may_share(step_, o, r))
          return true;
    return false;
  }

 private:
  Buffer in_step(const Buffer& buffer, Space space, size_t index, int64_t begin_bytes) const {
    return {space,       static_cast<int>(index), buffer.offset_bytes - begin_bytes,
            buffer.type, buffer.strides,          std::max(-1, buffer.written_by - first_)};
  }

  bool is_inside(const Buffer& buffer) const {
    return buffer.space == Space::kArena && inside_[static_cast<size_t>(buffer.index)];
  }

  Buffer scratch(const Buffer& buffer) {
    const auto [entry, is_new] = scratch_.emplace(buffer.index, step_.scratch_bytes.size());
    if (is_new)
      step_.scratch_bytes.push_back(storages_[static_cast<size_t>(buffer.index)].bytes[chip_]);
    return in_step(buffer, Space::kStepScratch, entry->second, 0);
  }

  Buffer seen(const Buffer& buffer) {
    if (buffer.space == Space::kNone) return buffer;
    if (is_inside(buffer)) return scratch(buffer);
    if (buffer.written_by >= first_ && buffer.type.count() > 0) {
      size_t i = 0;
      while (i < step_.results.size() && !contains(step_.results[i], buffer)) ++i;
      CHECK(i < step_.results.size(), "a part's result is lost");
      return in_step(buffer, Space::kStepResult, i, step_.results[i].offset_bytes);
    }
    size_t i = 0;
    while (i < step_.operands.size() && !equal(step_.operands[i], buffer)) ++i;
    if (i == step_.operands.size()) step_.operands.push_back(buffer);
    return in_step(buffer, Space::kStepOperand, i, buffer.offset_bytes);
  }

  Buffer written(const Buffer& buffer) {
    if (is_inside(buffer)) return scratch(buffer);
    step_.results.push_back(buffer);
    return in_step(buffer, Space::kStepResult, step_.results.size() - 1, buffer.offset_bytes);
  }

  const std::vector<Storage>& storages_;
  const std::vector<bool>& inside_;
  const size_t chip_;
  const int first_;
  Step step_;
  std::map<int, size_t> scratch_;  // storage -> scratch value
};

int64_t traffic_bytes(const Step& step) {
  int64_t bytes = 0;
  for (const auto* buffers : {&step.operands, &step.results})
    for (const Buffer& buffer : *buffers)
      if (buffer.space != Space::kNone) bytes += buffer.type.bytes();
  return bytes;
}

class Merger {
 public:
  Merger(GraphPlan& graph, const std::vector<const std::vector<pef::Piece>*>& pieces,
         pef::WhyNotFused why_not_fused)
      : graph_(graph), pieces_(pieces), why_not_fused_(why_not_fused), merged_(graph.steps.size()) {
    find_touches();
    for (const Step& step : graph.steps[0]) is_exchange_.push_back(step.op == ops::exchange.name);
  }

  std::vector<GroupPlan> run(size_t n_groups) {
    groups_.resize(n_groups);
    for (GroupPlan& group : groups_) group.saved_bytes.resize(graph_.steps.size(), 0);
    const size_t n_steps = graph_.groups.size();
    for (size_t begin = 0, end = 0; begin < n_steps; begin = end) {
      end = begin + 1;
      const int group = graph_.groups[begin];
      while (group >= 0 && end < n_steps && graph_.groups[end] == group) ++end;
      if (group >= 0)
        merge_run(begin, end, groups_[static_cast<size_t>(group)]);
      else
        keep(begin);
    }
    for (size_t g = 0; g < groups_.size(); ++g)
      if (groups_[g].steps > 1 && groups_[g].why_not.empty())
        groups_[g].why_not = what_divides(static_cast<int>(g));
    for (std::vector<Step>& steps : merged_)
      for (Step& step : steps)
        for (Buffer& operand : step.operands)
          if (operand.written_by >= 0)
            operand.written_by = became_[static_cast<size_t>(operand.written_by)];
    graph_.steps = std::move(merged_);
    graph_.groups.clear();
    return std::move(groups_);
  }

 private:
  // What stands between the steps of a group.
  std::string what_divides(int group) const {
    const auto first = std::find(graph_.groups.begin(), graph_.groups.end(), group);
    const auto last = std::find(graph_.groups.rbegin(), graph_.groups.rend(), group).base();
    for (auto step = first; step != last; ++step)
      if (const auto i = static_cast<size_t>(step - graph_.groups.begin()); is_exchange_[i])
        return "a transfer between chips divides it";
    return "steps that are not in it must run between its parts";
  }

  struct Touches {
    size_t first = SIZE_MAX;
    size_t last = 0;
    bool everywhere = true;  // all chips keep the same values there
  };

  void find_touches() {
    touches_.resize(graph_.storages.size());
    std::vector<std::vector<int>> counts(graph_.steps.size(),
                                         std::vector<int>(graph_.storages.size(), 0));
    for (size_t c = 0; c < graph_.steps.size(); ++c)
      for (size_t i = 0; i < graph_.steps[c].size(); ++i)
        for (const auto* buffers : {&graph_.steps[c][i].operands, &graph_.steps[c][i].results})
          for (const Buffer& buffer : *buffers) {
            if (buffer.space != Space::kArena) continue;
            const auto storage = static_cast<size_t>(buffer.index);
            ++counts[c][storage];
            touches_[storage].first = std::min(touches_[storage].first, i);
            touches_[storage].last = std::max(touches_[storage].last, i);
          }
    for (const std::vector<int>& chip : counts)
      for (size_t s = 0; s < touches_.size(); ++s)
        touches_[s].everywhere = touches_[s].everywhere && chip[s] == counts[0][s];
  }

  void keep(size_t i) {
    became_.push_back(n_merged());
    for (size_t c = 0; c < merged_.size(); ++c) merged_[c].push_back(std::move(graph_.steps[c][i]));
  }

  int n_merged() const { return static_cast<int>(merged_[0].size()); }

  // The steps [begin, end) of all chips as one, or why they can't be one.
  std::string fuse(size_t begin, size_t end, std::vector<Step>& fused) const {
    std::vector<bool> inside(touches_.size());
    for (size_t s = 0; s < inside.size(); ++s)
      inside[s] = touches_[s].everywhere && touches_[s].first >= begin && touches_[s].last < end;
    for (size_t c = 0; c < graph_.steps.size(); ++c) {
      Fuser fuser(graph_.storages, inside, c, begin);
      for (size_t i = begin; i < end; ++i) fuser.add(graph_.steps[c][i]);
      if (fuser.overwrites_what_it_reads()) return "a part overwrites what another reads";
      const ops::FusedSpec spec = pef::fused_spec(fuser.step(), *pieces_[c], 1);
      const std::string why_not = spec.parts.empty() ? "" : why_not_fused_(spec);
      if (!why_not.empty()) return why_not;
      fused.push_back(fuser.step());
    }
    return "";
  }

  void merge_run(size_t begin, size_t end, GroupPlan& group) {
    group.parts += static_cast<int>(end - begin);
    for (size_t i = begin; i < end;) {
      size_t stop = end;
      std::vector<Step> fused;
      for (; stop > i + 1; --stop) {
        fused.clear();
        const std::string why_not = fuse(i, stop, fused);
        if (why_not.empty()) break;
        if (group.why_not.empty()) group.why_not = why_not;  // that of the whole run
      }
      ++group.steps;
      if (stop == i + 1)
        keep(i);
      else
        put(i, stop, std::move(fused), group);
      i = stop;
    }
  }

  void put(size_t begin, size_t end, std::vector<Step> fused, GroupPlan& group) {
    became_.insert(became_.end(), end - begin, n_merged());
    for (size_t c = 0; c < fused.size(); ++c) {
      group.saved_bytes[c] -= traffic_bytes(fused[c]);
      for (size_t i = begin; i < end; ++i)
        group.saved_bytes[c] += traffic_bytes(graph_.steps[c][i]);
      merged_[c].push_back(std::move(fused[c]));
    }
  }

  GraphPlan& graph_;
  const std::vector<const std::vector<pef::Piece>*>& pieces_;
  const pef::WhyNotFused why_not_fused_;
  std::vector<Touches> touches_;   // of each storage
  std::vector<bool> is_exchange_;  // of each step
  std::vector<std::vector<Step>> merged_;
  std::vector<int> became_;  // of each step so far: its place in merged_
  std::vector<GroupPlan> groups_;
};

}  // namespace

std::vector<GroupPlan> merge_groups(GraphPlan& graph, size_t n_groups,
                                    const std::vector<const std::vector<pef::Piece>*>& pieces,
                                    pef::WhyNotFused why_not_fused) {
  if (n_groups == 0) return {};
  return Merger(graph, pieces, why_not_fused).run(n_groups);
}

}  // namespace shardwright::plan
