// The passes one by one: each file of tests/golden/<pass> is a module, "# after", and what the pass
// makes of it. A file without "# after" is a near miss, which the pass must leave alone. Both
// modules must compute the same. SHARDWRIGHT_UPDATE_GOLDEN=1 writes what stands after "# after"
// anew.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <random>

#include "ir/interpret.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/canonicalize.h"
#include "passes/expand.h"

namespace shardwright::passes {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kAfter = "\n# after\n";
constexpr unsigned kSeed = 20240229;

std::string read_file(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<fs::path> golden_files() {
  std::vector<fs::path> files;
  for (const auto& entry :
       fs::recursive_directory_iterator(fs::path(SHARDWRIGHT_TEST_DATA) / "golden"))
    if (entry.path().extension() == ".ir") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

// "canonicalize": all passes, with what stands before and behind them.
void run_pass(const std::string& name, ir::Module& module) {
  if (name == "canonicalize") return canonicalize(module);
  for (const Pass& pass : canonical_passes()) {
    if (name != pass.name) continue;
    for (ir::Graph& graph : module.graphs) pass.run(module, graph);
    return;
  }
  ADD_FAILURE() << "there is no pass " << name;
}

// Small integers, whose sums are exact.
double random_element(std::mt19937& random, DType dtype) {
  if (dtype == DType::kBool) return static_cast<double>(random() % 2);
  if (is_integer(dtype)) return static_cast<double>(random() % 3);
  return static_cast<double>(random() % 7) - 3;
}

// Elements for the tensors that the text gives none.
void fill_tensors(ir::Module& module, std::mt19937& random) {
  for (ir::LogicalTensor& tensor : module.tensors) {
    if (tensor.bytes.data != nullptr) continue;
    const DType dtype = tensor.type.dtype;
    std::byte* data = nullptr;
    tensor.bytes = SharedBytes::allocate(tensor.type.bytes(), &data);
    for (int64_t i = 0; i < tensor.type.count(); ++i)
      store_element(dtype, data + i * dtype_bytes(dtype), random_element(random, dtype));
  }
}

ir::RefMap random_inputs(const ir::Graph& graph, std::mt19937& random) {
  ir::RefMap inputs;
  for (const ir::Input& input : graph.inputs) {
    if (input.role != ir::InputRole::kUserInput) continue;
    ops::RefTensor tensor(graph.type(input.value));
    for (double& element : tensor.data) element = random_element(random, tensor.type.dtype);
    inputs[input.name] = std::move(tensor);
  }
  return inputs;
}

// Of all graphs, one after the other. Operators that are only written in terms of others have no
// reference: graphs with such are expanded first.
std::vector<ir::RefMap> results(ir::Module module, const std::vector<ir::RefMap>& inputs,
                                const ir::InterpretOptions& options) {
  std::vector<ir::RefMap> all;
  for (size_t i = 0; i < module.graphs.size(); ++i) {
    ir::Graph& graph = module.graphs[i];
    const bool has_references =
        std::all_of(graph.nodes.begin(), graph.nodes.end(),
                    [](const ir::Node& node) { return node.op->reference != nullptr; });
    if (!has_references) expand(module, graph);
    all.push_back(ir::interpret(module, graph, inputs[i], options));
  }
  return all;
}

void expect_same(const ir::RefMap& before, const ir::RefMap& after) {
  ASSERT_EQ(before.size(), after.size());
  for (const auto& [name, expected] : before) {
    const ops::RefTensor& result = after.at(name);
    ASSERT_EQ(result.type, expected.type) << name;
    for (size_t i = 0; i < expected.data.size(); ++i) {
      if (std::isnan(expected.data[i]) && std::isnan(result.data[i])) continue;
      // Constants that a pass makes (1 / n of a mean) are f32.
      ASSERT_NEAR(result.data[i], expected.data[i], 1e-6 * (1 + std::abs(expected.data[i])))
          << name << " element " << i << ", seed " << kSeed;
    }
  }
}

class Golden : public testing::TestWithParam<fs::path> {};

TEST_P(Golden, Pass) {
  const std::string text = read_file(GetParam());
  const size_t end = text.find(kAfter);
  const bool near_miss = end == std::string::npos;
  const std::string before = near_miss ? text : text.substr(0, end + 1);
  ir::Module module = ir::parse(before);
  std::mt19937 random(kSeed);
  fill_tensors(module, random);
  const std::string untouched = ir::print(module);
  std::vector<ir::RefMap> inputs;
  for (const ir::Graph& graph : module.graphs) {
    ir::verify(module, graph, ir::Stage::kImported);
    inputs.push_back(random_inputs(graph, random));
  }
  const std::string pass = GetParam().parent_path().filename().string();
  // Folded constants are rounded as a run would; nothing else may depend on rounding.
  const ir::InterpretOptions options{.round_to_dtype = pass == "fold_constants"};
  const std::vector<ir::RefMap> expected = results(module, inputs, options);

  run_pass(pass, module);
  for (const ir::Graph& graph : module.graphs) ir::verify(module, graph, ir::Stage::kImported);
  const std::vector<ir::RefMap> got = results(module, inputs, options);
  for (size_t i = 0; i < expected.size(); ++i) expect_same(expected[i], got[i]);
  const std::string after = ir::print(module);
  if (near_miss) {
    EXPECT_EQ(after, untouched);
  } else if (std::getenv("SHARDWRIGHT_UPDATE_GOLDEN") != nullptr) {
    std::ofstream(GetParam()) << before << kAfter.substr(1) << after;
  } else {
    EXPECT_EQ(after, text.substr(end + kAfter.size()));
    EXPECT_NE(after, untouched) << "a near miss has no \"# after\"";
  }
}

std::string test_name(const testing::TestParamInfo<fs::path>& info) {
  return info.param.parent_path().filename().string() + "_" + info.param.stem().string();
}

INSTANTIATE_TEST_SUITE_P(Files, Golden, testing::ValuesIn(golden_files()), test_name);

// A new pass brings what it recognises and what it must not.
TEST(GoldenFiles, EveryPassHasBothKinds) {
  std::map<std::string, std::pair<int, int>> counts;
  for (const fs::path& path : golden_files()) {
    auto& [changes, near_misses] = counts[path.parent_path().filename().string()];
    ++(read_file(path).find(kAfter) != std::string::npos ? changes : near_misses);
  }
  for (const Pass& pass : canonical_passes()) {
    EXPECT_GT(counts[pass.name].first, 0) << "tests/golden/" << pass.name;
    EXPECT_GT(counts[pass.name].second, 0) << "tests/golden/" << pass.name;
  }
}

}  // namespace
}  // namespace shardwright::passes
