// The interpreter against values computed by hand: whole, in a precision, and on virtual chips.
#include "ir/interpret.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "ops/exchange.h"

namespace shardwright::ir {
namespace {

using ops::RefTensor;

RefTensor tensor(Shape shape, std::vector<double> data, DType dtype = DType::kF32) {
  RefTensor result(TensorType{dtype, std::move(shape)});
  EXPECT_EQ(result.data.size(), data.size());
  result.data = std::move(data);
  return result;
}

void expect_error(const std::string& message, ErrorCode code, const std::function<void()>& run) {
  try {
    run();
    FAIL() << "no error: " << message;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code);
    EXPECT_NE(std::string(error.what()).find(message), std::string::npos) << error.what();
  }
}

TEST(Interpret, LinearByHand) {
  const Module module = parse(R"(tensor 0 "w": f32[3, 2] parameter
tensor 1 "c": f32[] constant = [10.0]
graph g {
  input %x: f32[1, 2] = user_input "x"
  input %w: f32[2, 2] = parameter "w[0:1:3]" of 0 offset 2 strides [2, 1]
  input %c: f32[] = constant "c" of 1 offset 0 strides []
  %y: f32[1, 2] = linear(%x, %w, -)
  %z: f32[1, 2] = add(%y, %c) {alpha=1}
  output %z = user_output "z"
  output %y = user_output "y"
})");
  const RefMap inputs{{"x", tensor({1, 2}, {2, 3})}, {"w", tensor({3, 2}, {9, 9, 1, 2, 3, 4})}};
  const RefMap outputs = interpret(module, module.graphs[0], inputs);
  EXPECT_EQ(outputs.at("y").data, (std::vector<double>{8, 18}));
  EXPECT_EQ(outputs.at("z").data, (std::vector<double>{18, 28}));

  const auto run = [&](const RefMap& in) {
    return [&] { interpret(module, module.graphs[0], in); };
  };
  const RefMap no_x{{"w", inputs.at("w")}};
  expect_error("input x is missing", ErrorCode::kUsage, run(no_x));
  const RefMap no_w{{"x", inputs.at("x")}};
  expect_error("tensor w has no data", ErrorCode::kUsage, run(no_w));
  const RefMap wrong{{"x", tensor({2, 1}, {1, 2})}, {"w", inputs.at("w")}};
  expect_error("input x is f32[2, 1], the graph takes f32[1, 2]", ErrorCode::kUsage, run(wrong));
}

TEST(Interpret, RoundsToDType) {
  const Module module = parse(R"(graph g {
  input %x: bf16[1] = user_input "x"
  %y: bf16[1] = mul(%x, %x)
  output %y = user_output "y"
})");
  const RefMap inputs{{"x", tensor({1}, {1.0078125}, DType::kBF16)}};
  EXPECT_EQ(interpret(module, module.graphs[0], inputs).at("y").data[0], 1.0078125 * 1.0078125);
  EXPECT_EQ(interpret(module, module.graphs[0], inputs, {.round_to_dtype = true}).at("y").data[0],
            1.015625);
}

// x is cut by rows over two chips, w by rows too: y is a gather of columns; its sum a reduction.
std::vector<Graph> two_chips(const std::string& second_w = "w[0:1:2]") {
  const std::string all_gather =
      "{kind=\"all_gather\", combine=\"copy\", from_dim=1, from_cuts=[0, 1, 1, 2], to_dim=-1, "
      "to_cuts=[], shape=[2, 2], n=2}";
  const std::string all_reduce =
      "{kind=\"all_reduce\", combine=\"sum\", from_dim=-1, from_cuts=[], to_dim=-1, to_cuts=[], "
      "shape=[2, 1], n=2}";
  std::vector<Graph> chips;
  for (const int chip : {0, 1}) {
    const std::string at = std::to_string(chip), end = std::to_string(chip + 1);
    chips.push_back(
        parse("graph chip {\n  input %x: f32[2, 2] = user_input \"x\" piece [0:2, 0:2]\n"
              "  input %w: f32[1, 2] = parameter \"w[0]\" of 0 offset " +
              std::to_string(second_w == "same" ? 0 : 2 * chip) + " strides [2, 1] piece [" + at +
              ":" + end + ", 0:2]\n" + "  %p: f32[2, 1] = linear(%x, %w, -)\n" +
              "  %y: f32[2, 2] = exchange(%p) " + all_gather + "\n  %s: f32[2, 1] = exchange(%p) " +
              all_reduce + "\n  output %y = user_output \"y\" piece [0:2, 0:2]\n" +
              "  output %s = user_output \"s\" piece [0:2, 0:1]\n" +
              "  output %p = user_output \"p\" piece [0:2, " + at + ":" + end + "]\n}")
            .graphs[0]);
  }
  return chips;
}

TEST(InterpretChips, GatherAndReduce) {
  const Module module = parse("tensor 0 \"w\": f32[2, 2] parameter");
  const std::vector<Graph> chips = two_chips();
  for (const Graph& graph : chips) verify(module, graph, Stage::kLocal);
  const RefMap inputs{{"x", tensor({2, 2}, {1, 2, 3, 4})}, {"w", tensor({2, 2}, {1, 0, 10, 100})}};
  const RefMap outputs = interpret_chips(module, chips, inputs);
  EXPECT_EQ(outputs.at("y").data, (std::vector<double>{1, 210, 3, 430}));
  EXPECT_EQ(outputs.at("p").data, outputs.at("y").data);
  EXPECT_EQ(outputs.at("s").data, (std::vector<double>{211, 433}));
}

TEST(InterpretChips, DisagreementIsNamed) {
  const Module module = parse("tensor 0 \"w\": f32[2, 2] parameter");
  std::vector<Graph> chips = two_chips();
  const RefMap inputs{{"x", tensor({2, 2}, {1, 2, 3, 4})}, {"w", tensor({2, 2}, {1, 0, 10, 100})}};
  // Chip 1 calls its partial result whole.
  for (Graph& graph : chips) graph.outputs[2].piece = {{0, 2}, {0, 1}};
  expect_error("p, chip 1: element 0 is 210.000000, but on chip 0 1.000000", ErrorCode::kBug,
               [&] { interpret_chips(module, chips, inputs); });
  chips = two_chips();
  chips[1].nodes[2].attrs.set("combine", std::string("max"));
  expect_error("%s: chip 1 is at another exchange", ErrorCode::kBug,
               [&] { interpret_chips(module, chips, inputs); });
  chips = two_chips();
  chips[1].nodes.pop_back();
  chips[1].outputs.erase(chips[1].outputs.begin() + 1);
  expect_error("%s: chip 1 is at another exchange", ErrorCode::kBug,
               [&] { interpret_chips(module, chips, inputs); });
}

std::vector<std::vector<double>> exchanged(const ops::Exchange& exchange,
                                           std::vector<std::vector<double>> before) {
  std::vector<RefTensor> tensors;
  for (int chip = 0; chip < exchange.n; ++chip)
    tensors.push_back(tensor(exchange.from_shape(chip), before[static_cast<size_t>(chip)]));
  std::vector<const RefTensor*> pointers;
  for (const RefTensor& t : tensors) pointers.push_back(&t);
  std::vector<std::vector<double>> after;
  for (const RefTensor& t : ops::run_exchange(exchange, pointers, "%v")) after.push_back(t.data);
  return after;
}

using Pieces = std::vector<std::vector<double>>;

TEST(Exchange, AllKinds) {
  const std::vector<Range> rows{{0, 2}, {2, 3}}, columns{{0, 1}, {1, 2}};
  ops::Exchange e{.kind = "all_to_all",
                  .combine = ops::Combine::kCopy,
                  .from_dim = 0,
                  .from_cuts = rows,
                  .to_dim = 1,
                  .to_cuts = columns,
                  .shape = {3, 2},
                  .n = 2};
  EXPECT_EQ(exchanged(e, {{1, 2, 3, 4}, {5, 6}}), (Pieces{{1, 3, 5}, {2, 4, 6}}));
  e.kind = "reduce_scatter", e.from_dim = -1, e.from_cuts = {}, e.to_dim = 0, e.to_cuts = rows;
  e.combine = ops::Combine::kSum;
  const Pieces partial{{1, 2, 3, 4, 5, 6}, {10, 20, 30, 40, 50, 0}};
  EXPECT_EQ(exchanged(e, partial), (Pieces{{11, 22, 33, 44}, {55, 6}}));
  e.combine = ops::Combine::kMax;
  EXPECT_EQ(exchanged(e, partial), (Pieces{{10, 20, 30, 40}, {50, 6}}));
  e.kind = "all_reduce", e.to_dim = -1, e.to_cuts = {};
  EXPECT_EQ(exchanged(e, partial), (Pieces{{10, 20, 30, 40, 50, 6}, {10, 20, 30, 40, 50, 6}}));
}

TEST(Exchange, OverlappingAndEmptyPieces) {
  // Three chips; chip 0 and 1 share row 1, chip 2 has none.
  ops::Exchange e{.kind = "overlap_reduce",
                  .combine = ops::Combine::kSum,
                  .from_dim = 0,
                  .from_cuts = {{0, 2}, {1, 3}, {0, 0}},
                  .to_dim = 0,
                  .to_cuts = {{0, 2}, {1, 3}, {0, 0}},
                  .shape = {3},
                  .n = 3};
  EXPECT_EQ(exchanged(e, {{1, 2}, {30, 4}, {}}), (Pieces{{1, 32}, {32, 4}, {}}));
  e.combine = ops::Combine::kCopy;
  EXPECT_EQ(exchanged(e, {{1, 2}, {2, 4}, {}}), (Pieces{{1, 2}, {2, 4}, {}}));
  expect_error("%v, chip 1: element 1", ErrorCode::kBug, [&] {
    exchanged(e, {{1, 2}, {30, 4}, {}});
  });
  e.from_cuts = {{0, 1}, {2, 3}, {0, 0}};
  expect_error("%v: no chip holds element 1", ErrorCode::kBug, [&] {
    exchanged(e, {{1}, {4}, {}});
  });
}

}  // namespace
}  // namespace shardwright::ir
