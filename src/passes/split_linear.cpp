// split_linear: follows the result of each linear to its slices, then makes one linear for each.
#include "passes/split_linear.h"

#include <algorithm>
#include <map>

#include "passes/layout.h"
#include "passes/refs.h"
#include "passes/rewrite.h"

namespace shardwright::passes {
namespace {

using ir::Graph;
using ir::Input;
using ir::kNoValue;
using ir::LogicalTensor;
using ir::Module;
using ir::Node;
using ir::ValueId;

// One slice at the end of a way from the linear. The ids are those before rewriting.
struct Piece {
  Node linear;
  ValueId bias = kNoValue;
  int bias_group = -1;
  ValueId result = kNoValue;  // of the slice
  int slice_group = -1;
  Layout layout;  // of the result
  Layout::Cut cut;
};

// A way from the result of a linear: the value here and how it lies.
struct Way {
  ValueId value = kNoValue;
  ValueId bias = kNoValue;
  int bias_group = -1;
  Layout layout;
};

// Rows [before][begin, end)[after] of a parameter whose first dimension is before * size * after.
struct Rows {
  int64_t before = 1;
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size = 0;
  int64_t after = 1;

  int64_t count() const { return before * (end - begin) * after; }
};

class Splitter {
 public:
  Splitter(Module& module, Graph& graph)
      : module_(module), graph_(graph), consumers_(graph.consumers()) {
    is_output_.resize(graph.values.size(), false);
    for (const ir::Output& output : graph.outputs)
      is_output_[static_cast<size_t>(output.value)] = true;
  }

  void run() {
    for (const Node& node : graph_.nodes)
      if (is_op(node, "linear")) find_pieces(node);
    if (pieces_.empty()) return;
    Rewriter rewriter(graph_);
    rewriter.run([&](const Node& node) {
      const auto found = pieces_.find(node.outputs[0]);
      if (found != pieces_.end())
        rewriter.replace(node.outputs[0], make_piece(rewriter, found->second));
    });
  }

 private:
  // A parameter, buffer or constant.
  const Input* stored(ValueId id) const {
    const Input* input = find_input(graph_, id);
    return input != nullptr && input->role != ir::InputRole::kUserInput ? input : nullptr;
  }

  void find_pieces(const Node& linear) {
    if (linear.inputs[2] != kNoValue || stored(linear.inputs[1]) == nullptr) return;
    const TensorType& type = graph_.type(linear.outputs[0]);
    std::vector<Piece> pieces;
    if (!follow(linear, {linear.outputs[0], kNoValue, -1, Layout(type.shape)}, &pieces)) return;
    int64_t total = 0;
    for (const Piece& piece : pieces) {
      // A logical tensor of its own would be trained apart from its parameter.
      if (rows_of(piece).before != 1 && has_loss(graph_)) return;
      total += rows_of(piece).count();
    }
    if (total > type.shape.back()) return;  // overlapping slices would be computed twice
    for (Piece& piece : pieces) pieces_.emplace(piece.result, std::move(piece));
  }

  // False if some reader is no view that ends in slices of the features.
  bool follow(const Node& linear, const Way& way, std::vector<Piece>* pieces) const {
    if (is_output_[static_cast<size_t>(way.value)]) return false;
    for (const ir::NodeId id : consumers_[static_cast<size_t>(way.value)]) {
      const Node& node = graph_.nodes[static_cast<size_t>(id)];
      Way next = way;
      next.value = node.outputs[0];
      if (is_op(node, "slice")) {
        if (!end_in_slice(linear, node, std::move(next), pieces)) return false;
        continue;
      }
      if (is_op(node, "reshape")) {
        if (!next.layout.reshape(graph_.type(node.outputs[0]).shape)) return false;
      } else if (is_op(node, "permute")) {
        next.layout.permute(node.attrs.integers("dims"));
      } else if (!is_op(node, "add") || !add_bias(node, way, &next)) {
        return false;
      }
      if (!follow(linear, next, pieces)) return false;
    }
    return true;
  }

  bool add_bias(const Node& node, const Way& way, Way* next) const {
    if (!way.layout.is_original() || way.bias != kNoValue) return false;
    next->bias = node.inputs[0] == way.value ? node.inputs[1] : node.inputs[0];
    next->bias_group = node.group;
    const TensorType& type = graph_.type(node.outputs[0]);
    return stored(next->bias) != nullptr && type == graph_.type(way.value) &&
           graph_.type(next->bias).shape == Shape{type.shape.back()};
  }

  bool end_in_slice(const Node& linear, const Node& node, Way way,
                    std::vector<Piece>* pieces) const {
    const Shape& from = graph_.type(node.inputs[0]).shape;
    const int dim = ops::normal_dim(node.attrs.integer("dim", 0), static_cast<int>(from.size()));
    const int64_t size = from[static_cast<size_t>(dim)];
    if (node.attrs.integer("step", 1) != 1) return false;
    int64_t begin = node.attrs.integer("start", 0);
    begin = std::clamp<int64_t>(begin < 0 ? begin + size : begin, 0, size);
    const int64_t count = graph_.type(node.outputs[0]).shape[static_cast<size_t>(dim)];
    const auto cut = way.layout.slice(static_cast<size_t>(dim), begin, begin + count);
    if (!cut) return false;
    pieces->push_back(
        {linear, way.bias, way.bias_group, way.value, node.group, std::move(way.layout), *cut});
    return true;
  }

  static Rows rows_of(const Piece& piece) {
    return {piece.layout.features_before(piece.cut.digit), piece.cut.begin, piece.cut.end,
            piece.cut.size, piece.layout.features_after(piece.cut.digit)};
  }

  // These rows of a weight [m, k] or a bias [m], or kNoValue if they can't be named.
  ValueId part(ValueId id, const Rows& rows) {
    const Input input = *stored(id);
    TensorType type = graph_.type(id);
    type.shape[0] = rows.count();
    ir::TensorRef ref = input.ref;
    const int64_t row = ref.strides[0];
    ref.offset += rows.begin * rows.after * row;
    if (rows.before == 1) return input_for_ref(module_, graph_, input.role, ref, type);

    // No two strides give these rows: a logical tensor of its own over the same bytes does.
    const LogicalTensor whole = module_.tensors[static_cast<size_t>(ref.tensor)];
    LogicalTensor segment = whole;
    segment.name = whole.name + ".view(" + std::to_string(rows.before) + ", -1)[:, " +
                   std::to_string(rows.begin * rows.after) + ":" +
                   std::to_string(rows.end * rows.after) + "]";
    segment.other_names.clear();
    segment.type.shape = {rows.before, (rows.end - rows.begin) * rows.after};
    segment.strides = {rows.size * rows.after * row, row};
    if (type.shape.size() == 2) {
      segment.type.shape.push_back(type.shape[1]);
      segment.strides.push_back(ref.strides[1]);
    }
    segment.offset = whole.offset + ref.offset;
    return input_for_ref(module_, graph_, input.role,
                         {add_segment(std::move(segment)), 0, contiguous_strides(type.shape)},
                         type);
  }

  // Another graph may have made it already.
  int add_segment(LogicalTensor segment) {
    for (size_t i = 0; i < module_.tensors.size(); ++i) {
      const LogicalTensor& tensor = module_.tensors[i];
      if (tensor.name == segment.name && tensor.type == segment.type &&
          tensor.bytes.data == segment.bytes.data && tensor.offset == segment.offset)
        return static_cast<int>(i);
    }
    module_.tensors.push_back(std::move(segment));
    return static_cast<int>(module_.tensors.size()) - 1;
  }

  // A node at the place of `linear`, in the group of what it replaces.
  ValueId append(const Node& linear, int group, const char* op, std::vector<ValueId> inputs,
                 ops::Attrs attrs = {}) {
    const ValueId id =
        ir::append(graph_, *ops::find_op(op), std::move(inputs), std::move(attrs), linear.source);
    graph_.nodes.back().group = group;
    return id;
  }

  ValueId make_piece(const Rewriter& rewriter, const Piece& piece) {
    const Node& linear = piece.linear;
    const Rows rows = rows_of(piece);
    ValueId y =
        append(linear, linear.group, "linear",
               {rewriter.current(linear.inputs[0]), part(linear.inputs[1], rows), kNoValue});
    if (piece.bias != kNoValue)
      y = append(linear, piece.bias_group, "add", {y, part(piece.bias, rows)});
    // The digits apart, in their order, and together again; what of it does nothing is dropped
    // later.
    const int group = piece.slice_group;
    y = append(linear, group, "reshape", {y}, {{"shape", piece.layout.origin_sizes()}});
    y = append(linear, group, "permute", {y}, {{"dims", piece.layout.order()}});
    return append(linear, group, "reshape", {y}, {{"shape", graph_.type(piece.result).shape}});
  }

  Module& module_;
  Graph& graph_;
  std::vector<std::vector<ir::NodeId>> consumers_;
  std::vector<bool> is_output_;
  std::map<ValueId, Piece> pieces_;  // by result
};

}  // namespace

void split_linear(Module& module, Graph& graph) { Splitter(module, graph).run(); }

}  // namespace shardwright::passes
