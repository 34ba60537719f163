// Planted faults: each must be caught by the table test or by random strategies.
#include <gtest/gtest.h>

#include <deque>
#include <functional>

#include "base/check.h"
#include "shard/chips.h"
#include "shard/models.h"
#include "shard/partition.h"
#include "shard/solve.h"

namespace shardwright::shard {
namespace {

const ops::OpDef& op_named(const char* name) {
  const ops::OpDef* op = ops::find_op(name);
  CHECK(op != nullptr, name);
  return *op;
}

ops::Sample sample_of(const ops::OpDef& op, std::string_view text) {
  return ops::parse_sample(op, text);
}

// What the table test finds first with a faulty operator, over the reference or the kernel; "" if
// nothing.
enum class By : uint8_t { kReference, kKernel };
std::string table_test(const ops::OpDef& faulty, std::string_view sample_text,
                       By by = By::kReference, const NodeHooks& hooks = {}) {
  const bool kernel = by == By::kKernel;
  const OneNode one = one_node(faulty, sample_of(faulty, sample_text), 5);
  const ir::Node& node = one.graph.nodes[0];
  const ops::Rule rule = ops::rule_of(faulty, node.attrs, one.graph.operand_types(node));
  for (int n = 2; n <= 5; ++n) {
    const Colours colours = colour(one.graph, {rule}, n);
    for (const Strategy& s : strategies_of(one.graph, node, rule, colours)) {
      const NodeCase c{.graph = one.graph,
                       .node = node,
                       .rule = rule,
                       .colours = colours,
                       .operands = one.operands,
                       .whole = one.whole,
                       .tolerance = kernel ? kernel_tolerance(one.whole, one.operands) : 1e-9};
      const std::string wrong =
          check_strategy(c, s, kernel ? run_kernel_node : run_reference_node, 1, hooks);
      if (!wrong.empty()) return s.name + ", " + std::to_string(n) + " chips: " + wrong;
    }
  }
  return "";
}

struct Fault {
  const char* what;
  const char* op;
  const char* sample;
  void (*plant)(ops::OpDef*);
};

void set_rule(ops::OpDef* op, const char* text) {
  op->rule = text;
  op->rule_for = nullptr;
}

const Fault kFaults[] = {
    {"a contracted factor combined by its maximum", "linear", "x: f32[3, 8], weight: f32[5, 8]",
     [](ops::OpDef* op) { set_rule(op, "t... k, m k, m -> t... m; k: max"); }},
    {"a maximum combined by sum", "amax", "x: f32[3, 8], dim=[1]",
     [](ops::OpDef* op) { set_rule(op, "a b -> a; b: sum"); }},
    {"a softmax that may be split along its dimension", "softmax", "x: f32[3, 8], dim=-1",
     [](ops::OpDef* op) { set_rule(op, "a b -> a b"); }},
    {"a norm whose dimension is added up", "rms_norm", "x: f32[3, 8], weight: f32[8]",
     [](ops::OpDef* op) { set_rule(op, "t d, d -> t d"); }},
    {"a norm whose bias is added by every chip", "layer_norm",
     "x: f32[3, 8], weight: f32[8], bias: f32[8]", [](ops::OpDef* op) { op->linear = {"x"}; }},
    {"an exponential declared linear", "exp", "x: f32[3, 4]",
     [](ops::OpDef* op) { op->linear = {"x"}; }},
    {"a product declared jointly linear", "mul", "x: f32[3, 4], other: f32[3, 4]",
     [](ops::OpDef* op) { op->linear = {"x other"}; }},
    {"a sum declared linear in each operand alone", "add", "x: f32[3, 4], other: f32[4]",
     [](ops::OpDef* op) {
       op->linear = {"x", "other"};
     }},
    {"a quotient declared linear in its divisor", "div", "x: f32[3, 4], other: f32[3, 4]",
     [](ops::OpDef* op) { op->linear = {"other"}; }},
    {"a bias inside a contraction", "linear", "x: f32[3, 8], weight: f32[5, 8], bias: f32[5]",
     [](ops::OpDef*) {}},
    {"an embedding that ignores where its rows begin", "embedding",
     "weight: f32[7, 4], indices: i64[5] < 7",
     [](ops::OpDef* op) {
       op->reference = [](const ops::RefCall& c) {
         op_named("embedding").reference({c.attrs, c.operands, c.results, {}});
       };
     }},
    {"a one_hot that ignores where its classes begin", "one_hot",
     "indices: i64[5] < 7, num_classes=7",
     [](ops::OpDef* op) {
       op->reference = [](const ops::RefCall& c) {
         op_named("one_hot").reference({c.attrs, c.operands, c.results, {}});
       };
     }},
    {"causal attention that ignores where its queries begin", "attention",
     "query: f32[1, 2, 6, 4], key: f32[1, 2, 6, 4], value: f32[1, 2, 6, 4], is_causal=true, "
     "group=1",
     [](ops::OpDef* op) {
       op->reference = [](const ops::RefCall& c) {
         op_named("attention").reference({c.attrs, c.operands, c.results, {}});
       };
     }},
    {"grouped attention that ignores where its heads begin", "attention",
     "query: f32[1, 9, 3, 4], key: f32[1, 3, 3, 4], value: f32[1, 3, 3, 4], group=3",
     [](ops::OpDef* op) {
       op->reference = [](const ops::RefCall& c) {
         op_named("attention").reference({c.attrs, c.operands, c.results, {}});
       };
     }},
    {"attention declared linear in its keys", "attention",
     "query: f32[1, 2, 6, 4], key: f32[1, 2, 6, 4], value: f32[1, 2, 6, 4], group=1",
     [](ops::OpDef* op) { op->linear = {"key"}; }},
};

const ops::OpDef& planted(const Fault& fault) {
  static std::deque<ops::OpDef> all;  // arguments are parsed once an address: none is used twice
  ops::OpDef& faulty = all.emplace_back(op_named(fault.op));
  fault.plant(&faulty);
  return faulty;
}

TEST(PlantedFaults, TheTableTestFindsFaultyOperators) {
  for (const Fault& fault : kFaults) {
    const ops::OpDef& faulty = planted(fault);
    EXPECT_NE(table_test(faulty, fault.sample), "") << "not caught: " << fault.what;
    // The same without the fault passes.
    const bool has_bias = std::string_view(fault.what).find("bias inside") != std::string::npos;
    EXPECT_EQ(has_bias ? "" : table_test(op_named(fault.op), fault.sample), "") << fault.what;
  }
}

TEST(PlantedFaults, TheTableTestFindsWrongBegins) {
  const NodeHooks late{.begins = [](Begins* begins) {
    for (auto& [factor, begin] : *begins) ++begin;
  }};
  EXPECT_NE(table_test(op_named("embedding"), "weight: f32[7, 4], indices: i64[5] < 7",
                       By::kReference, late),
            "");
}

// The faults that are planted in a rule are in front of the kernels too, and a kernel that ignores
// where its chip's range begins is found as the reference is.
TEST(PlantedFaults, TheTableTestFindsThemOverKernels) {
  const NodeHooks ignored{.begins = [](Begins* begins) {
    for (auto& [factor, begin] : *begins) begin = 0;
  }};
  for (const Fault& fault : kFaults) {
    const ops::OpDef& faulty = planted(fault);
    const bool of_reference = faulty.reference != op_named(fault.op).reference;
    EXPECT_NE(of_reference ? table_test(op_named(fault.op), fault.sample, By::kKernel, ignored)
                           : table_test(faulty, fault.sample, By::kKernel),
              "")
        << "not caught: " << fault.what;
  }
}

TEST(PlantedFaults, TheTableTestFindsPartialIntegers) {
  // Without the check of dtypes this strategy would exist: a mask in pieces that add up.
  const ops::OpDef& op = op_named("cast");
  const OneNode one = one_node(op, sample_of(op, "x: f32[3, 4], dtype=i64"), 5);
  const ir::Node& node = one.graph.nodes[0];
  const ops::Rule rule = ops::rule_of(op, node.attrs, one.graph.operand_types(node));
  const Colours colours = colour(one.graph, {rule}, 2);
  for (const Strategy& s : strategies_of(one.graph, node, rule, colours))
    EXPECT_FALSE(s.results[0].is_partial()) << s.name;
}

// Runs random plans on 4 chips (so that 3 KV heads overlap) with something planted in the chips'
// graphs; what is found first.
std::string random_test(const Model& model, const std::function<void(ir::Graph*, int)>& plant,
                        const std::function<void(Solution*)>& plant_plan = {}) {
  const ir::RefMap whole = ir::interpret(model.module, model.graph(), model.inputs);
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    try {
      Solution solution = random_solution(model.graph(), 4, seed);
      if (plant_plan) plant_plan(&solution);
      std::vector<ir::Graph> chips = partition(model.module, model.graph(), solution);
      for (size_t chip = 0; chip < chips.size(); ++chip)
        if (plant) plant(&chips[chip], static_cast<int>(chip));
      const ir::RefMap got = ir::interpret_chips(model.module, chips, model.inputs);
      for (const auto& [name, want] : whole) {
        const std::string wrong = compare(got.at(name), want, 1e-9);
        if (!wrong.empty()) return "seed " + std::to_string(seed) + ": " + wrong;
      }
    } catch (const Error& error) {
      return "seed " + std::to_string(seed) + ": " + error.what();
    }
  }
  return "";
}

void for_each_op(ir::Graph* graph, const char* name, const std::function<void(ir::Node*)>& visit) {
  for (ir::Node& node : graph->nodes)
    if (node.op == &op_named(name)) visit(&node);
}

TEST(PlantedFaults, RandomStrategiesFindFaultsOfPartition) {
  const Model model = llama({});
  EXPECT_EQ(random_test(model, {}), "");
  EXPECT_NE(random_test(model,
                        [](ir::Graph* g, int) {
                          for (ir::Node& node : g->nodes)
                            for (auto& [factor, begin] : node.begins) begin = 0;
                        }),
            "")
      << "not caught: begins left out";
  EXPECT_NE(random_test(model,
                        [](ir::Graph* g, int) {
                          for_each_op(g, "keep", [](ir::Node* n) { n->attrs.set("keep", true); });
                        }),
            "")
      << "not caught: a whole value counted by every chip";
  EXPECT_NE(random_test(model,
                        [](ir::Graph* g, int) {
                          for_each_op(g, "zero_pad", [](ir::Node* n) {
                            const int64_t before = n->attrs.integer("before"),
                                          after = n->attrs.integer("after");
                            n->attrs.set("before", after);
                            n->attrs.set("after", before);
                          });
                        }),
            "")
      << "not caught: rows at the wrong place";
  EXPECT_NE(random_test(model,
                        [](ir::Graph* g, int) {
                          for_each_op(g, "exchange", [](ir::Node* n) {
                            if (n->attrs.text("combine") == "sum")
                              n->attrs.set("combine", std::string("max"));
                          });
                        }),
            "")
      << "not caught: a maximum for a sum";
  EXPECT_NE(random_test(model,
                        [](ir::Graph* g, int) {
                          for_each_op(g, "exchange", [](ir::Node* n) {
                            if (n->attrs.text("combine") == "sum")
                              n->attrs.set("combine", std::string("copy"));
                          });
                        }),
            "")
      << "not caught: a dropped reduction";
  EXPECT_NE(random_test(model,
                        [](ir::Graph* g, int chip) {
                          for (ir::Input& input : g->inputs)
                            if (chip == 1 && input.ref.tensor >= 0 && input.piece[0].begin > 0)
                              --input.ref.offset;
                        }),
            "")
      << "not caught: a weight's piece that begins too early";
}

TEST(PlantedFaults, RandomStrategiesFindFaultsOfPlans) {
  const Model model = llama({});
  // A conversion that is left out: the plan says that partial results are whole.
  EXPECT_NE(random_test(model, {},
                        [](Solution* s) {
                          for (Strategy& strategy : s->strategies)
                            for (State& state : strategy.results)
                              if (state == kPartialSum) state = kWhole;
                        }),
            "")
      << "not caught: a dropped all_reduce";
  // Shared KV heads declared to be pieces that add up.
  EXPECT_NE(random_test(model, {},
                        [](Solution* s) {
                          for (Strategy& strategy : s->strategies)
                            for (State& state : strategy.results)
                              if (state.is_split() && state.variant == Variant::kSame &&
                                  strategy.name.find("own") == std::string::npos)
                                state.variant = Variant::kSum;
                        }),
            "")
      << "not caught: copies added up";
}

}  // namespace
}  // namespace shardwright::shard
