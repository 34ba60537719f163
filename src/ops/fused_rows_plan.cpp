// Which parts of a fused step can go through a block of rows by themselves, and how they see it.
#include <algorithm>
#include <numeric>
#include <optional>
#include <set>

#include "base/check.h"
#include "ops/elementwise.h"
#include "ops/fused_stage.h"
#include "ops/table.h"

namespace shardwright::ops {
namespace {

constexpr size_t kMaxOperands = 24;  // of a part; the tile engine takes 32 in all

Shape leading(const Shape& shape) {
  return shape.empty() ? Shape() : Shape(shape.begin(), shape.end() - 1);
}

bool is_reduction(const OpDef* op) { return op == &sum || op == &amax || op == &amin; }

bool is_last_dim(int64_t dim, int ndim) { return ndim > 0 && normal_dim(dim, ndim) == ndim - 1; }

// The dimension that a reduction is over, if it is one.
std::optional<int64_t> only_dim(const Attrs& attrs) {
  const Attr* dim = attrs.find("dim");
  const auto* dims = dim == nullptr ? nullptr : std::get_if<std::vector<int64_t>>(dim);
  if (dims == nullptr || dims->size() != 1) return std::nullopt;
  return dims->front();
}

// A view is a copy of what it shows.
std::string view_as_copy(const FusedSpec& spec, int index, FusedPart* part) {
  FusedValue& x = part->operands[0];
  const FusedValue& y = part->results[0];
  const KernelSpec kernel{.op = part->op,
                          .attrs = &part->attrs,
                          .operands = {x.spec},
                          .results = {y.spec},
                          .begins = part->begins};
  Strides strides = contiguous_strides(y.spec.type.shape);
  int64_t offset = 0;
  if (y.spec.type.count() > 0 && !part->op->view(kernel, x.spec.strides, &strides, &offset))
    return name_of(spec, index) + " can't be a view of " + to_string(x.spec.type);
  x.offset_bytes += offset * dtype_bytes(x.spec.type.dtype);
  x.spec.type.shape = y.spec.type.shape;
  x.spec.strides = strides;
  part->op = &cast;
  part->attrs = Attrs();
  return "";
}

// A reduction over the last dimension keeps it, with size 1.
std::string keep_last_dim(const FusedSpec& spec, int index, FusedPart* part) {
  const OperandSpec& x = part->operands[0].spec;
  const std::optional<int64_t> dim = only_dim(part->attrs);
  if (!dim || !is_last_dim(*dim, x.type.ndim()))
    return name_of(spec, index) + " is not over the last dimension alone";
  if (x.type.shape.back() == 0) return name_of(spec, index) + " is over no elements";
  if (!part->attrs.boolean("keepdim", false)) {
    OperandSpec& y = part->results[0].spec;
    y.type.shape.push_back(1);
    y.strides.push_back(1);
  }
  part->attrs.set("dim", std::vector<int64_t>{-1});
  part->attrs.set("keepdim", true);
  return "";
}

std::string check_norm_types(const FusedSpec& spec, int index, const FusedPart& part) {
  std::optional<DType> parameters;
  for (size_t i = 0; i < part.operands.size(); ++i) {
    const OperandSpec& operand = part.operands[i].spec;
    if (part.operands[i].where == FusedValue::Where::kAbsent) continue;
    const bool mixed = i > 0 && parameters && *parameters != operand.type.dtype;
    if (mixed || !is_kernel_float(operand.type.dtype))
      return name_of(spec, index) + " has no row kernel for its types";
    if (i > 0) parameters = operand.type.dtype;
  }
  return "";
}

// The cache is no value of rows: it must not pass between parts.
std::string check_cache_write(const FusedSpec& spec, int index, const FusedPart& part) {
  const FusedValue& cache = part.operands[kWrittenCache];
  if (cache.where != FusedValue::Where::kOperand)
    return name_of(spec, index) + " writes into what another part gives";
  if (count_readers(spec, part.results[0]) > 0)
    return name_of(spec, index) + " gives what another part reads";
  const DType dtype = part.results[0].spec.type.dtype;
  if (cache.spec.type.dtype != dtype || part.operands[kWritten].spec.type.dtype != dtype)
    return name_of(spec, index) + " has no row kernel for its types";
  return "";
}

// What has the rows that a part walks.
const OperandSpec& walked_by(const FusedPart& part) {
  return part.op == &cache_write ? part.operands[kWritten].spec : part.results[0].spec;
}

// The part in the form that row kernels take: views and reductions changed as above, every "dim"
// the last. Says why it is not an operator of rows.
std::string as_row_operator(const FusedSpec& spec, int index, FusedPart* part) {
  const OpDef* op = part->op;
  if (part->operands.size() > kMaxOperands)
    return name_of(spec, index) + " has " + std::to_string(part->operands.size()) + " operands";
  if (op->elementwise && op->tile_code != nullptr) return "";
  if (op->view != nullptr) return view_as_copy(spec, index, part);
  if (is_reduction(op)) return keep_last_dim(spec, index, part);
  if (op == &cache_write) return check_cache_write(spec, index, *part);
  if (op == &rms_norm || op == &layer_norm) return check_norm_types(spec, index, *part);
  const TensorType& y = part->results[0].spec.type;
  if (op == &gather) {
    if (!is_last_dim(part->attrs.integer("dim"), y.ndim()))
      return name_of(spec, index) + " is not along the last dimension";
    part->attrs.set("dim", int64_t{-1});
    return "";
  }
  if (op == &softmax || op == &cat) {
    if (!is_last_dim(part->attrs.integer("dim", 0), y.ndim()))
      return name_of(spec, index) + " is not in the last dimension";
    part->attrs.set("dim", int64_t{-1});
    for (const FusedValue& x : part->operands) {
      if (op == &softmax ? !is_kernel_float(x.spec.type.dtype) || !is_kernel_float(y.dtype)
                         : x.spec.type.dtype != y.dtype)
        return name_of(spec, index) + " has no row kernel for its types";
      if (x.spec.type.ndim() != y.ndim())
        return name_of(spec, index) + " reads a tensor of other dimensions";
    }
    return "";
  }
  return name_of(spec, index) + " does not work row by row";
}

// The finest rows that all these leading dimensions can be cut into; why not, if there are none.
std::string common_rows(const FusedSpec& spec, const std::vector<std::pair<int, Shape>>& leads,
                        Shape* rows) {
  const int64_t count = element_count(leads[0].second);
  std::set<int64_t> cuts{1};
  for (const auto& [index, lead] : leads) {
    if (element_count(lead) != count)
      return name_of(spec, index) + " has " + std::to_string(element_count(lead)) + " rows, and " +
             name_of(spec, leads[0].first) + " " + std::to_string(count);
    int64_t product = 1;
    for (size_t d = lead.size(); d-- > 0 && count > 0;) cuts.insert(product *= lead[d]);
  }
  rows->clear();
  if (count == 0) *rows = {0};
  for (auto cut = std::next(cuts.begin()); cut != cuts.end(); ++cut) {
    const int64_t inner = *std::prev(cut);
    if (*cut % inner != 0)
      return "the dimensions of " + name_of(spec, leads.back().first) + " cut the rows of " +
             name_of(spec, leads[0].first) + " in another way";
    rows->insert(rows->begin(), *cut / inner);
  }
  return "";
}

// `strides` over the dims of `lead`, as bytes over the finer `rows`.
std::vector<int64_t> over_rows(const Shape& lead, const Strides& strides, const Shape& rows,
                               int64_t item) {
  std::vector<int64_t> result(rows.size(), 0);
  if (element_count(rows) == 0) return result;
  size_t r = rows.size();
  for (size_t d = lead.size(); d-- > 0;) {
    int64_t step = strides[d] * item;
    for (int64_t left = lead[d]; left > 1; left /= rows[r], step *= rows[r]) result[--r] = step;
  }
  return result;
}

class RowPlanner {
 public:
  RowPlanner(const FusedSpec& spec, std::span<const int> parts)
      : spec_(spec), indices_(parts.begin(), parts.end()) {}

  std::string plan(std::vector<RowProgram>* programs) {
    for (const int index : indices_) {
      parts_.push_back(spec_.parts[static_cast<size_t>(index)]);
      if (parts_.back().results.size() != 1) return name_of(spec_, index) + " has several results";
      if (std::string reason = as_row_operator(spec_, index, &parts_.back()); !reason.empty())
        return reason;
    }
    for (const std::vector<size_t>& members : components()) {
      programs->emplace_back();
      if (std::string reason = plan_program(members, &programs->back()); !reason.empty())
        return reason;
    }
    return "";
  }

 private:
  // Parts joined by values that one writes and another reads.
  std::vector<std::vector<size_t>> components() const {
    std::vector<size_t> root(parts_.size());
    std::iota(root.begin(), root.end(), size_t{0});
    const auto find = [&](size_t i) {
      while (root[i] != i) i = root[i];
      return i;
    };
    for (size_t i = 0; i < parts_.size(); ++i)
      for (const FusedValue& value : parts_[i].operands)
        if (const auto writer = position_of_writer(value); writer < parts_.size()) {
          const size_t a = find(i);
          const size_t b = find(writer);
          root[std::max(a, b)] = std::min(a, b);
        }
    std::vector<std::vector<size_t>> result;
    for (size_t i = 0; i < parts_.size(); ++i) {
      if (find(i) != i) continue;
      result.emplace_back();
      for (size_t j = i; j < parts_.size(); ++j)
        if (find(j) == i) result.back().push_back(j);
    }
    return result;
  }

  size_t position_of_writer(const FusedValue& value) const {
    const int writer = writer_of(spec_, value);
    return static_cast<size_t>(std::find(indices_.begin(), indices_.end(), writer) -
                               indices_.begin());
  }

  std::string plan_program(const std::vector<size_t>& members, RowProgram* program) {
    std::vector<std::pair<int, Shape>> leads;
    for (const size_t i : members)
      leads.emplace_back(indices_[i], leading(walked_by(parts_[i]).type.shape));
    if (std::string reason = common_rows(spec_, leads, &program->rows); !reason.empty())
      return reason;
    for (const size_t i : members) {
      RowPart part{.index = indices_[i],
                   .op = parts_[i].op,
                   .attrs = parts_[i].attrs,
                   .begins = parts_[i].begins};
      if (std::string reason = see_part(parts_[i], program->rows, &part); !reason.empty())
        return reason;
      for (const RowView& operand : part.operands)
        if (std::string reason = check_read(*program, part.index, operand); !reason.empty())
          return reason;
      program->parts.push_back(std::move(part));
    }
    return "";
  }

  std::string see_part(const FusedPart& from, const Shape& rows, RowPart* part) const {
    if (from.op == &cache_write) return see_cache_write(from, rows, part);
    const OperandSpec& y = from.results[0].spec;
    part->result = see(from.results[0], y.type.shape, y.strides, rows);
    for (size_t i = 0; i < from.operands.size(); ++i) {
      const FusedValue& value = from.operands[i];
      if (value.where == FusedValue::Where::kAbsent) {
        part->operands.push_back({.value = value});
        continue;
      }
      const Shape& shape = value.spec.type.shape;
      if (value.spec.layout != Layout::kStrided)
        return name_of(spec_, part->index) + " reads a packed weight";
      if (from.op->elementwise) {
        part->operands.push_back(see(
            value, y.type.shape, broadcast_strides(shape, value.spec.strides, y.type.shape), rows));
      } else if (i > 0 && from.op != &cat && from.op != &gather) {  // a norm's weight
        RowView view{.value = value, .row_strides = std::vector<int64_t>(rows.size(), 0)};
        view.columns = shape.empty() ? 1 : shape.back();
        view.column_stride = shape.empty() ? 1 : value.spec.strides.back();
        view.is_matrix = false;
        if (shape.size() != 1) return name_of(spec_, part->index) + " has a weight of many rows";
        part->operands.push_back(std::move(view));
      } else {
        if (leading(shape) != leading(y.type.shape))
          return name_of(spec_, part->index) + " reads " + to_string(value.spec.type) +
                 " and gives " + to_string(y.type);
        part->operands.push_back(see(value, shape, value.spec.strides, rows));
      }
      const RowView& view = part->operands.back();
      const bool gaps = view.columns > 1 && view.column_stride != 1;
      if (gaps && from.op->operand_strides != Strided::kAny)
        return name_of(spec_, part->index) + " reads columns that lie apart";
    }
    if (part->result.columns > 1 && part->result.column_stride != 1 &&
        from.op->result_strides != Strided::kAny)
      return name_of(spec_, part->index) + " writes columns that lie apart";
    return "";
  }

  // Its rows are the source's, and its operands the place of each and the source. Each row of the
  // result is place 0 of the cache's row: the kernel goes on from there.
  static std::string see_cache_write(const FusedPart& from, const Shape& rows, RowPart* part) {
    const FusedValue& position = from.operands[kWrittenAt];
    const FusedValue& source = from.operands[kWritten];
    const Shape& shape = source.spec.type.shape;
    const Strides& at = position.spec.strides;
    part->operands.push_back(
        see(position, {shape[0], shape[1], shape[2], 1}, {at[0], 0, at[1], 1}, rows));
    part->operands.push_back(see(source, shape, source.spec.strides, rows));
    const Strides& cache = from.results[0].spec.strides;
    part->result = see(from.results[0], shape, {cache[0], cache[1], 0, cache[3]}, rows);
    return "";
  }

  static RowView see(const FusedValue& value, const Shape& shape, const Strides& strides,
                     const Shape& rows) {
    RowView view{.value = value};
    const Shape lead = leading(shape);
    const Strides lead_strides(strides.begin(),
                               strides.begin() + static_cast<std::ptrdiff_t>(lead.size()));
    view.row_strides = over_rows(lead, lead_strides, rows, view.item());
    view.columns = shape.empty() ? 1 : shape.back();
    view.column_stride = shape.empty() || shape.back() == 1 ? 1 : strides.back();
    return view;
  }

  // What a part reads of a value that another part of the program wrote must lie in its own row.
  std::string check_read(const RowProgram& program, int reader, const RowView& read) const {
    if (read.value.where != FusedValue::Where::kResult &&
        read.value.where != FusedValue::Where::kScratch)
      return "";
    const int writer = writer_of(spec_, read.value);
    const auto found = std::find_if(program.parts.begin(), program.parts.end(),
                                    [&](const RowPart& part) { return part.index == writer; });
    if (found == program.parts.end()) return "";  // of the stage before
    const RowView& written = found->result;
    if (element_count(program.rows) == 0 || read.columns == 0) return "";
    const std::string reads = name_of(spec_, reader) + " reads ";
    if (read.row_strides != written.row_strides)
      return reads + "other rows of what " + name_of(spec_, writer) + " gives";
    const int64_t stride = written.column_stride * written.item();
    const int64_t offset = read.value.offset_bytes - written.value.offset_bytes;
    if (read.item() != written.item() || stride <= 0 || offset < 0 || offset % stride != 0 ||
        read.column_stride % written.column_stride != 0 ||
        offset / stride + (read.columns - 1) * read.column_stride / written.column_stride >=
            written.columns)
      return reads + "more than a row of what " + name_of(spec_, writer) + " gives";
    return "";
  }

  const FusedSpec& spec_;
  std::vector<int> indices_;
  std::vector<FusedPart> parts_;
};

}  // namespace

bool works_by_rows(const OpDef& op, const Attrs& attrs, const TensorType& result) {
  if (op.elementwise) return op.tile_code != nullptr;
  if (&op == &rms_norm || &op == &layer_norm) return true;
  if (&op == &softmax || &op == &cat || &op == &gather)
    return is_last_dim(attrs.integer("dim", 0), result.ndim());
  if (!is_reduction(&op) || !attrs.boolean("keepdim", false)) return false;
  const std::optional<int64_t> dim = only_dim(attrs);
  return dim && is_last_dim(*dim, result.ndim());
}

std::string plan_rows(const FusedSpec& spec, std::span<const int> parts,
                      std::vector<RowProgram>* programs) {
  return RowPlanner(spec, parts).plan(programs);
}

}  // namespace shardwright::ops
