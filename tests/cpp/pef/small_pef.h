// A small PEF, made by hand: y = x w^T + b, for one chip and for two.
#pragma once

#include <string>
#include <vector>

#include "base/check.h"
#include "kernels/cpu/gemm.h"
#include "pef/program.h"

namespace shardwright::pef {

inline constexpr int64_t kRows = 4, kIn = 8, kOut = 16;

inline Buffer buffer(Space space, int index, int64_t offset_bytes, TensorType type,
                     int written_by = -1) {
  Strides strides = contiguous_strides(type.shape);
  return {space, index, offset_bytes, std::move(type), std::move(strides), written_by};
}

inline Piece weight_piece(int64_t begin, int64_t rows) {
  return {.tensor = 0,
          .offset = begin * kIn,
          .strides = {kIn, 1},
          .shape = {rows, kIn},
          .layout = ops::Layout::kPanels,
          .memory_offset_bytes = 256,
          .memory_bytes = kernels::panel_bytes(DType::kF32, rows, kIn)};
}

inline ops::Exchange gather_columns() {
  return {.kind = "all_gather",
          .combine = ops::Combine::kCopy,
          .from_dim = 1,
          .from_cuts = {{0, 10}, {10, 16}},
          .to_dim = -1,
          .to_cuts = {},
          .shape = {kRows, kOut},
          .n = 2};
}

// The program of a chip that holds `columns` of the result; with more than one chip it gathers.
inline ChipPlan chip_plan(int64_t begin, int64_t columns, bool gather, bool writes_output) {
  ChipPlan chip;
  chip.pieces.push_back({.tensor = 1,
                         .offset = 0,
                         .strides = {1},
                         .shape = {kOut},
                         .layout = ops::Layout::kStrided,
                         .memory_offset_bytes = 0,
                         .memory_bytes = kOut * 4});
  chip.pieces.push_back(weight_piece(begin, columns));
  chip.parameter_bytes = 256 + (chip.pieces[1].memory_bytes + 255) / 256 * 256;
  const TensorType local{DType::kF32, {kRows, columns}};
  const TensorType whole{DType::kF32, {kRows, kOut}};
  const int64_t gathered = 256;  // where the whole product lies
  Program program;
  program.steps.push_back(
      {.op = "linear",
       .attrs = {},
       .operands = {buffer(Space::kInput, 0, 0, {DType::kF32, {kRows, kIn}}),
                    buffer(Space::kParameter, 1, 0, {DType::kF32, {columns, kIn}}), Buffer{}},
       .results = {buffer(Space::kArena, -1, gather ? 0 : gathered, local)},
       .begins = {{"m", begin}},
       .source = "model.layer model.py:3",
       .barrier_before = true});
  if (gather)
    program.steps.push_back({.op = "exchange",
                             .attrs = ops::to_attrs(gather_columns()),
                             .operands = {buffer(Space::kArena, -1, 0, local, 0)},
                             .results = {buffer(Space::kArena, -1, gathered, whole)},
                             .begins = {},
                             .source = "model.layer model.py:3",
                             .barrier_before = true});
  const Buffer sum = writes_output ? buffer(Space::kOutput, 0, 0, whole)
                                   : buffer(Space::kArena, -1, gathered, whole);
  program.steps.push_back({.op = "add",
                           .attrs = {{"alpha", int64_t{1}}},
                           .operands = {buffer(Space::kArena, -1, gathered, whole, gather ? 1 : 0),
                                        buffer(Space::kParameter, 0, 0, {DType::kF32, {kOut}})},
                           .results = {sum},
                           .begins = {},
                           .source = "model.layer model.py:3",
                           .barrier_before = true});
  program.arena_bytes = gathered + kRows * kOut * 4;
  chip.programs = {program};
  chip.arena_bytes = program.arena_bytes;
  chip.transfer_bytes = gather ? program.arena_bytes : 0;
  return chip;
}

inline Manifest small_manifest() {
  Manifest manifest;
  manifest.model_name = "small";
  manifest.producer = "shardwright 0.1.0";
  manifest.options = {{"tensor-parallel", "weight"}, {"n-chips", "1,2"}};
  manifest.graphs = {{.name = "forward",
                      .inputs = {{"x", {DType::kF32, {kRows, kIn}}}},
                      .outputs = {{"y", {DType::kF32, {kRows, kOut}}}}}};
  manifest.tensors = {
      {.name = "layer.weight",
       .other_names = {"tied.weight"},
       .type = {DType::kF32, {kOut, kIn}},
       .trainable = true},
      {.name = "layer.bias", .other_names = {}, .type = {DType::kF32, {kOut}}, .trainable = true}};
  manifest.plans = {
      {.n_chips = 1, .mode = "none", .chips = {chip_plan(0, kOut, false, true)}, .notes = {}},
      {.n_chips = 2,
       .mode = "weight",
       .chips = {chip_plan(0, 10, true, true), chip_plan(10, 6, true, false)},
       .notes = {"layer.bias is kept whole"}}};
  return manifest;
}

// The same for one chip alone, with the product and the sum as one fused step: what the linear
// gives is scratch.
inline Manifest fused_manifest() {
  Manifest manifest = small_manifest();
  manifest.plans.pop_back();
  ChipPlan& chip = manifest.plans[0].chips[0];
  const std::vector<Step> alone = chip.programs[0].steps;
  Step fused{.op = std::string(kFused),
             .attrs = {},
             .operands = {alone[0].operands[0], alone[0].operands[1], alone[1].operands[1]},
             .results = alone[1].results,
             .begins = {},
             .source = alone[0].source,
             .barrier_before = true,
             .parts = alone,
             .scratch_bytes = {kRows * kOut * 4}};
  const auto inside = [](Buffer& buffer, Space space, int index) {
    buffer.space = space;
    buffer.index = index;
    buffer.offset_bytes = 0;
  };
  inside(fused.parts[0].operands[0], Space::kStepOperand, 0);
  inside(fused.parts[0].operands[1], Space::kStepOperand, 1);
  inside(fused.parts[0].results[0], Space::kStepScratch, 0);
  inside(fused.parts[1].operands[0], Space::kStepScratch, 0);
  inside(fused.parts[1].operands[1], Space::kStepOperand, 2);
  inside(fused.parts[1].results[0], Space::kStepResult, 0);
  chip.programs[0] = {.steps = {fused}, .arena_bytes = 0};
  chip.arena_bytes = 0;
  return manifest;
}

// Bytes of the tensors: 0, 1, 2, ... The weight is stored transposed, so views with strides count.
struct SmallWeights {
  std::vector<float> weight, bias;
  SmallWeights() : weight(kOut * kIn), bias(kOut) {
    for (int64_t n = 0; n < kOut; ++n)
      for (int64_t k = 0; k < kIn; ++k)
        weight[static_cast<size_t>(k * kOut + n)] = static_cast<float>(n * kIn + k);
    for (int64_t n = 0; n < kOut; ++n) bias[static_cast<size_t>(n)] = static_cast<float>(n);
  }
  std::vector<TensorView> views() const {
    return {
        {{DType::kF32, {kOut, kIn}}, {1, kOut}, reinterpret_cast<const std::byte*>(weight.data())},
        {{DType::kF32, {kOut}}, {1}, reinterpret_cast<const std::byte*>(bias.data())}};
  }
};

}  // namespace shardwright::pef
