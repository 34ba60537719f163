// check_manifest: signatures, tensors, pieces, and that the chips' programs fit each other.
#include "pef/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/checked.h"
#include "base/error.h"
#include "kernels/cpu/gemm.h"
#include "ops/exchange.h"
#include "pef/check_step.h"
#include "pef/read.h"

namespace shardwright::pef {
namespace {

constexpr int kMaxChips = 65536;
constexpr int64_t kPieceAlignBytes = 256;

void check_signatures(const Manifest& manifest) {
  std::set<std::string> names;
  for (const GraphSignature& graph : manifest.graphs) {
    if (graph.name.empty() || !names.insert(graph.name).second)
      broken("two graphs are named '" + graph.name + "'");
    for (const Signature& input : graph.inputs) checked_bytes(input.type);
    for (const Signature& output : graph.outputs) checked_bytes(output.type);
  }
  for (const Tensor& tensor : manifest.tensors) checked_bytes(tensor.type);
}

void check_piece(const Manifest& manifest, const Piece& piece, const ChipPlan& chip) {
  if (piece.tensor < 0 || static_cast<size_t>(piece.tensor) >= manifest.tensors.size())
    broken(fmt::format("a piece is of tensor {}, there are {}", piece.tensor,
                       manifest.tensors.size()));
  const Tensor& tensor = manifest.tensors[static_cast<size_t>(piece.tensor)];
  const DType dtype = tensor.type.dtype;
  const TensorType type{dtype, piece.shape};
  const Range range = byte_range({.space = Space::kParameter,
                                  .index = 0,
                                  .offset_bytes = checked_mul(piece.offset, dtype_bytes(dtype)),
                                  .type = type,
                                  .strides = piece.strides});
  if (range.end > checked_bytes(tensor.type))
    broken(fmt::format("a piece reaches to byte {} of {}, which has {}", range.end, tensor.name,
                       checked_bytes(tensor.type)));
  int64_t bytes = checked_bytes(type);
  if (piece.layout == ops::Layout::kPanels) {
    if (type.ndim() != 2 || !kernels::has_panels(dtype))
      broken("a piece of " + tensor.name + " can't lie in panels: it is " + to_string(type));
    // Panels round both dimensions up, which the element count bounds but for empty pieces.
    checked_mul(checked_mul(checked_add(piece.shape[0], kernels::kPanelColumns),
                            checked_add(piece.shape[1], 4)),
                4);
    bytes = kernels::panel_bytes(kernels::panel_dtype(dtype), piece.shape[0], piece.shape[1]);
  }
  if (piece.memory_bytes != bytes || piece.memory_offset_bytes < 0 ||
      piece.memory_offset_bytes % kPieceAlignBytes != 0 ||
      checked_add(piece.memory_offset_bytes, piece.memory_bytes) > chip.parameter_bytes)
    broken(fmt::format("a piece of {} lies at byte {} with {} bytes in a memory of {}", tensor.name,
                       piece.memory_offset_bytes, piece.memory_bytes, chip.parameter_bytes));
}

void check_pieces(const Manifest& manifest, const ChipPlan& chip) {
  std::vector<Range> memory;
  int64_t end = 0;
  for (const Piece& piece : chip.pieces) {
    check_piece(manifest, piece, chip);
    if (piece.memory_bytes > 0)
      memory.push_back({piece.memory_offset_bytes, piece.memory_offset_bytes + piece.memory_bytes});
  }
  std::sort(memory.begin(), memory.end(),
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
  for (const Range& range : memory) {
    if (range.begin < end) broken("two pieces overlap in the memory of their chip");
    end = range.end;
  }
  if (chip.parameter_bytes < 0 || chip.parameter_bytes > round_up(end, kPieceAlignBytes))
    broken(fmt::format("a chip states {} bytes of parameters, its pieces end at {}",
                       chip.parameter_bytes, end));
}

// What must be equal on all chips: which exchanges there are, in which order.
std::vector<const Step*> exchanges_of(const Program& program) {
  std::vector<const Step*> exchanges;
  for (const Step& step : program.steps)
    if (step.op == ops::exchange.name) exchanges.push_back(&step);
  return exchanges;
}

void check_congruence(const Plan& plan, size_t graph) {
  const auto first = exchanges_of(plan.chips[0].programs[graph]);
  for (size_t c = 1; c < plan.chips.size(); ++c) {
    const auto other = exchanges_of(plan.chips[c].programs[graph]);
    if (other.size() != first.size())
      broken(
          fmt::format("chip 0 has {} exchanges and chip {} has {}", first.size(), c, other.size()));
    for (size_t i = 0; i < first.size(); ++i)
      if (ops::to_attrs(ops::exchange_of(first[i]->attrs)) !=
              ops::to_attrs(ops::exchange_of(other[i]->attrs)) ||
          first[i]->operands[0].type.dtype != other[i]->operands[0].type.dtype)
        broken(
            fmt::format("exchange {} ({}) differs between chips 0 and {}", i, first[i]->source, c));
  }
}

void check_plan(const Manifest& manifest, const Plan& plan, WhyNotFused why_not_fused) {
  if (plan.chips.empty()) return;
  if (static_cast<int>(plan.chips.size()) != plan.n_chips)
    broken(fmt::format("it has {} chips", plan.chips.size()));
  for (size_t c = 0; c < plan.chips.size(); ++c) {
    const ChipPlan& chip = plan.chips[c];
    check_pieces(manifest, chip);
    if (chip.programs.size() != manifest.graphs.size())
      broken(fmt::format("chip {} has {} programs for {} graphs", c, chip.programs.size(),
                         manifest.graphs.size()));
    int64_t arena_bytes = 0;
    for (size_t g = 0; g < chip.programs.size(); ++g) {
      check_program(manifest, plan, static_cast<int>(c), static_cast<int>(g), why_not_fused);
      arena_bytes = std::max(arena_bytes, chip.programs[g].arena_bytes);
    }
    if (chip.arena_bytes != arena_bytes || chip.transfer_bytes < 0 ||
        chip.transfer_bytes > arena_bytes)
      broken(
          fmt::format("chip {} states an arena of {} bytes with {} for transfers; its programs "
                      "need {}",
                      c, chip.arena_bytes, chip.transfer_bytes, arena_bytes));
  }
  for (size_t g = 0; g < manifest.graphs.size(); ++g) {
    check_congruence(plan, g);
    check_outputs(manifest, plan, g);
  }
}

}  // namespace

void check_manifest(const Manifest& manifest, WhyNotFused why_not_fused) {
  try {
    check_signatures(manifest);
    std::set<int> chip_counts;
    for (const Plan& plan : manifest.plans) {
      if (plan.n_chips < 1 || plan.n_chips > kMaxChips || !chip_counts.insert(plan.n_chips).second)
        broken(fmt::format("it has a plan too many, for {} chips", plan.n_chips));
      try {
        check_plan(manifest, plan, why_not_fused);
      } catch (const Error& error) {
        throw error.within(fmt::format("the plan for {} chips", plan.n_chips));
      }
    }
  } catch (const Error& error) {
    // What looks like a bug or a user's mistake of the compiler comes from the file here.
    throw Error(ErrorCode::kBrokenFile, error.what());
  }
}

}  // namespace shardwright::pef
