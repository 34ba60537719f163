// check_manifest: every kind of wrong plan is refused, and damaged FlatBuffers that carry a right
// digest neither crash nor blow up.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "base/error.h"
#include "pef/codec.h"
#include "pef/read.h"
#include "pef/small_pef.h"

namespace shardwright::pef {
namespace {

std::string anything_fuses(const ops::FusedSpec&) { return ""; }

std::string refusal(const Manifest& manifest, WhyNotFused why_not_fused = anything_fuses) {
  try {
    check_manifest(manifest, why_not_fused);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBrokenFile) << error.what();
    return error.what();
  }
  return "accepted";
}

// Changes something in chip 0 of the plan for two chips; the message must have `part` in it.
void expect_refused(const std::string& part, const std::function<void(ChipPlan&)>& change) {
  Manifest manifest = small_manifest();
  change(manifest.plans[1].chips[0]);
  EXPECT_NE(refusal(manifest).find(part), std::string::npos)
      << part << "\n  got: " << refusal(manifest);
}

void expect_step_refused(const std::string& part, size_t step,
                         const std::function<void(Step&)>& change) {
  expect_refused(part, [&](ChipPlan& chip) { change(chip.programs[0].steps[step]); });
}

TEST(CheckManifest, AcceptsTheSmallOne) { EXPECT_EQ(refusal(small_manifest()), "accepted"); }

TEST(TrafficOf, CountsElementsAndNoScratch) {
  Program alone = small_manifest().plans[0].chips[0].programs[0];
  const int64_t x = kRows * kIn * 4, y = kRows * kOut * 4, weights = (kOut * kIn + kOut) * 4;
  EXPECT_EQ(traffic_of(alone).weights_bytes, weights);
  EXPECT_EQ(traffic_of(alone).activations_bytes, x + 3 * y);
  const Program fused = fused_manifest().plans[0].chips[0].programs[0];
  EXPECT_EQ(traffic_of(fused).weights_bytes, weights);
  EXPECT_EQ(traffic_of(fused).activations_bytes, x + y);
  alone.steps[0].operands[0].strides = {0, 1};  // one row, broadcast
  EXPECT_EQ(traffic_of(alone).activations_bytes, kIn * 4 + 3 * y);
  alone.steps[0].operands[0].strides = {2 * kIn, 1};  // gaps
  EXPECT_EQ(traffic_of(alone).activations_bytes, x + 3 * y);
}

TEST(CheckManifest, Pieces) {
  expect_refused("a piece is of tensor 2", [](ChipPlan& c) { c.pieces[0].tensor = 2; });
  expect_refused("reaches to byte 576", [](ChipPlan& c) { c.pieces[1].offset = 64; });
  expect_refused("starts at byte -4", [](ChipPlan& c) { c.pieces[0].offset = -1; });
  expect_refused("negative stride", [](ChipPlan& c) { c.pieces[1].strides[0] = -8; });
  expect_refused("overflows", [](ChipPlan& c) { c.pieces[1].strides[0] = INT64_MAX / 2; });
  expect_refused("overflows", [](ChipPlan& c) { c.pieces[1].shape = {INT64_MAX / 4, 8}; });
  expect_refused("has strides", [](ChipPlan& c) { c.pieces[1].strides.pop_back(); });
  expect_refused("dimensions",
                 [](ChipPlan& c) { c.pieces[0].shape = c.pieces[0].strides = Shape(9, 1); });
  expect_refused("overlap", [](ChipPlan& c) { c.pieces[1].memory_offset_bytes = 0; });
  expect_refused("lies at byte", [](ChipPlan& c) { c.pieces[1].memory_offset_bytes = 8; });
  expect_refused("lies at byte", [](ChipPlan& c) { c.pieces[1].memory_bytes -= 4; });
  expect_refused("can't lie in panels",
                 [](ChipPlan& c) { c.pieces[0].layout = ops::Layout::kPanels; });
  expect_refused("bytes of parameters", [](ChipPlan& c) { c.parameter_bytes = int64_t{1} << 50; });
}

TEST(CheckManifest, Steps) {
  expect_step_refused("can't run operator 'lineal'", 0, [](Step& s) { s.op = "lineal"; });
  expect_step_refused("operand weight is missing", 0, [](Step& s) { s.operands.resize(1); });
  expect_step_refused("operands and", 2, [](Step& s) { s.operands.push_back(s.operands[0]); });
  expect_step_refused("operands and 0 results", 2, [](Step& s) { s.results.clear(); });
  expect_step_refused("attribute alpha", 2,
                      [](Step& s) { s.attrs.set("alpha", std::string("one")); });
  expect_step_refused("begins at", 0, [](Step& s) { s.begins[0].second = -1; });
  expect_step_refused("linear", 0, [](Step& s) { s.results[0].type.shape = {4, 9}; });
  expect_step_refused("its rule gives", 0, [](Step& s) { s.results[0].type.dtype = DType::kI32; });
  expect_step_refused("it is between 3 chips", 1, [](Step& s) {
    s.attrs.set("n", int64_t{3});
    s.attrs.set("from_cuts", std::vector<int64_t>{0, 10, 10, 16, 16, 16});
  });
  expect_step_refused("exchange", 1, [](Step& s) {
    s.attrs.set("from_cuts", std::vector<int64_t>{0, 10, 10, 99});
  });
  expect_step_refused("it goes from", 1, [](Step& s) {
    s.attrs.set("from_cuts", std::vector<int64_t>{0, 9, 9, 16});
  });
}

TEST(CheckManifest, Buffers) {
  expect_step_refused("reaches to byte", 0, [](Step& s) { s.results[0].offset_bytes = 1 << 20; });
  expect_step_refused("starts at byte -4", 0, [](Step& s) { s.results[0].offset_bytes = -4; });
  expect_step_refused("starts at byte 2", 0, [](Step& s) { s.results[0].offset_bytes = 2; });
  expect_step_refused("does not exist", 0, [](Step& s) { s.operands[1].index = 2; });
  expect_step_refused("does not exist", 0, [](Step& s) { s.operands[0].index = -1; });
  expect_step_refused("another dtype", 0, [](Step& s) { s.operands[0].type.dtype = DType::kI32; });
  expect_step_refused("writes into an input", 0, [](Step& s) {
    s.results[0].space = Space::kInput;
    s.results[0].index = 0;
    s.results[0].type = {DType::kF32, {4, 8}};
    s.results[0].strides = {8, 1};
  });
  expect_step_refused("panels can only be read as a whole", 0,
                      [](Step& s) { s.operands[1].type.shape[0] = 5; });
  expect_step_refused("no place", 2, [](Step& s) { s.results[0] = {}; });
  expect_step_refused("lies in panels", 2, [](Step& s) {
    s.operands[1] = buffer(Space::kParameter, 1, 0, {DType::kF32, {10, kIn}});
  });
  expect_step_refused("overlaps operand", 1, [](Step& s) { s.results[0].offset_bytes = 64; });
  expect_step_refused("needs a barrier", 2, [](Step& s) { s.barrier_before = false; });
}

void expect_fused_refused(const std::string& part, const std::function<void(Step&)>& change) {
  Manifest manifest = fused_manifest();
  change(manifest.plans[0].chips[0].programs[0].steps[0]);
  EXPECT_NE(refusal(manifest).find(part), std::string::npos)
      << part << "\n  got: " << refusal(manifest);
}

TEST(CheckManifest, FusedSteps) {
  EXPECT_EQ(refusal(fused_manifest()), "accepted");
  EXPECT_NE(
      refusal(fused_manifest(), [](const ops::FusedSpec&) -> std::string { return "no kernel"; })
          .find("its parts can't be one step: no kernel"),
      std::string::npos);
  expect_fused_refused("two parts or more", [](Step& s) { s.parts.pop_back(); });
  expect_fused_refused("has begins", [](Step& s) { s.begins = {{"m", 1}}; });
  expect_fused_refused("is no text", [](Step& s) { s.attrs.set("name", int64_t{1}); });
  expect_fused_refused("a scratch value has -1 bytes", [](Step& s) { s.scratch_bytes[0] = -1; });
  expect_fused_refused("no part writes all of scratch value 0",
                       [](Step& s) { s.scratch_bytes[0] += 4; });
  expect_fused_refused("no part writes all of result 0", [](Step& s) {
    s.parts[1].results[0].space = Space::kStepScratch;
    s.parts[1].results[0].index = 1;
    s.scratch_bytes.push_back(s.scratch_bytes[0]);
  });
  expect_step_refused("only fused steps have parts", 0, [](Step& s) { s.parts = {s}; });
  expect_step_refused("only parts of a fused step lie in", 2,
                      [](Step& s) { s.operands[0].space = Space::kStepScratch; });
  // What the other checks say of every step holds for a fused one.
  expect_fused_refused("reaches to byte", [](Step& s) { s.operands[0].offset_bytes = 1 << 20; });
  expect_fused_refused("a result has no place", [](Step& s) { s.results[0] = {}; });
}

TEST(CheckManifest, PartsOfFusedSteps) {
  expect_fused_refused("part 0 (exchange)", [](Step& s) { s.parts[0].op = "exchange"; });
  expect_fused_refused("part 1 (sum up)", [](Step& s) { s.parts[1].op = "sum up"; });
  expect_fused_refused("a part of a step has parts", [](Step& s) { s.parts[1].parts = s.parts; });
  expect_fused_refused("a part of a step has parts", [](Step& s) { s.parts[1].op = kFused; });
  expect_fused_refused("operand weight is missing", [](Step& s) { s.parts[0].operands.resize(1); });
  expect_fused_refused("attribute alpha",
                       [](Step& s) { s.parts[1].attrs.set("alpha", std::string("one")); });
  expect_fused_refused("its rule gives", [](Step& s) {
    s.parts[1].operands[1].type.shape = {1, kOut};
    s.parts[1].operands[1].strides = {kOut, 1};
    s.parts[0].results[0].type.shape = s.parts[1].operands[0].type.shape = {kRows / 2, kOut};
    s.scratch_bytes[0] /= 2;
  });
  expect_fused_refused("buffer 3 of 3 does not exist",
                       [](Step& s) { s.parts[1].operands[1].index = 3; });
  expect_fused_refused("buffer 1 of 1 does not exist",
                       [](Step& s) { s.parts[1].operands[0].index = 1; });
  expect_fused_refused("buffer -1 of 1", [](Step& s) { s.parts[1].results[0].index = -1; });
  expect_fused_refused("lies in its operands, results and scratch", [](Step& s) {
    s.parts[1].operands[1].space = Space::kParameter;
    s.parts[1].operands[1].index = 0;
  });
  expect_fused_refused("a part writes to results and scratch alone",
                       [](Step& s) { s.parts[1].results[0].space = Space::kStepOperand; });
  expect_fused_refused("reaches to byte 1072 of 256", [](Step& s) {
    s.parts[1].operands[0].strides = {4 * kOut, 5};
  });
  expect_fused_refused("starts at byte -4",
                       [](Step& s) { s.parts[1].operands[0].offset_bytes = -4; });
  expect_fused_refused("another dtype than its step",
                       [](Step& s) { s.parts[1].operands[1].type.dtype = DType::kI32; });
  expect_fused_refused("panels can only be read as a whole",
                       [](Step& s) { s.parts[0].operands[1].type.shape[0] = 5; });
  expect_fused_refused("two parts write the same bytes",
                       [](Step& s) { s.parts.push_back(s.parts[1]); });
  expect_fused_refused("share memory", [](Step& s) {
    s.results[0].strides[0] = s.parts[1].results[0].strides[0] = 0;
  });
}

// A result may take an operand's memory where one part alone reads it, element by element.
TEST(CheckManifest, FusedStepsInPlace) {
  const auto in_place = [] {
    Manifest manifest = fused_manifest();
    ChipPlan& chip = manifest.plans[0].chips[0];
    std::vector<Step>& steps = chip.programs[0].steps;
    Step& fused = steps[0];
    // A step before makes `old`; x w^T + old lies over it; a step behind copies it to the output.
    Buffer old = buffer(Space::kArena, -1, 0, {DType::kF32, {kRows, kOut}});
    const auto alone = [](const char* op, std::vector<Buffer> operands, Buffer result) {
      return Step{.op = op,
                  .attrs = {},
                  .operands = std::move(operands),
                  .results = {std::move(result)},
                  .begins = {},
                  .source = "",
                  .barrier_before = true};
    };
    const Step before = alone("linear", {fused.operands[0], fused.operands[1], Buffer{}}, old);
    Buffer sum = old;
    sum.written_by = 1;
    const Step behind = alone("clone", {sum}, fused.results[0]);
    fused.results[0] = old;
    old.written_by = 0;
    fused.operands[2] = old;
    fused.parts[1].operands[1] = buffer(Space::kStepOperand, 2, 0, old.type);
    steps = {before, fused, behind};
    chip.programs[0].arena_bytes = chip.arena_bytes = kRows * kOut * 4;
    return manifest;
  };
  EXPECT_EQ(refusal(in_place()), "accepted");
  Manifest manifest = in_place();
  Step& fused = manifest.plans[0].chips[0].programs[0].steps[1];
  // Through another operator that works in place.
  Step neg{.op = "neg",
           .attrs = {},
           .operands = {fused.parts[1].operands[1]},
           .results = {buffer(Space::kStepScratch, 1, 0, fused.results[0].type)},
           .begins = {},
           .source = "",
           .barrier_before = true};
  fused.scratch_bytes.push_back(kRows * kOut * 4);
  fused.parts[1].operands[1] = neg.results[0];
  fused.parts[1].operands[1].written_by = 1;
  fused.parts.insert(fused.parts.begin() + 1, neg);
  EXPECT_EQ(refusal(manifest), "accepted");
  fused.parts[2].operands[0] = neg.operands[0];  // a second reader, which may be late
  EXPECT_NE(refusal(manifest).find("result 0 overlaps operand 2"), std::string::npos)
      << refusal(manifest);
}

TEST(CheckManifest, OverwrittenValuesAreNoticed) {
  // The linear runs again into the gathered value before the sum reads it.
  const auto expect = [](const std::string& part, int64_t offset_bytes) {
    expect_refused(part, [&](ChipPlan& chip) {
      std::vector<Step>& steps = chip.programs[0].steps;
      Step again = steps[0];
      again.results[0].offset_bytes = offset_bytes;
      steps.insert(steps.begin() + 2, again);
    });
  };
  expect(
      "it reads bytes 256 to 512 of the arena as those of step 1, but more than one step wrote "
      "them last",
      256 + 64);
}

TEST(CheckManifest, OperandsComeFromTheStepsThatTheySay) {
  // As if the linear before were enough, or what lay there before the run.
  expect_step_refused("as those of step 0, but step 1 wrote them last", 2,
                      [](Step& s) { s.operands[0].written_by = 0; });
  expect_step_refused("as those of no step, but step 1 wrote them last", 2,
                      [](Step& s) { s.operands[0].written_by = -1; });
  expect_step_refused("as those of step 1, but more than one step wrote them last", 2,
                      [](Step& s) { s.operands[0].offset_bytes = 128; });
  expect_step_refused("of the arena as those of step 0, but no step wrote them last", 1,
                      [](Step& s) { s.operands[0].offset_bytes = 160; });
  expect_step_refused("of an input as those of step 3, but no step wrote them last", 0,
                      [](Step& s) { s.operands[0].written_by = 3; });
  expect_step_refused("of a parameter as those of step 0", 2,
                      [](Step& s) { s.operands[1].written_by = 0; });
}

// A kernel that counts on other strides would read or write outside of what was checked.
TEST(CheckManifest, Strides) {
  expect_step_refused("operand 0 of shape [4, 8] has strides [1, 4]", 0, [](Step& s) {
    s.operands[0].strides = {1, 4};
  });
  expect_step_refused("result 0 of shape [4, 10] has strides [1, 4]", 0, [](Step& s) {
    s.results[0].strides = {1, 4};
  });
  expect_step_refused("operand 0 of shape [4, 10] has strides [9, 1]", 1, [](Step& s) {
    s.operands[0].strides = {9, 1};
  });
  for (const Strides& strides : {Strides{0, 1}, Strides{15, 1}, Strides{1, 1}, Strides{1, 3}})
    expect_step_refused("elements of result 0 of shape [4, 16] with strides " + to_string(strides) +
                            " share memory",
                        2, [&](Step& s) { s.results[0].strides = strides; });
}

std::string refusal_of_outputs(const std::function<void(Plan&)>& change) {
  Manifest manifest = small_manifest();
  change(manifest.plans[1]);
  return refusal(manifest);
}

Step& last_step(Plan& plan, size_t chip) { return plan.chips[chip].programs[0].steps[2]; }

// Instead of the sum the chip copies so much of the gathered product to these elements of y.
void copy_to(Plan& plan, size_t chip, const Shape& shape, const Strides& strides, int64_t offset) {
  const TensorType type{DType::kF32, shape};
  Step& step = last_step(plan, chip);
  step.op = "clone";
  step.attrs = {};
  step.operands = {buffer(Space::kArena, -1, 256, type, 1)};
  step.results = {{Space::kOutput, 0, offset * 4, type, strides}};
}

TEST(CheckManifest, OutputsAreWrittenOnceAndWholly) {
  const std::string where = "the plan for 2 chips: graph forward, output y: ";
  EXPECT_EQ(refusal_of_outputs([](Plan& p) { last_step(p, 0) = last_step(p, 1); }),
            where + "the chips write 0 of its 64 elements");
  EXPECT_EQ(refusal_of_outputs([](Plan& p) { last_step(p, 1) = last_step(p, 0); }),
            where + "chips 0 and 1 write the same elements");
  EXPECT_EQ(
      refusal_of_outputs([](Plan& p) { p.chips[0].programs[0].steps.push_back(last_step(p, 0)); }),
      where + "step 3 writes it a second time");
  EXPECT_EQ(refusal_of_outputs([](Plan& p) {
              copy_to(p, 0, {4, 8}, {16, 1}, 0);
            }),
            where + "the chips write 32 of its 64 elements");
  // y is [4, 16]: rows of 15, columns that run into the next row, every second column.
  EXPECT_EQ(refusal_of_outputs([](Plan& p) {
              copy_to(p, 0, {4, 8}, {15, 1}, 0);
            }),
            where + "what step 2 writes is no block of it");
  EXPECT_EQ(refusal_of_outputs([](Plan& p) {
              copy_to(p, 0, {3, 8}, {16, 1}, 12);
            }),
            where + "what step 2 writes is no block of it");
  EXPECT_EQ(refusal_of_outputs([](Plan& p) {
              copy_to(p, 0, {4, 8}, {16, 2}, 0);
            }),
            where + "what step 2 writes is no block of it");
}

TEST(CheckManifest, OutputsInBlocks) {
  const std::string where = "the plan for 2 chips: graph forward, output y: ";
  // Columns beside each other, those of chip 0 as two heads of 4.
  EXPECT_EQ(refusal_of_outputs([](Plan& p) {
              copy_to(p, 0, {2, 4, 4}, {4, 16, 1}, 0);
              copy_to(p, 1, {4, 8}, {16, 1}, 8);
            }),
            "accepted");
  // Rows below each other, as one dimension.
  EXPECT_EQ(refusal_of_outputs([](Plan& p) {
              copy_to(p, 0, {48}, {1}, 16);
              copy_to(p, 1, {16, 1}, {1, 1}, 0);
            }),
            "accepted");
  EXPECT_EQ(refusal_of_outputs([](Plan& p) {
              copy_to(p, 0, {2, 4, 4}, {4, 16, 1}, 0);
              copy_to(p, 1, {4, 9}, {16, 1}, 7);
            }),
            where + "chips 0 and 1 write the same elements");
}

TEST(CheckManifest, ExchangesThatMeetTogetherShareNoMemory) {
  const auto together = [](Step& step) { step.attrs.set("with_previous", true); };
  expect_refused("but there is none", [&](ChipPlan& chip) {
    together(chip.programs[0].steps[1]);  // after the linear
  });
  expect_refused("uses the same memory", [&](ChipPlan& chip) {
    std::vector<Step>& steps = chip.programs[0].steps;
    Step again = steps[1];  // into the same place
    together(again);
    steps.insert(steps.begin() + 2, again);
  });
}

TEST(CheckManifest, ChipsThatDoNotFitEachOther) {
  Manifest manifest = small_manifest();
  manifest.plans[1].chips[1].programs[0].steps[1].attrs.set("combine", std::string("sum"));
  EXPECT_NE(refusal(manifest).find("differs between chips 0 and 1"), std::string::npos);
  manifest = small_manifest();
  manifest.plans[1].chips[1] = manifest.plans[0].chips[0];
  EXPECT_NE(refusal(manifest).find("chip 0 has 1 exchanges and chip 1 has 0"), std::string::npos)
      << refusal(manifest);
  manifest = small_manifest();
  manifest.plans[1].chips.pop_back();
  EXPECT_NE(refusal(manifest).find("it has 1 chips"), std::string::npos);
  manifest = small_manifest();
  manifest.plans[1].n_chips = 1;
  EXPECT_NE(refusal(manifest).find("a plan too many"), std::string::npos);
  expect_refused("states an arena", [](ChipPlan& c) { c.arena_bytes *= 2; });
  expect_refused("it needs 416 bytes for transfers, the chip states 415",
                 [](ChipPlan& c) { c.transfer_bytes = 415; });
  expect_refused("the arena has", [](ChipPlan& c) { c.programs[0].arena_bytes *= 2; });
  expect_refused("programs for 1 graphs", [](ChipPlan& c) { c.programs.clear(); });
}

// Flips every bit of an encoded part; it is refused, or decodes to something that check_manifest
// can judge.
void flip_all(const std::string& bytes,
              const std::function<void(std::span<const std::byte>, Manifest&)>& decode) {
  // FlatBuffers want their buffer aligned as in the file.
  std::vector<uint64_t> room(bytes.size() / 8 + 1);
  auto* data = reinterpret_cast<std::byte*>(room.data());
  std::memcpy(data, bytes.data(), bytes.size());
  for (size_t at = 0; at < bytes.size(); ++at)
    for (int bit = 0; bit < 8; ++bit) {
      data[at] ^= std::byte{1} << bit;
      Manifest manifest = small_manifest();
      try {
        decode({data, bytes.size()}, manifest);
        check_manifest(manifest, anything_fuses);
      } catch (const Error& error) {
        ASSERT_EQ(error.code(), ErrorCode::kBrokenFile)
            << "byte " << at << " bit " << bit << ": " << error.what();
      }
      data[at] ^= std::byte{1} << bit;
    }
}

TEST(DamagedFlatBuffers, Program) {
  flip_all(encode_program(small_manifest().plans[1].chips[0].programs[0]),
           [](std::span<const std::byte> bytes, Manifest& manifest) {
             manifest.plans[1].chips[0].programs[0] = decode_program(bytes, "program");
           });
}

TEST(DamagedFlatBuffers, FusedProgram) {
  flip_all(encode_program(fused_manifest().plans[0].chips[0].programs[0]),
           [](std::span<const std::byte> bytes, Manifest& manifest) {
             manifest = fused_manifest();
             manifest.plans[0].chips[0].programs[0] = decode_program(bytes, "program");
           });
}

TEST(DamagedFlatBuffers, Chip) {
  flip_all(encode_chip(small_manifest().plans[1].chips[0]),
           [](std::span<const std::byte> bytes, Manifest& manifest) {
             ChipPlan chip = decode_chip(bytes, "chip");
             chip.programs = manifest.plans[1].chips[0].programs;
             manifest.plans[1].chips[0] = std::move(chip);
           });
}

TEST(DamagedFlatBuffers, Manifest) {
  flip_all(encode_manifest(small_manifest()),
           [](std::span<const std::byte> bytes, Manifest& manifest) {
             std::vector<Plan> plans = std::move(manifest.plans);
             manifest = decode_manifest(bytes, "manifest");
             for (size_t p = 0; p < std::min(plans.size(), manifest.plans.size()); ++p)
               manifest.plans[p].chips = plans[p].chips;
           });
}

}  // namespace
}  // namespace shardwright::pef
