// Lookups: embedding, index_select, gather, index, index_copy, one_hot.
#include "ops/run_op.h"
#include "ops/table.h"

namespace shardwright::ops {
namespace {

TEST(Index, KernelsEqualReferences) {
  for (const OpDef* op :
       {&embedding, &embedding_int8, &index_select, &gather, &index, &index_copy, &one_hot})
    check_samples(*op);
}

RefTensor tensor_of(const TensorType& type, std::vector<double> data) {
  RefTensor tensor(type);
  CHECK(tensor.data.size() == data.size());
  tensor.data = std::move(data);
  return tensor;
}

// Rows [3, 5) of a table: other ids, those outside the whole table too, give zeros.
TEST(Embedding, PartOfTheTable) {
  const RefTensors operands{tensor_of({DType::kF32, {2, 2}}, {30, 31, 40, 41}),
                            tensor_of({DType::kI64, {5}}, {4, 2, 3, -1, 99})};
  const std::vector<double> want{40, 41, 0, 0, 30, 31, 0, 0, 0, 0};
  const std::vector<TensorType> types{{DType::kF32, {5, 2}}};
  const Begins begins{{"v", 3}};
  EXPECT_EQ(run_reference(embedding, {}, operands, types, begins)[0].data, want);
  for (const int panels : {-1, 0})
    EXPECT_EQ(run_kernel(embedding, {}, operands, types, begins, {.panel_operand = panels})[0].data,
              want);
}

TEST(IndexSelect, PartOfX) {
  const RefTensors operands{tensor_of({DType::kF32, {2, 2}}, {1, 2, 3, 4}),
                            tensor_of({DType::kI64, {3}}, {1, 0, 2})};
  const Attrs attrs{{"dim", int64_t{1}}};
  const std::vector<TensorType> types{{DType::kF32, {2, 3}}};
  const std::vector<double> want{1, 0, 2, 3, 0, 4};
  EXPECT_EQ(run_reference(index_select, attrs, operands, types, {{"v", 1}})[0].data, want);
  EXPECT_EQ(run_kernel(index_select, attrs, operands, types, {{"v", 1}})[0].data, want);
}

// x[:, i] and x[i, :, j] with a negative index.
TEST(Index, AbsentIndicesAndNegativeOnes) {
  const RefTensor x = tensor_of({DType::kF32, {2, 2, 2}}, {0, 1, 2, 3, 4, 5, 6, 7});
  const RefTensor i = tensor_of({DType::kI64, {3}}, {1, -1, 0});
  const RefTensor j = tensor_of({DType::kI64, {3}}, {0, 1, 1});
  const auto check = [](const RefTensors& operands, const Shape& shape,
                        const std::vector<double>& want) {
    const std::vector<TensorType> types = infer_types(index, {}, types_of(operands));
    ASSERT_EQ(types[0].shape, shape);
    EXPECT_EQ(run_reference(index, {}, operands, types)[0].data, want);
    EXPECT_EQ(run_kernel(index, {}, operands, types)[0].data, want);
  };
  check({x, {}, i}, {2, 3, 2}, {2, 3, 2, 3, 0, 1, 6, 7, 6, 7, 4, 5});
  check({x, i, {}, j}, {3, 2}, {4, 6, 5, 7, 1, 3});  // not neighbours: their dims come first
  check({x, i}, {3, 2, 2}, {4, 5, 6, 7, 4, 5, 6, 7, 0, 1, 2, 3});
}

TEST(Index, RefusesMasks) {
  const Sample sample = parse_sample(index, "x: f32[3, 4], indices: bool[3]");
  try {
    infer_types(index, sample.attrs, sample.operands);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(),
                 "index: an index is bool[3]; supported: i64 and i32 (a mask gives a size that "
                 "depends on the data: use where)");
  }
}

TEST(IndexCopy, WritesSeveralRows) {
  const RefTensors operands{tensor_of({DType::kF32, {2, 4}}, {0, 1, 2, 3, 4, 5, 6, 7}),
                            tensor_of({DType::kI64, {2}}, {3, 1}),
                            tensor_of({DType::kF32, {2, 2}}, {10, 11, 12, 13})};
  const Attrs attrs{{"dim", int64_t{1}}};
  const std::vector<TensorType> types = infer_types(index_copy, attrs, types_of(operands));
  const std::vector<double> want{0, 11, 2, 10, 4, 13, 6, 12};
  EXPECT_EQ(run_reference(index_copy, attrs, operands, types)[0].data, want);
  for (const bool in_place : {false, true})
    EXPECT_EQ(run_kernel(index_copy, attrs, operands, types, {},
                         {.n_threads = 2, .in_place = in_place})[0]
                  .data,
              want);
}

TEST(OneHot, PartOfTheClasses) {
  const RefTensors ids{tensor_of({DType::kI64, {3}}, {2, 0, 4})};
  const std::vector<TensorType> types{{DType::kI64, {3, 2}}};
  EXPECT_EQ(run_kernel(one_hot, {}, ids, types, {{"v", 1}})[0].data,
            (std::vector<double>{0, 1, 0, 0, 0, 0}));
}

}  // namespace
}  // namespace shardwright::ops
