// Which parts of the logical tensors each chip keeps.
#include "plan/pieces.h"

#include <map>
#include <tuple>

#include "base/check.h"
#include "base/checked.h"
#include "kernels/cpu/gemm.h"

namespace shardwright::plan {
namespace {

constexpr int64_t kAlignBytes = 256;

struct Readers {
  bool any = false;
  bool all_read_panels = true;
  bool one_wants_panels = false;
};

Readers readers_of(const ir::Graph& graph, const ir::Input& input) {
  const ir::ValueId value = input.value;
  Readers readers;
  for (const ir::Output& output : graph.outputs)
    if (output.value == value ||
        (output.role == ir::OutputRole::kBufferMutation && output.name == input.name))
      readers = {.any = true, .all_read_panels = false};
  for (const ir::Node& node : graph.nodes)
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      if (node.inputs[i] != value) continue;
      readers.any = true;
      const int operand = static_cast<int>(i);
      const bool wants = node.op->panel_operand == operand;
      // An operator that can read panels but packs none (embedding) reads them in its first.
      const bool can = wants || (node.op->panels_readable && operand == 0);
      readers.one_wants_panels |= wants;
      readers.all_read_panels &= can;
    }
  return readers;
}

bool can_be_packed(const TensorType& type) {
  return type.ndim() == 2 && kernels::has_panels(type.dtype);
}

}  // namespace

Pieces::Pieces(const ir::Module& module, const std::vector<std::vector<ir::Graph>>& local)
    : pieces_(local.at(0).size()), bytes_(local.at(0).size(), 0) {
  // The same tensor, offset, strides and shape on every chip.
  using Part = std::tuple<int, int64_t, Strides, Shape>;
  std::map<std::vector<Part>, int> known;
  std::vector<bool> all_read;
  std::vector<bool> one_wants;
  for (const std::vector<ir::Graph>& chips : local) {
    of_input_.emplace_back(chips[0].inputs.size(), -1);
    for (size_t i = 0; i < chips[0].inputs.size(); ++i) {
      const ir::Input& first = chips[0].inputs[i];
      if (first.role == ir::InputRole::kUserInput) continue;
      const Readers readers = readers_of(chips[0], first);
      if (!readers.any) continue;
      std::vector<Part> parts;
      for (const ir::Graph& graph : chips) {
        const ir::Input& input = graph.inputs[i];
        parts.emplace_back(input.ref.tensor, input.ref.offset, input.ref.strides,
                           graph.type(input.value).shape);
      }
      const auto [entry, is_new] = known.emplace(parts, static_cast<int>(known.size()));
      const auto piece = static_cast<size_t>(entry->second);
      of_input_.back()[i] = entry->second;
      if (is_new) {
        all_read.push_back(can_be_packed(chips[0].type(first.value)));
        one_wants.push_back(false);
        for (size_t c = 0; c < chips.size(); ++c) {
          const auto& [tensor, offset, strides, shape] = parts[c];
          pieces_[c].push_back(
              {.tensor = tensor, .offset = offset, .strides = strides, .shape = shape});
        }
      }
      all_read[piece] = all_read[piece] && readers.all_read_panels;
      one_wants[piece] = one_wants[piece] || readers.one_wants_panels;
    }
  }
  std::vector<bool> in_panels(all_read.size());
  for (size_t i = 0; i < in_panels.size(); ++i) in_panels[i] = all_read[i] && one_wants[i];
  place(module, in_panels);
}

void Pieces::place(const ir::Module& module, const std::vector<bool>& in_panels) {
  for (size_t c = 0; c < pieces_.size(); ++c)
    for (size_t i = 0; i < pieces_[c].size(); ++i) {
      pef::Piece& piece = pieces_[c][i];
      const DType dtype = module.tensors[static_cast<size_t>(piece.tensor)].type.dtype;
      piece.memory_bytes = element_count(piece.shape) * dtype_bytes(dtype);
      if (in_panels[i]) {
        piece.layout = ops::Layout::kPanels;
        piece.memory_bytes =
            kernels::panel_bytes(kernels::panel_dtype(dtype), piece.shape[0], piece.shape[1]);
      }
      piece.memory_offset_bytes = bytes_[c];
      bytes_[c] = round_up(bytes_[c] + piece.memory_bytes, kAlignBytes);
    }
}

}  // namespace shardwright::plan
