// A small Llama on three chips, to stop, kill and confuse: with the places where chips meet.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "compiler/compile.h"
#include "ops/exchange.h"
#include "runtime/run_session.h"
#include "shard/models.h"

namespace shardwright::runtime {

inline constexpr int kFaultyChips = 3;

// A test with a PEF; no thread of ours is alive before `load`.
class FaultyLlama : public ::testing::TestWithParam<int> {  // threads a chip
 protected:
  void SetUp() override {
    path_ = (std::filesystem::temp_directory_path() /
             ("fault_" + std::to_string(GetParam()) + "_" + std::to_string(getpid()) + ".pef"))
                .string();
    compiler::CompileOptions options;
    options.output_path = path_;
    options.mode = shard::Mode::kWeight;
    options.n_chips = {kFaultyChips};
    const auto result = compiler::compile(model_.module, options);
    const auto& steps = result.manifest.plans[0].chips[1].programs[0].steps;
    for (size_t i = 0; i < steps.size(); ++i)
      if (steps[i].op == ops::exchange.name) exchanges_.push_back(static_cast<int>(i));
    last_step_ = static_cast<int>(steps.size()) - 1;
    ASSERT_GE(exchanges_.size(), 5U);
    ASSERT_GT(last_step_, exchanges_.back());
  }
  void TearDown() override { std::filesystem::remove(path_); }

  std::unique_ptr<Session> load(std::function<void(int chip, int step)> fault = {}) const {
    SessionOptions options;
    options.threads_per_chip = GetParam();
    options.deadline_ms = 300;
    options.fault = std::move(fault);
    return Session::load(path_, options);
  }
  // The steps before which something happens: the first, a middle, the last exchange.
  std::vector<int> places() const {
    return {exchanges_.front(), exchanges_[exchanges_.size() / 2], exchanges_.back()};
  }

  const shard::Model model_ = shard::llama({.layers = 2});
  std::string path_;
  std::vector<int> exchanges_;  // steps of chip 1
  int last_step_ = 0;
};

}  // namespace shardwright::runtime
