// The bytes that the report of a plan states are those that the chips count when it runs.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include <nlohmann/json.hpp>

#include "compiler/compile.h"
#include "frontend/pt2.h"
#include "runtime/session.h"

namespace shardwright::runtime {
namespace {

TEST(Bytes, CountedAreThoseOfTheReport) {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("bytes_" + std::to_string(getpid()) + ".pef"))
          .string();
  compiler::CompileOptions options;
  options.output_path = path;
  options.mode = shard::Mode::kWeight;
  options.n_chips = {2, 3, 4};
  const compiler::CompileResult compiled =
      compiler::compile(frontend::read_pt2(SHARDWRIGHT_TEST_DATA "/data/mlp.pt2"), options);
  const nlohmann::json report = nlohmann::json::parse(compiled.report_json);
  const std::vector<float> input(48, 0.5F);
  std::vector<float> output(20);
  for (const nlohmann::json& plan : report.at("plans")) {
    const auto n = plan.at("n_chips").get<size_t>();
    const auto session =
        Session::load(path, {.n_chips = static_cast<int>(n), .threads_per_chip = 1});
    const auto profiles = session->profile(0, {{{DType::kF32, {2, 24}}, input.data()}},
                                           {{{DType::kF32, {2, 10}}, output.data()}}, 2);
    ASSERT_EQ(profiles.size(), n);
    int64_t stated = 0, counted = 0;
    for (const nlohmann::json& exchange : plan.at("graphs").at(0).at("exchanges")) {
      const auto step = exchange.at("step").get<size_t>();
      for (size_t chip = 0; chip < n; ++chip) {
        EXPECT_EQ(profiles[chip].at(step).op, "exchange");
        const auto bytes = exchange.at("received_bytes").at(chip).get<int64_t>();
        EXPECT_EQ(profiles[chip].at(step).received_bytes, 2 * bytes) << n << " chips";
        stated += 2 * bytes;
      }
    }
    for (const auto& chip : profiles)
      for (const StepProfile& step : chip) counted += step.received_bytes;
    EXPECT_EQ(counted, stated) << n << " chips";
    EXPECT_GT(counted, 0) << n << " chips";
  }
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace shardwright::runtime
