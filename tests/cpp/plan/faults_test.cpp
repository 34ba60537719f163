// Planted faults: whatever the planner might get wrong in a step, check_manifest refuses.
#include <gtest/gtest.h>

#include <functional>

#include "base/error.h"
#include "ir/text.h"
#include "pef/read.h"
#include "plan/random_graph.h"
#include "plan/run_plan.h"

namespace shardwright::plan {
namespace {

using pef::Buffer;
using pef::Space;
using pef::Step;

constexpr unsigned kSeeds = 60;

bool refused(const pef::Manifest& manifest) {
  try {
    pef::check_manifest(manifest);
    return false;
  } catch (const Error&) {
    return true;
  }
}

// The plans of random graphs; `plant` gets the steps and what to call for each fault in them.
void for_random_plans(
    const std::function<void(std::vector<Step>&, const std::function<void(const std::string&)>&)>&
        plant) {
  int planted = 0;
  for (unsigned seed = 1; seed <= kSeeds; ++seed) {
    const ir::Module module = RandomGraph(seed).module();
    pef::Manifest manifest = manifest_of(module, {{module.graphs[0]}});
    ASSERT_FALSE(refused(manifest));
    std::vector<Step>& steps = manifest.plans[0].chips[0].programs[0].steps;
    plant(steps, [&](const std::string& what) {
      ++planted;
      EXPECT_TRUE(refused(manifest)) << what << ", seed " << seed << "\n" << ir::print(module);
    });
    EXPECT_FALSE(refused(manifest)) << "a fault was left in the plan";
  }
  EXPECT_GT(planted, static_cast<int>(kSeeds) / 2);
}

std::string at(size_t step, size_t buffer) {
  return "step " + std::to_string(step) + " buffer " + std::to_string(buffer);
}

TEST(PlantedFaults, ADroppedBarrier) {
  for_random_plans([](std::vector<Step>& steps, const auto& expect_refused) {
    for (size_t s = 0; s < steps.size(); ++s) {
      if (!steps[s].barrier_before) continue;
      steps[s].barrier_before = false;
      expect_refused(at(s, 0));
      steps[s].barrier_before = true;
    }
  });
}

// Arena offsets that some buffer has: where another value lies, or lay.
std::vector<int64_t> arena_offsets(const std::vector<Step>& steps) {
  std::vector<int64_t> offsets;
  for (const Step& step : steps)
    for (const auto* list : {&step.operands, &step.results})
      for (const Buffer& buffer : *list)
        if (buffer.space == Space::kArena && buffer.type.count() > 0)
          offsets.push_back(buffer.offset_bytes);
  std::sort(offsets.begin(), offsets.end());
  offsets.erase(std::unique(offsets.begin(), offsets.end()), offsets.end());
  return offsets;
}

void move_everywhere(Buffer& buffer, const std::vector<int64_t>& offsets,
                     const std::function<void()>& expect_refused) {
  const int64_t right = buffer.offset_bytes;
  for (const int64_t offset : offsets) {
    if (offset == right) continue;
    buffer.offset_bytes = offset;
    expect_refused();
  }
  buffer.offset_bytes = right;
}

// A wrong alias, or an operand that was thought to live on. (Another part of the right result is
// nothing that the reader could know: values are compared elsewhere.)
TEST(PlantedFaults, AnOperandReadFromAnotherPlace) {
  for_random_plans([](std::vector<Step>& steps, const auto& expect_refused) {
    const std::vector<int64_t> offsets = arena_offsets(steps);
    for (size_t s = 0; s < steps.size(); ++s)
      for (size_t o = 0; o < steps[s].operands.size(); ++o) {
        Buffer& operand = steps[s].operands[o];
        if (operand.space != Space::kArena || operand.type.count() == 0) continue;
        const size_t writer = static_cast<size_t>(operand.written_by);
        const Range made = pef::byte_range(steps[writer].results[0]);
        move_everywhere(operand, offsets, [&] {
          const Range read = pef::byte_range(operand);
          if (read.begin < made.begin || read.end > made.end) expect_refused(at(s, o));
        });
      }
  });
}

// Two storages in one place, in place over a value that is read later, a lifetime that ends early.
TEST(PlantedFaults, AResultWrittenToAnotherPlace) {
  for_random_plans([](std::vector<Step>& steps, const auto& expect_refused) {
    const std::vector<int64_t> offsets = arena_offsets(steps);
    for (size_t s = 0; s < steps.size(); ++s) {
      Buffer& result = steps[s].results[0];
      bool read = false;  // as a whole: who reads a part may find another part there
      for (const Step& step : steps)
        for (const Buffer& operand : step.operands)
          read |= operand.written_by == static_cast<int>(s) && operand.type.count() > 0 &&
                  pef::byte_range(operand).begin == pef::byte_range(result).begin &&
                  pef::byte_range(operand).end == pef::byte_range(result).end;
      if (read && result.space == Space::kArena && steps[s].results.size() == 1)
        move_everywhere(result, offsets, [&] { expect_refused(at(s, 0)); });
    }
  });
}

// A view's reader that does not take its strides, or one that has them wrong.
TEST(PlantedFaults, StridesOfALinear) {
  for_random_plans([](std::vector<Step>& steps, const auto& expect_refused) {
    for (size_t s = 0; s < steps.size(); ++s) {
      Buffer& x = steps[s].operands[0];
      if (steps[s].op != "linear" || x.type.ndim() < 2 || x.type.shape.back() < 2) continue;
      const Strides right = x.strides;
      std::swap(x.strides.back(), x.strides[x.strides.size() - 2]);
      if (x.strides != right) expect_refused(at(s, 0));
      x.strides = right;
    }
  });
}

TEST(PlantedFaults, AnOutputThatIsNotWritten) {
  for_random_plans([](std::vector<Step>& steps, const auto& expect_refused) {
    for (size_t s = 0; s < steps.size(); ++s)
      for (Buffer& result : steps[s].results) {
        if (result.space != Space::kOutput || result.type.count() == 0) continue;
        const Buffer right = result;
        result.index = (result.index + 1) % 2;
        expect_refused(at(s, 0) + " into another output");
        result = right;
      }
  });
}

}  // namespace
}  // namespace shardwright::plan
