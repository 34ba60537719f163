// The tile engine: functions against libm in double, layouts against an obvious loop, reductions.
#include "kernels/cpu/tile.h"

#include <limits>

#include "base/error.h"
#include "kernels/teams.h"

namespace shardwright::kernels {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

Strides row_major(const Shape& shape) { return contiguous_strides(shape); }

void run(Team& team, const TileProgram& program, const std::vector<const void*>& inputs,
         const std::vector<void*>& outputs) {
  const TileKernel kernel(program);
  team.run([&](Member& member) { run_tile(member, kernel, inputs.data(), outputs.data()); });
}

// y = code(x) over a vector of f32.
std::vector<double> apply(Team& team, TileCode code, const std::vector<double>& x) {
  const auto n = static_cast<int64_t>(x.size());
  TileProgram program;
  program.shape = {n};
  program.inputs = {{DType::kF32, {1}}};
  program.outputs = {{DType::kF32, {1}}};
  program.ops = {{.code = TileCode::kLoad, .dst = 0, .a = 0},
                 {.code = code, .dst = 1, .a = 0},
                 {.code = TileCode::kStore, .dst = 0, .a = 1}};
  const Elements in(DType::kF32, x);
  Elements out(DType::kF32, n);
  run(team, program, {in.data()}, {out.data()});
  std::vector<double> y(x.size());
  for (int64_t i = 0; i < n; ++i) y[i] = out.get(i);
  return y;
}

struct FunctionCase {
  const char* name;
  TileCode code;
  double (*exact)(double);
  double low, high;  // dense range
  double max_ulps;
};

double floor_exact(double x) { return std::floor(x); }
const FunctionCase kFunctions[] = {
    {"exp", TileCode::kExp, std::exp, -104, 89, 2},
    {"exp near 0", TileCode::kExp, std::exp, -1, 1, 2},
    {"log", TileCode::kLog, std::log, 0, 10, 2},
    {"log near 1", TileCode::kLog, std::log, 0.5, 2, 2},
    {"tanh", TileCode::kTanh, std::tanh, -10, 10, 2},
    {"tanh near 0", TileCode::kTanh, std::tanh, -1, 1, 2},
    {"erf", TileCode::kErf, std::erf, -5, 5, 2},
    {"erf near 0", TileCode::kErf, std::erf, -1, 1, 2},
    {"sin", TileCode::kSin, std::sin, -10, 10, 2},
    {"sin far", TileCode::kSin, std::sin, -9e5, 9e5, 2},
    {"cos", TileCode::kCos, std::cos, -10, 10, 2},
    {"cos far", TileCode::kCos, std::cos, -9e5, 9e5, 2},
    {"floor", TileCode::kFloor, floor_exact, -1000, 1000, 0},
    {"sqrt", TileCode::kSqrt, std::sqrt, 0, 1000, 0.5},
    {"sigmoid", TileCode::kSigmoid, [](double x) { return 1 / (1 + std::exp(-x)); }, -80, 80, 4},
    {"silu", TileCode::kSilu, [](double x) { return x / (1 + std::exp(-x)); }, -80, 80, 4},
    {"rsqrt", TileCode::kRsqrt, [](double x) { return 1 / std::sqrt(x); }, 1e-3, 1000, 1.5},
    {"square", TileCode::kSquare, [](double x) { return x * x; }, -9, 9, 0.5},
    {"relu", TileCode::kRelu, [](double x) { return x > 0 ? x : 0; }, -9, 9, 0},
};

TEST(TileFunctions, AreWithinTheirUlps) {
  constexpr int64_t kCount = 40000;
  for_each_isa([] {
    Team team(1);
    for (const FunctionCase& f : kFunctions) {
      std::vector<double> x;
      for (int64_t i = 0; i <= kCount; ++i)
        x.push_back(static_cast<float>(f.low + (f.high - f.low) * i / kCount));
      const std::vector<double> y = apply(team, f.code, x);
      double worst = 0;
      double worst_x = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        const double off = ulps(static_cast<float>(y[i]), f.exact(x[i]));
        if (!(off <= worst)) worst = off, worst_x = x[i];
      }
      EXPECT_LE(worst, f.max_ulps) << f.name << " at " << worst_x;
    }
  });
}

TEST(TileFunctions, KeepNaNInfinityAndDenormals) {
  const std::vector<double> x = {0,      -0.0,    kInf,   -kInf,   kNaN,   200,  -200,
                                 1e-40,  -1e-40,  1e-45,  1e38,    -1e38,  88.7, -103.9,
                                 0x1p23, -0x1p23, 0x1p31, -0x1p40, 0x1p20, 3e6,  -1.0};
  for_each_isa([&] {
    Team team(1);
    for (const FunctionCase& f : kFunctions) {
      const std::vector<double> y = apply(team, f.code, x);
      for (size_t i = 0; i < x.size(); ++i) {
        const double exact = f.exact(static_cast<float>(x[i]));
        if (f.code == TileCode::kRelu && std::isnan(x[i]))
          EXPECT_TRUE(std::isnan(y[i]));
        else if (f.code == TileCode::kSilu && x[i] < -88)  // -x / inf, as PyTorch; NaN at -inf
          EXPECT_TRUE(x[i] == -kInf ? std::isnan(y[i]) : std::fabs(y[i]) < 1e-37);
        else
          EXPECT_LE(ulps(static_cast<float>(y[i]), exact), std::max(2.0, f.max_ulps))
              << f.name << "(" << x[i] << ") = " << y[i] << ", not " << exact;
      }
    }
  });
}

TEST(TileFunctions, GeluHasSmallAbsoluteError) {
  for_each_isa([] {
    Team team(1);
    std::vector<double> x;
    for (int i = -800; i <= 800; ++i) x.push_back(static_cast<float>(i / 100.0));
    const std::vector<double> gelu = apply(team, TileCode::kGelu, x);
    const std::vector<double> approximate = apply(team, TileCode::kGeluTanh, x);
    for (size_t i = 0; i < x.size(); ++i) {
      const double v = x[i];
      EXPECT_NEAR(gelu[i], 0.5 * v * (1 + std::erf(v / std::sqrt(2.0))),
                  6e-7 * std::max(1.0, std::fabs(v)));
      EXPECT_NEAR(approximate[i],
                  0.5 * v * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v))),
                  6e-7 * std::max(1.0, std::fabs(v)));
    }
  });
}

// out = where(a < b, a * b + 1, max(a, c)) over ragged, broadcast, transposed layouts.
TEST(Tile, WalksAnyLayout) {
  struct Case {
    Shape shape;
    Strides a, b, c, out;
  };
  const Case cases[] = {
      {{1}, {1}, {0}, {1}, {1}},
      {{1000}, {1}, {0}, {1}, {1}},
      {{7, 300}, {300, 1}, {0, 1}, {1, 0}, {300, 1}},
      {{5, 6, 9}, {54, 9, 1}, {0, 9, 1}, {1, 5, 30}, {54, 9, 1}},          // c transposed
      {{3, 17, 64}, {1088, 64, 1}, {0, 64, 1}, {17, 1, 0}, {64, 192, 1}},  // out permuted
      {{2, 3, 1, 5, 31},
       {465, 155, 0, 31, 1},
       {0, 0, 0, 31, 1},
       {0, 0, 0, 0, 0},
       {465, 155, 0, 31, 1}},
      {{4, 130}, {260, 2}, {130, 1}, {0, 0}, {130, 1}},
      {{3, 0, 4}, {0, 4, 1}, {0, 4, 1}, {0, 4, 1}, {0, 4, 1}},
  };
  std::mt19937 random(kSeed);
  for_each_team([&](Team& team) {
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kF64, DType::kI32}) {
      for (const Case& c : cases) {
        TileProgram program;
        program.shape = c.shape;
        program.inputs = {{dtype, c.a}, {dtype, c.b}, {dtype, c.c}};
        program.outputs = {{dtype, c.out}};
        program.ops = {
            {.code = TileCode::kLoad, .dst = 10, .a = 0},
            {.code = TileCode::kLoad, .dst = 11, .a = 1},
            {.code = TileCode::kLoad, .dst = 12, .a = 2},
            {.code = TileCode::kConstant, .dtype = dtype, .dst = 13, .imm = 1},
            {.code = TileCode::kLt, .dtype = DType::kBool, .dst = 14, .a = 10, .b = 11},
            {.code = TileCode::kMul, .dtype = dtype, .dst = 15, .a = 10, .b = 11},
            {.code = TileCode::kAdd, .dtype = dtype, .dst = 16, .a = 15, .b = 13},
            {.code = TileCode::kMax, .dtype = dtype, .dst = 17, .a = 10, .b = 12},
            {.code = TileCode::kWhere, .dtype = dtype, .dst = 18, .a = 14, .b = 16, .c = 17},
            {.code = TileCode::kStore, .dst = 0, .a = 18}};
        const auto extent = [&](const Strides& strides) {
          int64_t last = 0;
          for (size_t d = 0; d < c.shape.size(); ++d)
            last += strides[d] * std::max<int64_t>(0, c.shape[d] - 1);
          return last + 1;
        };
        const Elements a = random_integers(dtype, extent(c.a), random, 9);
        const Elements b = random_integers(dtype, extent(c.b), random, 9);
        const Elements e = random_integers(dtype, extent(c.c), random, 9);
        Elements out(dtype, extent(c.out));
        run(team, program, {a.data(), b.data(), e.data()}, {out.data()});
        for (int64_t i = 0; i < element_count(c.shape); ++i) {
          int64_t at[4] = {};
          int64_t rest = i;
          for (size_t d = c.shape.size(); d-- > 0; rest /= c.shape[d]) {
            const int64_t index = rest % c.shape[d];
            at[0] += index * c.a[d], at[1] += index * c.b[d];
            at[2] += index * c.c[d], at[3] += index * c.out[d];
          }
          const double x = a.get(at[0]), y = b.get(at[1]), z = e.get(at[2]);
          ASSERT_EQ(out.get(at[3]), x < y ? x * y + 1 : std::max(x, z))
              << to_string(c.shape) << dtype_name(dtype) << " element " << i;
        }
      }
    }
  });
}

// A bf16 chain gives the bits of separate operators with a bf16 tensor between them.
TEST(Tile, RoundsBetweenOperators) {
  constexpr int64_t kCount = 3000;
  std::mt19937 random(kSeed);
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    for_each_isa([&] {
      Team team(1);
      const Elements x = random_elements(dtype, kCount, random);
      TileProgram fused;
      fused.shape = {kCount};
      fused.inputs = {{dtype, {1}}};
      fused.outputs = {{dtype, {1}}};
      fused.ops = {{.code = TileCode::kLoad, .dst = 0, .a = 0},
                   {.code = TileCode::kSilu, .dtype = dtype, .dst = 1, .a = 0},
                   {.code = TileCode::kMul, .dtype = dtype, .dst = 2, .a = 1, .b = 0},
                   {.code = TileCode::kExp, .dtype = dtype, .dst = 3, .a = 2},
                   {.code = TileCode::kStore, .dst = 0, .a = 3}};
      Elements together(dtype, kCount);
      run(team, fused, {x.data()}, {together.data()});
      Elements between = x;
      for (int step = 1; step <= 3; ++step) {
        TileProgram one = fused;
        one.inputs.push_back({dtype, {1}});
        TileOp op = fused.ops[step];
        op.a = 0;
        if (op.b >= 0) op.b = 1;
        op.dst = 2;
        one.ops = {{.code = TileCode::kLoad, .dst = 0, .a = 0},
                   {.code = TileCode::kLoad, .dst = 1, .a = 1},
                   op,
                   {.code = TileCode::kStore, .dst = 0, .a = 2}};
        Elements next(dtype, kCount);
        run(team, one, {between.data(), x.data()}, {next.data()});
        between = next;
      }
      EXPECT_EQ(together.bytes, between.bytes);
      for (int64_t i = 0; i < kCount; ++i) {
        const double s = x.get(i) / (1 + std::exp(-x.get(i)));
        ASSERT_NEAR(together.get(i), std::exp(s * x.get(i)), 0.03 * std::exp(s * x.get(i)));
      }
    });
  }
}

TEST(Tile, SixteenBitStorageRoundsAsTheScalarCode) {
  std::mt19937 random(kSeed);
  std::vector<double> values = {0,      -0.0, kInf,   -kInf,  kNaN,  65504, 65519,  65520, 1e-8,
                                5.9e-8, 3e-8, 6.1e-5, 6.0e-5, -1e-7, 1e38,  3.4e38, 1e-40};
  std::uniform_int_distribution<uint32_t> bits;
  for (int i = 0; i < 2000; ++i) values.push_back(std::bit_cast<float>(bits(random)));
  const auto n = static_cast<int64_t>(values.size());
  for_each_isa([&] {
    Team team(1);
    for (const DType dtype : {DType::kBF16, DType::kF16}) {
      TileProgram program;
      program.shape = {n};
      program.inputs = {{DType::kF32, {1}}};
      program.outputs = {{dtype, {1}}, {DType::kF32, {1}}};
      program.ops = {{.code = TileCode::kLoad, .dst = 0, .a = 0},
                     {.code = TileCode::kCopy, .dtype = dtype, .dst = 1, .a = 0},
                     {.code = TileCode::kStore, .dst = 0, .a = 1},
                     {.code = TileCode::kStore, .dst = 1, .a = 1}};
      const Elements in(DType::kF32, values);
      Elements stored(dtype, n);
      Elements rounded(DType::kF32, n);
      run(team, program, {in.data()}, {stored.data(), rounded.data()});
      for (int64_t i = 0; i < n; ++i) {
        const auto x = static_cast<float>(in.get(i));
        const double want =
            dtype == DType::kBF16 ? bf16_to_f32(f32_to_bf16(x)) : f16_to_f32(f32_to_f16(x));
        for (const double got : {stored.get(i), rounded.get(i)})
          ASSERT_TRUE(got == want || (std::isnan(got) && std::isnan(want)))
              << dtype_name(dtype) << " of " << x << ": " << got << ", not " << want;
      }
    }
  });
}

// Positions: ((ids + 2^40) * 3 >= ids) as bool, and the integers themselves, exact.
TEST(Tile, IntegersAreExact) {
  for_each_team([](Team& team) {
    constexpr int64_t kCount = 600;
    TileProgram program;
    program.shape = {kCount};
    program.inputs = {{DType::kI64, {1}}, {DType::kF32, {0}}};
    program.outputs = {
        {DType::kI64, {1}}, {DType::kBool, {1}}, {DType::kF32, {1}}, {DType::kI64, {1}}};
    program.ops = {
        {.code = TileCode::kLoad, .dst = 0, .a = 0},
        {.code = TileCode::kLoad, .dst = 1, .a = 1},
        {.code = TileCode::kConstant, .dtype = DType::kI64, .dst = 2, .imm = 0x1p40},
        {.code = TileCode::kAdd, .dtype = DType::kI64, .dst = 3, .a = 0, .b = 2},
        {.code = TileCode::kStore, .dst = 0, .a = 3},
        {.code = TileCode::kGt, .dtype = DType::kBool, .dst = 4, .a = 0, .b = 1},
        {.code = TileCode::kStore, .dst = 1, .a = 4},
        {.code = TileCode::kMul, .dtype = DType::kF32, .dst = 5, .a = 0, .b = 1},
        {.code = TileCode::kStore, .dst = 2, .a = 5},
        {.code = TileCode::kCopy, .dtype = DType::kI64, .dst = 6, .a = 5},
        {.code = TileCode::kWhere, .dtype = DType::kI64, .dst = 7, .a = 4, .b = 6, .c = 0},
        {.code = TileCode::kStore, .dst = 3, .a = 7}};
    Elements ids(DType::kI64, kCount);
    for (int64_t i = 0; i < kCount; ++i) ids.set(i, static_cast<double>(i - 300));
    const Elements factor(DType::kF32, std::vector<double>{1.5});
    Elements sum(DType::kI64, kCount), greater(DType::kBool, kCount);
    Elements product(DType::kF32, kCount), chosen(DType::kI64, kCount);
    run(team, program, {ids.data(), factor.data()},
        {sum.data(), greater.data(), product.data(), chosen.data()});
    for (int64_t i = 0; i < kCount; ++i) {
      const auto x = static_cast<double>(i - 300);
      ASSERT_EQ(sum.get(i), x + 0x1p40);
      ASSERT_EQ(greater.get(i), x > 1.5);
      ASSERT_EQ(product.get(i), x * 1.5);
      ASSERT_EQ(chosen.get(i), x > 1.5 ? std::trunc(x * 1.5) : x);
    }
  });
}

TEST(Tile, WorksInPlace) {
  for_each_team([](Team& team) {
    constexpr int64_t kCount = 5000;
    TileProgram program;  // x += y; y = x * old x
    program.shape = {kCount};
    program.inputs = {{DType::kF32, {1}}, {DType::kF32, {1}}};
    program.outputs = program.inputs;
    program.ops = {{.code = TileCode::kLoad, .dst = 0, .a = 0},
                   {.code = TileCode::kLoad, .dst = 1, .a = 1},
                   {.code = TileCode::kAdd, .dst = 2, .a = 0, .b = 1},
                   {.code = TileCode::kStore, .dst = 0, .a = 2},
                   {.code = TileCode::kMul, .dst = 3, .a = 2, .b = 0},
                   {.code = TileCode::kStore, .dst = 1, .a = 3}};
    std::mt19937 random(kSeed);
    Elements x = random_integers(DType::kF32, kCount, random, 50);
    Elements y = random_integers(DType::kF32, kCount, random, 50);
    const Elements old_x = x, old_y = y;
    run(team, program, {x.data(), y.data()}, {x.data(), y.data()});
    for (int64_t i = 0; i < kCount; ++i) {
      ASSERT_EQ(x.get(i), old_x.get(i) + old_y.get(i));
      ASSERT_EQ(y.get(i), x.get(i) * old_x.get(i));
    }
  });
}

TEST(Tile, PowerIsTheSameForConstantAndTensorExponents) {
  for_each_isa([] {
    Team team(1);
    for (const double exponent : {2.0, 3.0, 0.5, -0.5, 1.0, -1.0, 0.0, 2.5}) {
      TileProgram program;
      program.shape = {100};
      program.inputs = {{DType::kF32, {1}}, {DType::kF32, {0}}};
      program.outputs = {{DType::kF32, {1}}, {DType::kF32, {1}}};
      program.ops = {{.code = TileCode::kLoad, .dst = 0, .a = 0},
                     {.code = TileCode::kLoad, .dst = 1, .a = 1},
                     {.code = TileCode::kConstant, .dst = 2, .imm = exponent},
                     {.code = TileCode::kPow, .dst = 3, .a = 0, .b = 1},
                     {.code = TileCode::kPow, .dst = 4, .a = 0, .b = 2},
                     {.code = TileCode::kStore, .dst = 0, .a = 3},
                     {.code = TileCode::kStore, .dst = 1, .a = 4}};
      Elements x(DType::kF32, 100);
      for (int64_t i = 0; i < 100; ++i) x.set(i, 0.1 * (i + 1));
      const Elements e(DType::kF32, std::vector<double>{exponent});
      Elements general(DType::kF32, 100), special(DType::kF32, 100);
      run(team, program, {x.data(), e.data()}, {general.data(), special.data()});
      for (int64_t i = 0; i < 100; ++i) {
        const double exact = std::pow(x.get(i), exponent);
        EXPECT_LE(ulps(static_cast<float>(general.get(i)), exact), 2);
        EXPECT_LE(ulps(static_cast<float>(special.get(i)), exact), 2) << exponent;
      }
    }
  });
}

TEST(TileReduce, AnyDims) {
  const Shape shape = {3, 5, 7, 290};
  const std::vector<std::vector<int>> choices = {{3},    {0},          {1, 2}, {0, 3},
                                                 {2, 3}, {0, 1, 2, 3}, {1}};
  std::mt19937 random(kSeed);
  const Elements x = random_integers(DType::kF32, element_count(shape), random, 20);
  for_each_team([&](Team& team) {
    for (const std::vector<int>& reduced : choices) {
      for (const TileCode code : {TileCode::kReduceSum, TileCode::kReduceMax, TileCode::kReduceMin,
                                  TileCode::kReduceArgMax}) {
        Shape kept = shape;
        for (const int d : reduced) kept[d] = 1;
        Strides strides = row_major(kept);
        const DType out_dtype = code == TileCode::kReduceArgMax ? DType::kI64 : DType::kF32;
        TileProgram program;
        program.shape = shape;
        program.inputs = {{DType::kF32, row_major(shape)}};
        program.outputs = {{out_dtype, strides}};
        program.reduced = reduced;
        program.ops = {{.code = TileCode::kLoad, .dst = 0, .a = 0},
                       {.code = TileCode::kMul, .dst = 1, .a = 0, .b = 0},
                       {.code = code, .dtype = out_dtype, .dst = 2, .a = 1},
                       {.code = TileCode::kStore, .dst = 0, .a = 2}};
        const int64_t n = element_count(kept);
        Elements out(out_dtype, n);
        run(team, program, {x.data()}, {out.data()});
        std::vector<double> sum(n, 0), most(n, -kInf), least(n, kInf), first(n, 0), seen(n, 0);
        for (int64_t i = 0; i < x.count(); ++i) {
          int64_t to = 0;
          int64_t rest = i;
          for (int d = 3; d >= 0; rest /= shape[d], --d)
            to += std::min(rest % shape[d], kept[d] - 1) * strides[d];
          const double v = x.get(i) * x.get(i);
          if (v > most[to]) most[to] = v, first[to] = seen[to];
          sum[to] += v, least[to] = std::min(least[to], v), ++seen[to];
        }
        const auto& want = code == TileCode::kReduceSum   ? sum
                           : code == TileCode::kReduceMax ? most
                           : code == TileCode::kReduceMin ? least
                                                          : first;
        for (int64_t i = 0; i < n; ++i)
          ASSERT_EQ(out.get(i), want[i]) << static_cast<int>(code) << " first dim " << reduced[0];
      }
    }
  });
}

TEST(TileReduce, MeanIntegersNaNAndNothing) {
  for_each_team([](Team& team) {
    TileProgram program;
    program.shape = {4, 100};
    program.inputs = {{DType::kF32, {100, 1}}};
    program.outputs = {{DType::kBF16, {1, 0}}};
    program.reduced = {1};
    program.ops = {
        {.code = TileCode::kLoad, .dst = 0, .a = 0},
        {.code = TileCode::kReduceSum, .dtype = DType::kBF16, .dst = 1, .a = 0, .imm = 100},
        {.code = TileCode::kStore, .dst = 0, .a = 1}};
    Elements x(DType::kF32, 400);
    for (int64_t i = 0; i < 400; ++i) x.set(i, static_cast<double>(i / 100));
    Elements mean(DType::kBF16, 4);
    run(team, program, {x.data()}, {mean.data()});
    for (int64_t i = 0; i < 4; ++i) EXPECT_EQ(mean.get(i), i);

    x.set(150, kNaN);
    program.ops[1] = {.code = TileCode::kReduceMax, .dtype = DType::kBF16, .dst = 1, .a = 0};
    run(team, program, {x.data()}, {mean.data()});
    EXPECT_TRUE(std::isnan(mean.get(1)));
    EXPECT_EQ(mean.get(3), 3);

    program.shape = {4, 0};
    program.ops[1] = {.code = TileCode::kReduceSum, .dtype = DType::kBF16, .dst = 1, .a = 0};
    run(team, program, {x.data()}, {mean.data()});
    EXPECT_EQ(mean.get(1), 0);

    program.shape = {4, 100};
    program.inputs = {{DType::kI64, {100, 1}}};
    program.outputs = {{DType::kI64, {1, 0}}};
    program.ops[1].dtype = DType::kI64;
    Elements ids(DType::kI64, std::vector<double>(400, 0x1p40 + 1));
    Elements sum(DType::kI64, 4);
    run(team, program, {ids.data()}, {sum.data()});
    EXPECT_EQ(sum.get(2), 100 * (0x1p40 + 1));
  });
}

TEST(Tile, TooManyLiveRegistersIsAnError) {
  TileProgram program;
  program.shape = {8};
  program.inputs = {{DType::kF32, {1}}};
  program.outputs = {{DType::kF32, {1}}};
  program.ops = {{.code = TileCode::kLoad, .dst = 0, .a = 0}};
  for (int i = 1; i <= 70; ++i)
    program.ops.push_back({.code = TileCode::kExp, .dst = i, .a = i - 1});
  int total = 70;
  for (int i = 0; i < 70; ++i, ++total)
    program.ops.push_back({.code = TileCode::kAdd, .dst = total + 1, .a = total, .b = i});
  program.ops.push_back({.code = TileCode::kStore, .dst = 0, .a = total});
  try {
    const TileKernel kernel(program);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_STREQ(error.what(),
                 "a fused chain needs 71 registers at once; at most 64 are there: fuse fewer "
                 "operators");
  }
}

}  // namespace
}  // namespace shardwright::kernels
