// int8 weights, compiled and run: every number of chips equals the interpreter on the same weights.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "compiler/compile.h"
#include "passes/quantize_weights.h"
#include "runtime/run_session.h"
#include "shard/models.h"

namespace shardwright::compiler {
namespace {

// Of the largest element; activations of the dtype are rounded after each step.
double tolerance_of(DType dtype) { return dtype == DType::kF32 ? 1e-5 : 3e-2; }

void expect_close(const ir::RefMap& got, const ir::RefMap& want) {
  for (const auto& [name, result] : got) {
    const std::vector<double>& expected = want.at(name).data;
    double most = 0;
    for (const double value : expected) most = std::max(most, std::abs(value));
    for (size_t i = 0; i < expected.size(); ++i)
      ASSERT_NEAR(result.data[i], expected[i], tolerance_of(result.type.dtype) * most)
          << name << " element " << i;
  }
}

TEST(Int8, EveryNumberOfChipsEqualsTheInterpreter) {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("int8_" + std::to_string(getpid()) + ".pef"))
          .string();
  for (const DType dtype : {DType::kF32, DType::kBF16})
    for (const bool tied : {false, true})
      for (const int optimization : {0, 3}) {
        shard::Dims dims;
        dims.dtype = dtype;
        const shard::Model model = shard::llama(dims, false, tied);
        ir::Module quantized = model.module;
        passes::quantize_weights(quantized);
        const ir::RefMap want = ir::interpret(quantized, quantized.graphs[0], model.inputs);
        CompileOptions options;
        options.output_path = path;
        options.mode = shard::Mode::kWeight;
        options.n_chips = {1, 2, 3};
        options.optimization = optimization;
        options.int8_weights = true;
        const CompileResult result = compile(model.module, options);
        for (const pef::Tensor& tensor : result.manifest.tensors)
          EXPECT_TRUE(tensor.type.ndim() < 2 || tensor.type.dtype == DType::kI8 || tensor.constant)
              << tensor.name << " is " << to_string(tensor.type);
        for (const int n : options.n_chips) {
          SCOPED_TRACE(std::string(dtype_name(dtype)) + (tied ? ", tied" : "") + ", -o" +
                       std::to_string(optimization) + ", " + std::to_string(n) + " chips");
          runtime::SessionOptions session;
          session.n_chips = n;
          expect_close(runtime::run_session(*runtime::Session::load(path, session), model.inputs),
                       want);
        }
      }
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace shardwright::compiler
