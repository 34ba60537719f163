// The operator table: every operator's arguments, rule, samples, kernel and view; promotion; names.
#include "ops/op.h"

#include "ops/exchange.h"
#include "ops/run_op.h"
#include "ops/table.h"

namespace shardwright::ops {
namespace {

using Types = std::vector<std::optional<TensorType>>;

bool names_operand(const OpDef& op, std::string_view name) {
  for (const Argument& argument : arguments_of(op))
    if (argument.is_tensor() && argument.name == name) return true;
  return false;
}

TEST(Table, DefinitionsAreComplete) {
  for (const OpDef* op : all_ops()) {
    SCOPED_TRACE(op->name);
    EXPECT_EQ(find_op(op->name), op);
    EXPECT_FALSE(arguments_of(*op).empty());
    for (std::string_view group : op->linear)
      for (size_t begin = 0; begin < group.size();) {
        const size_t end = std::min(group.find(' ', begin), group.size());
        EXPECT_TRUE(names_operand(*op, group.substr(begin, end - begin))) << group;
        begin = end + 1;
      }
    if (op == &exchange) continue;
    EXPECT_TRUE((op->rule != nullptr) != (op->rule_for != nullptr)) << "one of rule and rule_for";
    EXPECT_FALSE(op->samples.empty());
    EXPECT_TRUE(op->make_kernel != nullptr || op->expansion != nullptr ||
                op->expansion_for != nullptr || op->reference != nullptr);
    EXPECT_TRUE(op->make_kernel == nullptr || op->reference != nullptr);
    EXPECT_EQ(op->elementwise, op->tile_code != nullptr);
  }
}

TEST(Table, SamplesGiveTypes) {
  for (const OpDef* op : all_ops())
    for (std::string_view text : op->samples) {
      SCOPED_TRACE(std::string(op->name) + " " + std::string(text));
      const Sample sample = parse_sample(*op, text);
      const Rule rule = rule_of(*op, sample.attrs, sample.operands);
      const std::vector<TensorType> types = infer_types(*op, sample.attrs, sample.operands);
      ASSERT_EQ(types.size(), rule.results.size());
      EXPECT_GE(flops_of(*op, sample.attrs, rule), 0);
    }
}

TEST(Table, KernelsEqualReferences) {
  for (const OpDef* op : all_ops())
    if (op->make_kernel != nullptr) check_samples(*op);
}

RefTensor read_view(const TensorType& type, TestBuffer& from, const Strides& strides,
                    int64_t offset) {
  RefTensor tensor(type);
  const auto* bytes = static_cast<const std::byte*>(from.data());
  std::vector<int64_t> index(type.shape.size(), 0);
  for (double& element : tensor.data) {
    int64_t position = offset;
    for (size_t d = 0; d < index.size(); ++d) position += index[d] * strides[d];
    element = load_element(type.dtype, bytes + position * dtype_bytes(type.dtype));
    for (size_t d = index.size(); d-- > 0;) {
      if (++index[d] < type.shape[d]) break;
      index[d] = 0;
    }
  }
  return tensor;
}

// Every view of an operand that is contiguous or not shows what the reference computes.
TEST(Table, ViewsEqualReferences) {
  int views = 0;
  for (const OpDef* op : all_ops()) {
    if (op->view == nullptr) continue;
    for (std::string_view text : op->samples) {
      SCOPED_TRACE(std::string(op->name) + " " + std::string(text));
      const Sample sample = parse_sample(*op, text);
      const RefTensors operands = random_operands(sample, 1);
      const auto types = infer_types(*op, sample.attrs, sample.operands);
      const auto want = run_reference(*op, sample.attrs, operands, types);
      for (const TestLayout layout : {TestLayout::kContiguous, TestLayout::kStrided}) {
        const TensorType& type = operands[0]->type;
        const Strides in = test_strides(type.shape, Strided::kAny, layout);
        TestBuffer buffer(type, in);
        buffer.write(*operands[0]);
        const KernelSpec spec{.op = op,
                              .attrs = &sample.attrs,
                              .operands = {{.type = type, .strides = in}},
                              .results = {{.type = types[0], .strides = {}}},
                              .begins = {}};
        Strides out;
        int64_t offset = 0;
        if (!op->view(spec, in, &out, &offset)) {
          EXPECT_EQ(layout, TestLayout::kStrided) << "a contiguous operand has every view";
          continue;
        }
        ++views;
        expect_close({read_view(types[0], buffer, out, offset)}, want, 0);
      }
    }
  }
  EXPECT_GT(views, 10);
}

TEST(Op, Arguments) {
  const auto& arguments = arguments_of(linear);
  ASSERT_EQ(arguments.size(), 3U);
  EXPECT_EQ(arguments[0].name, "x");
  EXPECT_EQ(arguments[0].aten_name, "input");
  EXPECT_EQ(arguments[2].kind, Argument::Kind::kOptionalTensor);
  const auto& of_slice = arguments_of(slice);
  EXPECT_TRUE(of_slice[2].optional);
  EXPECT_EQ(*of_slice[1].otherwise, Attr(int64_t{0}));
  EXPECT_EQ(*arguments_of(gelu)[1].otherwise, Attr(std::string("none")));
  Attrs attrs{{"dim", int64_t{2}}};
  fill_defaults(slice, &attrs);
  EXPECT_EQ(attrs, (Attrs{{"dim", int64_t{2}}, {"step", int64_t{1}}}));
}

TEST(Op, FindByNameAndAlias) {
  EXPECT_EQ(find_op("_to_copy"), &cast);
  EXPECT_EQ(find_op("__and__"), &bitwise_and);
  EXPECT_EQ(find_op("nonsense"), nullptr);
  EXPECT_NE(nearest_op("sigmoyd").find("sigmoid"), std::string::npos);
}

TEST(Op, PromotionIsPyTorchs) {
  const auto dtype = [](const OpDef& op, const Types& types) {
    return infer_types(op, {}, types)[0].dtype;
  };
  const auto of = [](DType type, Shape shape = {3}) {
    return std::optional(TensorType{type, std::move(shape)});
  };
  EXPECT_EQ(dtype(add, {of(DType::kBF16), of(DType::kF32)}), DType::kF32);
  EXPECT_EQ(dtype(add, {of(DType::kBF16), of(DType::kF32, {})}), DType::kBF16);
  EXPECT_EQ(dtype(add, {of(DType::kI64), of(DType::kF32, {})}), DType::kF32);
  EXPECT_EQ(dtype(add, {of(DType::kI32), of(DType::kI64, {})}), DType::kI32);
  EXPECT_EQ(dtype(add, {of(DType::kBool), of(DType::kI64, {})}), DType::kI64);
  EXPECT_EQ(dtype(add, {of(DType::kBF16, {}), of(DType::kF32, {})}), DType::kF32);
  EXPECT_EQ(dtype(div, {of(DType::kI64), of(DType::kI64)}), DType::kF32);
  EXPECT_EQ(dtype(exp, {of(DType::kI64)}), DType::kF32);
  EXPECT_EQ(dtype(lt, {of(DType::kF32), of(DType::kF32)}), DType::kBool);
  EXPECT_EQ(dtype(where, {of(DType::kBool), of(DType::kBF16), of(DType::kF32, {})}), DType::kBF16);
}

TEST(Op, ErrorsNameTheOperator) {
  try {
    infer_types(add, {}, Types{TensorType{DType::kF32, {3}}, TensorType{DType::kF32, {4}}});
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).substr(0, 5), "add: ");
  }
}

TEST(Exchange, AttributesComeBackTheSame) {
  const Exchange before{.kind = "all_to_all",
                        .combine = Combine::kSum,
                        .from_dim = 0,
                        .from_cuts = {{0, 2}, {2, 3}},
                        .to_dim = 1,
                        .to_cuts = {{0, 4}, {4, 4}},
                        .shape = {3, 4},
                        .n = 2};
  const Exchange after = exchange_of(to_attrs(before));
  EXPECT_EQ(after.kind, before.kind);
  EXPECT_EQ(after.combine, before.combine);
  EXPECT_EQ(after.from_shape(1), (Shape{1, 4}));
  EXPECT_EQ(after.to_shape(0), (Shape{3, 4}));
  EXPECT_EQ(after.to_shape(1), (Shape{3, 0}));
  Exchange wrong = before;
  wrong.to_cuts = {{0, 4}};
  EXPECT_THROW(exchange_of(to_attrs(wrong)), Error);
}

}  // namespace
}  // namespace shardwright::ops
