// Attention against the plain formula in double, for every instruction set, 1 to 3 threads, ragged
// sizes; and exactly, where a single key is seen.
#include "kernels/cpu/attention.h"

#include <algorithm>
#include <limits>

#include "kernels/cpu/gemm.h"
#include "kernels/teams.h"
#include "tensor/shape.h"

namespace shardwright::kernels {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

enum class MaskKind { kNone, kBool, kAdded, kPadding };

struct Case {
  const char* name;
  DType dtype = DType::kF32;
  int64_t batch = 1, q_heads = 1, kv_heads = 1, rows = 1, keys = 1, d = 64, e = 64;
  bool causal = false;
  int64_t query_begin = 0, r = 1, head_begin = 0;
  MaskKind mask = MaskKind::kNone;
  float scale = 0.125F;
  // Of positions: batch entry b starts at starts[b], and its last `padding` rows stand nowhere.
  std::vector<int64_t> starts = {};
  int64_t padding = 0;
  int64_t window = 0;
};

// The tensors of a case: [B, S, H, D] in memory, as a projection leaves them, with a gap.
struct Problem {
  Case c;
  Elements q, k, v, out, mask;
  Strides mask_strides = {0, 0, 0, 0};
  std::vector<char> scratch;
  std::vector<std::vector<double>> wanted;
  std::vector<int64_t> positions;  // [row][batch]: strides that nobody would guess

  static int64_t row(int64_t heads, int64_t size) { return heads * size + 2; }
  Problem(const Case& a, std::mt19937& random)
      : c(a),
        q(random_elements(a.dtype, a.batch * a.rows * row(a.q_heads, a.d), random)),
        k(random_elements(a.dtype, a.batch * a.keys * row(a.kv_heads, a.d), random)),
        v(random_elements(a.dtype, a.batch * a.keys * row(a.kv_heads, a.e), random)),
        out(a.dtype, a.batch * a.rows * row(a.q_heads, a.e)),
        mask(DType::kBool, 0) {
    if (a.mask == MaskKind::kPadding) {
      mask = Elements(DType::kBool, a.batch * a.keys);
      for (int64_t i = 0; i < mask.count(); ++i) mask.set(i, i % a.keys < a.keys - 1 - i / a.keys);
      mask_strides = {a.keys, 0, 0, 1};
    } else if (a.mask != MaskKind::kNone) {
      const int64_t size = a.rows * a.keys;
      mask = Elements(a.mask == MaskKind::kBool ? DType::kBool : a.dtype, a.q_heads * size);
      std::uniform_real_distribution<double> uniform(-1, 1);
      for (int64_t i = 0; i < mask.count(); ++i) {
        const double x = uniform(random);
        if (a.mask == MaskKind::kBool)
          mask.set(i, x < 0.3);
        else
          mask.set(i, x > 0.6 ? -kInf : x);
      }
      mask_strides = {0, size, a.keys, 1};
    }
    for (int64_t i = 0; i < a.rows; ++i)
      for (const int64_t start : a.starts)
        positions.push_back(i < a.rows - a.padding ? start + i : -1);
  }

  AttentionTensor tensor(const Elements& t, int64_t heads, int64_t rows, int64_t size) const {
    return {t.data(), rows * row(heads, size), size, row(heads, size)};
  }
  AttentionArgs args() const {
    AttentionArgs a;
    a.dtype = c.dtype;
    a.batch = c.batch, a.q_heads = c.q_heads, a.kv_heads = c.kv_heads;
    a.q_rows = c.rows, a.keys = c.keys, a.qk_size = c.d, a.v_size = c.e;
    a.q = tensor(q, c.q_heads, c.rows, c.d);
    a.k = tensor(k, c.kv_heads, c.keys, c.d);
    a.v = tensor(v, c.kv_heads, c.keys, c.e);
    a.out = tensor(out, c.q_heads, c.rows, c.e);
    a.scale = c.scale, a.causal = c.causal, a.query_begin = c.query_begin;
    a.queries_per_kv = c.r, a.head_begin = c.head_begin;
    if (c.mask != MaskKind::kNone) a.mask = mask.data(), a.mask_dtype = mask.dtype;
    std::copy(mask_strides.begin(), mask_strides.end(), a.mask_strides);
    if (!positions.empty()) a.positions = positions.data();
    a.position_strides[0] = 1, a.position_strides[1] = c.batch;
    a.window = c.window;
    return a;
  }
  void run(Team& team) {
    std::fill(out.bytes.begin(), out.bytes.end(), 0);
    AttentionArgs a = args();
    const int64_t bytes = attention_scratch_bytes(a, team.n_threads());
    scratch.assign(bytes + 64, static_cast<char>(0xff));  // NaN
    a.scratch = scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64) % 64;
    team.run([&](Member& member) { attention(member, a); });
  }

  double score(int64_t b, int64_t h, int64_t i, int64_t j) const {
    if (c.causal && j > c.query_begin + i) return -kInf;
    if (!positions.empty()) {
      const int64_t p = positions[i * c.batch + b];
      if (j > p || (c.window > 0 && j <= p - c.window)) return -kInf;
    }
    const int64_t kv = (c.head_begin + h) / c.r - c.head_begin / c.r;
    double dot = 0;
    for (int64_t x = 0; x < c.d; ++x)
      dot += q.get((b * c.rows + i) * row(c.q_heads, c.d) + h * c.d + x) *
             k.get((b * c.keys + j) * row(c.kv_heads, c.d) + kv * c.d + x);
    dot *= static_cast<double>(c.scale);
    if (c.mask == MaskKind::kNone) return dot;
    const double added =
        mask.get(b * mask_strides[0] + h * mask_strides[1] + i * mask_strides[2] + j);
    if (mask.dtype == DType::kBool) return added != 0 ? dot : -kInf;
    return dot + added;
  }
  std::vector<double> expected(int64_t b, int64_t h, int64_t i) const {
    const int64_t kv = (c.head_begin + h) / c.r - c.head_begin / c.r;
    std::vector<double> scores(c.keys), result(c.e, 0);
    double largest = -kInf, sum = 0;
    for (int64_t j = 0; j < c.keys; ++j) {
      scores[j] = score(b, h, i, j);
      largest = std::max(largest, scores[j]);
    }
    if (largest == -kInf) return result;
    for (int64_t j = 0; j < c.keys; ++j) {
      const double power = std::exp(scores[j] - largest);
      sum += power;
      for (int64_t x = 0; x < c.e; ++x)
        result[x] += power * v.get((b * c.keys + j) * row(c.kv_heads, c.e) + kv * c.e + x);
    }
    for (double& x : result) x /= sum;
    return result;
  }
  double get(int64_t b, int64_t h, int64_t i, int64_t x) const {
    return out.get((b * c.rows + i) * row(c.q_heads, c.e) + h * c.e + x);
  }
  void check(double tolerance) {
    if (wanted.empty())
      for (int64_t b = 0; b < c.batch; ++b)
        for (int64_t h = 0; h < c.q_heads; ++h)
          for (int64_t i = 0; i < c.rows; ++i) wanted.push_back(expected(b, h, i));
    double worst = 0;
    size_t next = 0;
    for (int64_t b = 0; b < c.batch; ++b)
      for (int64_t h = 0; h < c.q_heads; ++h)
        for (int64_t i = 0; i < c.rows; ++i) {
          const std::vector<double>& want = wanted[next++];
          for (int64_t x = 0; x < c.e; ++x) {
            const double off = std::fabs(get(b, h, i, x) - want[x]);
            if (!(off <= worst)) worst = off;
          }
        }
    EXPECT_LE(worst, tolerance) << c.name << " " << dtype_name(c.dtype);
    for (int64_t i = 0; i < c.batch * c.rows; ++i)
      for (int64_t gap = 1; gap <= 2; ++gap)
        ASSERT_EQ(out.get((i + 1) * row(c.q_heads, c.e) - gap), 0) << "written beyond a row";
  }
};

const Case kCases[] = {
    {.name = "one", .d = 1, .e = 1},
    {.name = "plain",
     .batch = 2,
     .q_heads = 3,
     .kv_heads = 3,
     .rows = 20,
     .keys = 33,
     .d = 16,
     .e = 16},
    {.name = "odd sizes", .q_heads = 2, .kv_heads = 2, .rows = 37, .keys = 131, .d = 7, .e = 13},
    {.name = "d 80", .q_heads = 2, .kv_heads = 1, .rows = 40, .keys = 40, .d = 80, .e = 80, .r = 2},
    {.name = "causal",
     .q_heads = 3,
     .kv_heads = 1,
     .rows = 150,
     .keys = 150,
     .causal = true,
     .r = 3},
    {.name = "causal, later rows",
     .q_heads = 2,
     .kv_heads = 1,
     .rows = 21,
     .keys = 300,
     .d = 16,
     .e = 16,
     .causal = true,
     .query_begin = 270,
     .r = 2},
    {.name = "causal, fewer keys", .rows = 30, .keys = 11, .d = 8, .e = 8, .causal = true},
    {.name = "uneven heads",
     .q_heads = 5,
     .kv_heads = 3,
     .rows = 25,
     .keys = 25,
     .d = 16,
     .e = 8,
     .causal = true,
     .r = 3,
     .head_begin = 2},
    {.name = "bool mask",
     .batch = 2,
     .q_heads = 2,
     .kv_heads = 2,
     .rows = 33,
     .keys = 140,
     .d = 16,
     .e = 16,
     .mask = MaskKind::kBool},
    {.name = "added mask",
     .q_heads = 2,
     .kv_heads = 1,
     .rows = 33,
     .keys = 50,
     .d = 16,
     .e = 16,
     .causal = true,
     .r = 2,
     .mask = MaskKind::kAdded},
    {.name = "padding",
     .batch = 3,
     .q_heads = 2,
     .kv_heads = 2,
     .rows = 40,
     .keys = 40,
     .d = 16,
     .e = 16,
     .mask = MaskKind::kPadding},
    {.name = "negative scale", .rows = 40, .keys = 20, .d = 16, .e = 16, .scale = -0.5F},
    {.name = "decode",
     .batch = 2,
     .q_heads = 3,
     .kv_heads = 1,
     .keys = 517,
     .causal = true,
     .query_begin = 516,
     .r = 3},
    {.name = "decode, uneven heads",
     .q_heads = 5,
     .kv_heads = 2,
     .keys = 300,
     .d = 20,
     .e = 12,
     .r = 3,
     .head_begin = 1},
    {.name = "decode of 4 rows",
     .q_heads = 2,
     .kv_heads = 1,
     .rows = 4,
     .keys = 200,
     .d = 16,
     .e = 80,
     .causal = true,
     .query_begin = 196,
     .r = 2},
    {.name = "decode, masked",
     .q_heads = 2,
     .kv_heads = 2,
     .keys = 90,
     .d = 16,
     .e = 16,
     .mask = MaskKind::kBool},
    {.name = "decode at positions",
     .batch = 3,
     .q_heads = 3,
     .kv_heads = 1,
     .keys = 200,
     .d = 16,
     .e = 24,
     .r = 3,
     .starts = {0, 150, -1}},
    {.name = "decode at positions, one long",
     .q_heads = 6,
     .kv_heads = 3,
     .keys = 700,
     .d = 16,
     .e = 16,
     .r = 2,
     .starts = {650},
     .window = 300},
    {.name = "decode behind the end", .keys = 20, .d = 16, .e = 16, .starts = {40}},
    {.name = "pieces at positions",
     .batch = 2,
     .q_heads = 4,
     .kv_heads = 2,
     .rows = 37,
     .keys = 301,
     .d = 16,
     .e = 16,
     .r = 2,
     .starts = {0, 230},
     .padding = 6},
    {.name = "windows at positions",
     .batch = 2,
     .q_heads = 2,
     .kv_heads = 1,
     .rows = 70,
     .keys = 520,
     .d = 16,
     .e = 16,
     .r = 2,
     .starts = {3, 440},
     .padding = 1,
     .window = 33},
    {.name = "first token", .q_heads = 2, .kv_heads = 2, .keys = 9, .d = 3, .e = 5, .causal = true},
};

TEST(Attention, IsThePlainFormula) {
  std::mt19937 random(kSeed);
  for (Case c : kCases) {
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
      c.dtype = dtype;
      Problem problem(c, random);
      for_each_team([&](Team& team) {
        for (const Bf16Body body : {Bf16Body::kWiden, Bf16Body::kDot}) {
          if (dtype != DType::kBF16 && body == Bf16Body::kDot) continue;
          force_bf16_body(body);
          problem.run(team);
          problem.check(dtype == DType::kF32 ? 4e-6 : dtype == DType::kBF16 ? 1.6e-2 : 2e-3);
        }
      });
    }
  }
  force_bf16_body(Bf16Body::kMeasured);
}

// One key seen: the output is its value, bit for bit; none seen: zeros.
TEST(Attention, OneSeenKeyGivesItsValue) {
  std::mt19937 random(kSeed);
  for_each_team([&](Team& team) {
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
      for (const int64_t rows : {1, 70}) {
        Problem p({.name = "one key",
                   .dtype = dtype,
                   .q_heads = 2,
                   .kv_heads = 1,
                   .rows = rows,
                   .keys = 300,
                   .d = 16,
                   .e = 24,
                   .r = 2,
                   .mask = MaskKind::kBool},
                  random);
        std::uniform_int_distribution<int64_t> any(0, 299);
        std::vector<int64_t> seen(2 * rows);
        std::fill(p.mask.bytes.begin(), p.mask.bytes.end(), 0);
        for (int64_t i = 0; i < 2 * rows; ++i) {
          seen[i] = i == 1 ? -1 : any(random);
          if (seen[i] >= 0) p.mask.set(i * 300 + seen[i], 1);
        }
        p.run(team);
        for (int64_t h = 0; h < 2; ++h)
          for (int64_t i = 0; i < rows; ++i)
            for (int64_t x = 0; x < 24; ++x) {
              const int64_t key = seen[h * rows + i];
              const double want = key < 0 ? 0 : p.v.get(key * Problem::row(1, 24) + x);
              ASSERT_EQ(p.get(0, h, i, x), want);
            }
      }
    }
  });
}

// A mask of the lowest finite number hides nothing where it is everywhere (Hugging Face's masks).
TEST(Attention, LowestFiniteMaskIsNotEmpty) {
  std::mt19937 random(kSeed);
  for_each_isa([&] {
    Team team(1);
    for (const int64_t rows : {1, 40}) {
      Problem p(
          {.name = "lowest", .rows = rows, .keys = 64, .d = 16, .e = 16, .mask = MaskKind::kAdded},
          random);
      for (int64_t i = 0; i < p.mask.count(); ++i)
        p.mask.set(i, std::numeric_limits<float>::lowest());
      p.run(team);
      for (int64_t x = 0; x < 16; ++x) {
        double mean = 0;
        for (int64_t j = 0; j < 64; ++j) mean += p.v.get(j * Problem::row(1, 16) + x) / 64;
        EXPECT_NEAR(p.get(0, 0, rows - 1, x), mean, 1e-6);
      }
    }
  });
}

TEST(Attention, LargeScoresAndNaN) {
  std::mt19937 random(kSeed);
  for_each_isa([&] {
    Team team(1);
    for (const int64_t rows : {1, 40}) {
      Problem p({.name = "large", .rows = rows, .keys = 200, .d = 16, .e = 16, .scale = 300.0F},
                random);
      p.run(team);
      p.check(1e-3);
      p.q.set(0, std::nan(""));
      p.run(team);
      EXPECT_TRUE(std::isnan(p.get(0, 0, 0, 3)));
      if (rows > 1) {
        EXPECT_FALSE(std::isnan(p.get(0, 0, 1, 3)));
      }
    }
  });
}

}  // namespace
}  // namespace shardwright::kernels
