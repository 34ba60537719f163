// Pieces: which part of which tensor, in which layout, at which place.
#include "plan/pieces.h"

#include <algorithm>

#include "base/checked.h"
#include "kernels/cpu/gemm.h"

namespace shardwright::plan {
namespace {

constexpr int64_t kPieceAlignment = 256;  // bytes; as in the file

pef::Piece piece_of(const ir::Graph& graph, const ir::Input& input) {
  pef::Piece piece;
  piece.tensor = input.ref.tensor;
  piece.offset = input.ref.offset;
  piece.strides = input.ref.strides;
  piece.shape = graph.type(input.value).shape;
  if (element_count(piece.shape) == 0) piece.offset = 0;  // an empty piece is nowhere
  return piece;
}

// What the readers of an input make of it.
struct Readers {
  bool any_packs = false;  // a gemm reads it as its weight
  bool all_take_panels = true;
};

void collect(const ir::Graph& graph, ir::ValueId value, Readers& readers) {
  for (const ir::Node& node : graph.nodes)
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      if (node.inputs[i] != value) continue;
      const bool packs = node.op->panel_operand == static_cast<int>(i);
      readers.any_packs = readers.any_packs || packs;
      readers.all_take_panels =
          readers.all_take_panels && (packs || (node.op->panels_readable && i == 0));
    }
  for (const ir::Output& output : graph.outputs)
    if (output.value == value) readers.all_take_panels = false;
}

bool same(const pef::Piece& a, const pef::Piece& b) {
  return a.tensor == b.tensor && a.offset == b.offset && a.strides == b.strides &&
         a.shape == b.shape;
}

}  // namespace

Pieces::Pieces(const std::vector<const ir::Graph*>& graphs) {
  std::vector<Readers> readers;
  std::vector<DType> dtypes;
  for (const ir::Graph* graph : graphs) {
    auto& indices = of_input_.emplace_back();
    for (const ir::Input& input : graph->inputs) {
      if (input.role == ir::InputRole::kUserInput) {
        indices.push_back(-1);
        continue;
      }
      const pef::Piece piece = piece_of(*graph, input);
      const auto found = std::find_if(pieces_.begin(), pieces_.end(),
                                      [&](const pef::Piece& p) { return same(p, piece); });
      const auto index = static_cast<size_t>(found - pieces_.begin());
      if (found == pieces_.end()) {
        pieces_.push_back(piece);
        readers.emplace_back();
        dtypes.push_back(graph->type(input.value).dtype);
      }
      collect(*graph, input.value, readers[index]);
      indices.push_back(static_cast<int>(index));
    }
  }
  for (size_t i = 0; i < pieces_.size(); ++i) {
    pef::Piece& piece = pieces_[i];
    const bool packable =
        piece.shape.size() == 2 &&
        (dtypes[i] == DType::kF32 || dtypes[i] == DType::kBF16 || dtypes[i] == DType::kF16);
    if (packable && readers[i].any_packs && readers[i].all_take_panels)
      piece.layout = ops::Layout::kPanels;
    piece.memory_bytes = piece.layout == ops::Layout::kPanels
                             ? (element_count(piece.shape) == 0
                                    ? 0
                                    : kernels::panel_bytes(kernels::panel_dtype(dtypes[i]),
                                                           piece.shape[0], piece.shape[1]))
                             : element_count(piece.shape) * dtype_bytes(dtypes[i]);
    piece.memory_offset_bytes = bytes_;
    bytes_ += round_up(piece.memory_bytes, kPieceAlignment);
  }
}

}  // namespace shardwright::plan
