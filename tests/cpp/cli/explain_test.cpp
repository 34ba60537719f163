// Folding of layers; measurements beside a PEF; names in the page.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "cli/blocks.h"
#include "cli/explanation.h"
#include "cli/measured.h"
#include "ir/text.h"

namespace shardwright::cli {
namespace {

using Json = nlohmann::ordered_json;

TEST(Fold, ALayerIsTheFirstNumberOfAPath) {
  EXPECT_EQ(layer_of("model.layers.17.mlp.up_proj"), (Layer{"model.layers", 17}));
  EXPECT_EQ(layer_of("encoder.3"), (Layer{"encoder", 3}));
  EXPECT_EQ(layer_of("0.weight"), (Layer{"", 0}));
  EXPECT_EQ(layer_of("stages.1.blocks.2.norm"), (Layer{"stages", 1}));
  EXPECT_EQ(layer_of("model.embed_tokens"), std::nullopt);
  EXPECT_EQ(layer_of("conv2d.layer1"), std::nullopt);
  EXPECT_EQ(layer_of(""), std::nullopt);
}

TEST(Fold, Ranges) {
  EXPECT_EQ(ranges_text({0, 1, 2, 3, 5, 8, 9}), "0-3, 5, 8-9");
  EXPECT_EQ(ranges_text({4}), "4");
  EXPECT_EQ(ranges_text({}), "");
}

// Five layers of one relu; the one of layer 2 was decided otherwise. What belongs to no layer
// stands before, among and behind them.
constexpr const char* kLayers = R"(
graph forward {
  input %x: f32[4, 8] = user_input "x"
  %start: f32[4, 8] = relu(%x) @ "model.embed" "m.py":1
  %a: f32[4, 8] = relu(%start) @ "model.layers.0.act" "m.py":1
  %b: f32[4, 8] = relu(%a) @ "model.layers.1.act" "m.py":1
  %late: f32[4, 8] = relu(%x) @ "model.rotary" "m.py":1
  %c: f32[4, 8] = relu(%b) @ "model.layers.2.act" "m.py":1
  %d: f32[4, 8] = relu(%c) @ "model.layers.3.act" "m.py":1
  %e: f32[4, 8] = relu(%d) @ "model.layers.4.act" "m.py":1
  %end: f32[4, 8] = relu(%e) @ "model.norm" "m.py":1
  output %end = user_output "y"
  output %late = user_output "z"
}
)";

Json exchange(int forced, int producer, const std::string& by) {
  return {{"kind", "all_reduce"},     {"bytes_moved", 256},   {"forced_by", by},
          {"forced_by_node", forced}, {"producer", producer}, {"readers", {producer + 1}}};
}

TEST(Blocks, LayersThatAreAlikeAreOne) {
  const ir::Module module = ir::parse(kLayers);
  const Json report = {
      {"decision_of_node", {0, 1, 1, 0, 2, 1, 1, 0}},
      {"exchanges",
       {exchange(1, 1, "split k of model.layers.0.act (relu)"),
        exchange(2, 2, "split k of model.layers.1.act (relu)"),
        exchange(5, 5, "split k of model.layers.3.act (relu)"),
        exchange(6, 6, "split k of model.layers.4.act (relu)"), exchange(-1, 7, "output y")}}};
  const std::vector<Block> blocks = blocks_of(module.graphs[0], report, true);
  ASSERT_EQ(blocks.size(), 4U);
  EXPECT_EQ(blocks[0].title, "before the layers");
  EXPECT_EQ(blocks[0].nodes, (std::vector<ir::NodeId>{0, 3}));
  EXPECT_EQ(blocks[1].title, "layers 0-1, 3-4");
  EXPECT_EQ(blocks[1].path, "model.layers.*");
  EXPECT_EQ(blocks[1].nodes, (std::vector<ir::NodeId>{1}));
  EXPECT_EQ(blocks[1].alike, (std::vector<std::vector<size_t>>{{0}, {1}, {2}, {3}}));
  EXPECT_EQ(blocks[2].title, "layer 2");
  EXPECT_EQ(blocks[2].path, "model.layers.2");
  EXPECT_EQ(blocks[3].title, "after the layers");
  EXPECT_EQ(blocks[3].exchanges, (std::vector<size_t>{4}));
  EXPECT_EQ(blocks_of(module.graphs[0], report, false).size(), 7U);
}

class MeasuredTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("measured_" + std::to_string(getpid()));
    std::filesystem::create_directories(folder_);
    pef_ = (folder_ / "x.pef").string();
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  static Measurement measurement(int n_chips, double seconds) {
    Measurement m{
        .graph = "forward", .n_chips = n_chips, .threads_per_chip = 1, .runs = 5, .chips = {}};
    for (int chip = 0; chip < n_chips; ++chip) m.chips.push_back({{seconds, 0.25, 96}});
    return m;
  }
  std::string why_not(const std::string& digest, const std::vector<size_t>& steps) {
    return read_measurement(pef_, digest, "forward", steps).why_not;
  }
  std::string remedy(int n) const {
    return "`shardwright measure-performance " + pef_ + " --n-chips " + std::to_string(n) +
           "` measures";
  }

  std::filesystem::path folder_;
  std::string pef_;
};

TEST_F(MeasuredTest, EachPlanHasItsLast) {
  write_measurement(pef_, "d1", measurement(2, 1));
  write_measurement(pef_, "d1", measurement(3, 2));
  write_measurement(pef_, "d1", measurement(2, 4));
  const Measured two = read_measurement(pef_, "d1", "forward", {1, 1});
  ASSERT_TRUE(two.found) << two.why_not;
  EXPECT_EQ(two.found->chips[1][0].seconds, 4);
  EXPECT_EQ(two.found->chips[1][0].waited_seconds, 0.25);
  EXPECT_EQ(two.found->chips[1][0].received_bytes, 96);
  const Measured three = read_measurement(pef_, "d1", "forward", {1, 1, 1});
  ASSERT_TRUE(three.found) << three.why_not;
  EXPECT_EQ(three.found->chips[0][0].seconds, 2);
}

TEST_F(MeasuredTest, SaysWhyThereIsNone) {
  EXPECT_EQ(why_not("d1", {1, 1}), "nothing is measured yet: " + remedy(2));
  write_measurement(pef_, "d1", measurement(2, 1));
  EXPECT_EQ(why_not("d1", {1, 1, 1}), "graph forward on 3 chips is not measured yet: " + remedy(3));
  EXPECT_EQ(why_not("d2", {1, 1}),
            measured_path(pef_) + " is of another file: " + remedy(2) + " this one");
  EXPECT_EQ(why_not("d1", {1, 2}), measured_path(pef_) + " can't be read: " + remedy(2) + " anew");
  std::ofstream(measured_path(pef_)) << "{\"pef_digest\": ";
  EXPECT_EQ(why_not("d1", {1, 1}), measured_path(pef_) + " can't be read: " + remedy(2) + " anew");
  write_measurement(pef_, "d2", measurement(2, 1));  // in place of what was there
  EXPECT_EQ(why_not("d2", {1, 1}), "");
}

TEST(Page, ANameCannotEndTheData) {
  const std::string page = explanation_page({{"pef", "</script><b>"}});
  EXPECT_NE(page.find(R"({"pef":"<\/script><b>"})"), std::string::npos);
  EXPECT_EQ(page.find("</script><b>"), std::string::npos);
  EXPECT_EQ(page.find("EXPLANATION"), std::string::npos);
}

}  // namespace
}  // namespace shardwright::cli
