// Rows programs without cats: what follows a cat column by column runs on each of the cat's
// columns by itself, straight from what was put together there. Rope's rotated half is then but
// a negative in a register, and each half of the rows goes into the cache by itself.
#include <algorithm>
#include <set>

#include "ops/fused_stage.h"
#include "ops/table.h"

namespace shardwright::ops {
namespace {

constexpr size_t kMaxSegments = 4;  // shorter runs of columns cost more than a cat

bool is_of(const RowView& read, const RowView& written) {
  return read.value.where == written.value.where && read.value.index == written.value.index;
}

class CatSplitter {
 public:
  CatSplitter(RowProgram* program, const std::vector<bool>& is_shared)
      : parts_(program->parts), is_shared_(is_shared) {}

  void run() {
    for (size_t i = 0; i < parts_.size(); ++i)
      if (parts_[i].op == &cat && parts_[i].operands.size() <= kMaxSegments) split(i);
  }

 private:
  bool is_local(const RowView& view) const {
    return view.value.where == FusedValue::Where::kScratch &&
           !is_shared_[static_cast<size_t>(view.value.index)];
  }
  // Whether all these parts that read what `part` gives read it as it was written.
  bool is_read_as_written(const std::vector<bool>& readers, const RowPart& part) const {
    for (size_t i = 0; i < parts_.size(); ++i)
      for (const RowView& read : parts_[i].operands)
        if (readers[i] && is_of(read, part.result) && !is_same_view(read, part.result))
          return false;
    return true;
  }
  // The same, and nobody else reads it.
  bool is_read_by(const std::vector<bool>& readers, const RowPart& part) const {
    for (size_t i = 0; i < parts_.size(); ++i)
      for (const RowView& read : parts_[i].operands)
        if (is_of(read, part.result) && !readers[i]) return false;
    return is_local(part.result) && is_read_as_written(readers, part);
  }
  bool has_columns(const RowPart& part, int64_t columns) const {
    return works_by_columns(*part.op) && part.segment < 0 && part.result.columns == columns;
  }

  void split(size_t at) {
    const RowPart joined = parts_[at];
    // The parts to run once a segment: those that follow, then those before that only they read.
    std::vector<bool> split(parts_.size(), false);
    size_t end = at + 1;
    while (end < parts_.size() && has_columns(parts_[end], joined.result.columns))
      split[end++] = true;
    if (!is_read_by(split, joined)) return;
    // Others must not need the columns together.
    for (size_t i = at + 1; i < end; ++i)
      if (!is_read_as_written(split, parts_[i]) ||
          (is_local(parts_[i].result) && !is_read_by(split, parts_[i])))
        return;
    for (size_t i = at; i-- > 0;)
      split[i] = has_columns(parts_[i], joined.result.columns) && is_read_by(split, parts_[i]);

    std::vector<bool> moved(parts_.size(), false);  // what makes an operand of the cat, just there
    std::vector<bool> only_cat(parts_.size(), false);
    only_cat[at] = true;
    for (size_t i = 0; i < at; ++i)
      moved[i] = !split[i] && parts_[i].op->elementwise && is_read_by(only_cat, parts_[i]) &&
                 readers_of(parts_[i], joined) == 1;

    made_.clear();
    for (size_t i = 0; i < end; ++i)
      if (split[i] && is_local(parts_[i].result)) made_.insert(parts_[i].result.value.index);
    std::vector<RowPart> result;
    for (size_t i = 0; i < at; ++i)
      if (!split[i] && !moved[i]) result.push_back(parts_[i]);
    int64_t begin = 0;
    for (size_t s = 0; s < joined.operands.size(); ++s) {
      const RowView& from = joined.operands[s];
      for (size_t i = 0; i < at; ++i)
        if (moved[i] && is_of(from, parts_[i].result)) add(parts_[i], &result);
      for (size_t i = 0; i < end; ++i)
        if (split[i]) add(columns_of(parts_[i], joined, from, begin), &result);
      begin += from.columns;
      ++n_segments_;
    }
    result.insert(result.end(), parts_.begin() + static_cast<std::ptrdiff_t>(end), parts_.end());
    parts_ = std::move(result);
  }

  static int64_t readers_of(const RowPart& part, const RowPart& joined) {
    return std::count_if(joined.operands.begin(), joined.operands.end(),
                         [&](const RowView& read) { return is_of(read, part.result); });
  }
  void add(RowPart part, std::vector<RowPart>* parts) const {
    part.segment = n_segments_;
    parts->push_back(std::move(part));
  }

  static bool is_position(const RowPart& part, const RowView& view) {
    return part.op == &cache_write && &view == &part.operands[0];
  }

  // The part on the columns that `from` has in the cat. What only split parts touch begins anew in
  // each segment.
  RowPart columns_of(RowPart part, const RowPart& joined, const RowView& from,
                     int64_t begin) const {
    const auto cut = [&](RowView& view) {
      if (!is_local(view) || made_.count(view.value.index) == 0)
        view.value.offset_bytes += begin * view.column_stride * view.item();
      view.columns = from.columns;
    };
    for (RowView& view : part.operands) {
      if (is_of(view, joined.result))
        view = from;
      else if (view.value.where != FusedValue::Where::kAbsent && !is_position(part, view))
        cut(view);
    }
    cut(part.result);
    return part;
  }

  std::vector<RowPart>& parts_;
  const std::vector<bool>& is_shared_;
  std::set<int> made_;  // scratch values that the parts being split write
  int n_segments_ = 0;
};

}  // namespace

bool works_by_columns(const OpDef& op) { return op.elementwise || &op == &cache_write; }

bool is_same_view(const RowView& read, const RowView& written) {
  return is_of(read, written) && read.value.offset_bytes == written.value.offset_bytes &&
         read.value.spec.type.dtype == written.value.spec.type.dtype &&
         read.row_strides == written.row_strides && read.columns == written.columns &&
         read.column_stride == written.column_stride;
}

void split_at_cats(RowProgram* program, const std::vector<bool>& is_shared) {
  CatSplitter(program, is_shared).run();
}

}  // namespace shardwright::ops
