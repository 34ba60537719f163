// Fused steps against their parts, run one by one by the kernels that the operators have alone.
#include <functional>
#include <regex>
#include <span>

#include "kernels/cpu/isa.h"
#include "ops/fused_case.h"
#include "ops/fused_stage.h"

namespace shardwright::ops {
namespace {

using kernels::available_isas;
using kernels::force_isa;
using kernels::isa_name;

void for_each_way(const std::function<void(int n_threads)>& body) {
  for (const kernels::Isa isa : available_isas()) {
    force_isa(isa);
    for (int n = 1; n <= 3; ++n) {
      SCOPED_TRACE(std::string(isa_name(isa)) + ", " + std::to_string(n) + " threads");
      body(n);
    }
  }
  force_isa(std::nullopt);
}

std::string with_type(std::string text, std::string_view dtype) {
  for (size_t at; (at = text.find("DT")) != std::string::npos;) text.replace(at, 2, dtype);
  return text;
}

// --- rows ---

const char* const kRowGroups[] = {
    // a chain
    "a = mul(x: DT[3, 5, 70], y: DT[3, 5, 70]); b = silu(a); c = add(b, z: DT[70]) -> c",
    "g = silu(x: DT[300]); y = mul(g, u: DT[300]) -> y",
    "%a = mul(%x: DT[3, 5, 70], y: DT[3, 1, 70]); *b = silu(a) -> a, b",
    "a = add(x: DT[], y: DT[]); b = neg(a) -> b",
    // add + norm, both read later
    "h = add(x: DT[2, 9, 72], r: DT[2, 9, 72]); y = rms_norm(h, w: DT[72], eps=1e-05) -> h, y",
    "*h = add(*x: DT[2, 9, 72], r: DT[2, 9, 72]); *y = layer_norm(h, w: DT[72], b: DT[72]) -> y, h",
    "h = add(x: DT[9, 150], r: DT[150]); y = rms_norm(h, -, eps=1e-05, weight_plus_one=true) -> y",
    "y = rms_norm(x: DT[40, 300], -, eps=1e-05, round_before_weight=true); z = mul(y, s: DT[300]) "
    "-> z",
    // a tanh gelu written out
    "a = mul(x: DT[4, 33], x); b = mul(a, x); c = mul(b, k1: DT[]); d = add(x, c); "
    "e = mul(d, k2: DT[]); f = tanh(e); g = add(f, one: DT[]); h = mul(x, half: DT[]); "
    "y = mul(h, g) -> y",
    // rope: heads seen through a permutation, tables that broadcast over them
    "q = ~permute(qkv: DT[2, 7, 3, 16], dims=[0, 2, 1, 3]); a = ~slice(q, dim=3, end=8); "
    "b = ~slice(q, dim=3, start=8); n = neg(b); r = cat(n, a, dim=-1); "
    "p = mul(q, cos: DT[1, 1, 7, 16]); s = mul(r, sin: DT[1, 1, 7, 16]); y = add(p, s) -> y",
    "a = slice(x: DT[2, 3, 7, 16], dim=3, end=8); b = slice(x, dim=3, start=8); n = neg(b); "
    "r = cat(n, a, dim=3); y = mul(r, x) -> y",
    // after a cat: a column that another segment gives, a cat of more, one that is kept
    "r = cat(a: DT[3, 8], b: DT[3, 24], dim=-1); y = add(r, x: DT[3, 32]); "
    "l = ~slice(y, dim=1, start=31); z = mul(y, l) -> y, z",
    "n = neg(b: DT[3, 24]); t = tanh(n); r = cat(t, a: DT[3, 5], n, dim=-1); m = mul(x: DT[53], "
    "r); "
    "s = softmax(m, dim=-1); y = add(m, s) -> y",
    "n = neg(b: DT[3, 24]); r = cat(n, n, dim=-1); y = exp(r); z = softmax(y, dim=-1) -> r, z",
    // softmax by hand, and as it is
    "m = amax(x: DT[6, 37], dim=[-1], keepdim=true); d = sub(x, m); e = exp(d); "
    "t = sum(e, dim=[1], keepdim=true); y = div(e, t) -> y",
    "s = mul(x: DT[2, 3, 5, 40], k: DT[]); m = add(s, mask: DT[1, 1, 5, 40]); "
    "y = softmax(m, dim=-1) -> y",
    // cross entropy: a column picked by each row's own index
    "m = amax(x: DT[6, 37], dim=[-1], keepdim=true); d = sub(x, m); e = exp(d); "
    "t = sum(e, dim=[-1], keepdim=true); s = log(t); p = gather(x, c: i64[6, 1], dim=1); "
    "q = sub(p, m); l = sub(s, q); k = ne(c, ignored: i64[]); y = where(k, l, zero: DT[]) -> y",
    "e = exp(%x: DT[2, 3, 12]); y = gather(e, *c: i64[2, 3, 4], dim=-1) -> y",
    // the variance of a row; a sum that loses its dim
    "q = mul(x: DT[5, 400], x); m = sum(q, dim=[-1], keepdim=true); v = rsqrt(m); "
    "y = mul(x, v) -> y, m",
    "q = mul(x: DT[2, 5, 40], x); m = sum(q, dim=[2]) -> m",
    // through other types
    "f = cast(x: DT[3, 70], dtype=f32); g = mul(f, f); h = cast(g, dtype=bf16); "
    "y = add(h, h) -> y, g",
    "c = gt(x: DT[3, 70], zero: DT[]); y = where(c, x, alt: DT[3, 70]) -> y",
    // two programs of other rows beside each other
    "a = silu(x: DT[4, 12]); y = softmax(a, dim=-1); b = neg(z: DT[7, 5]); u = softmax(b, dim=1) "
    "-> y, u",
    // rows cut differently
    "a = add(x: DT[2, 6, 24], x); b = ~reshape(a, shape=[12, 24]); y = softmax(b, dim=-1) -> y",
    // rope into one cache, heads as they are into another
    "a = ~slice(k: DT[2, 3, 7, 16], dim=3, end=8); b = ~slice(k, dim=3, start=8); n = neg(b); "
    "r = cat(n, a, dim=-1); p = mul(k, cos: DT[1, 1, 7, 16]); s = mul(r, sin: DT[1, 1, 7, 16]); "
    "e = add(p, s); y = cache_write(kc: DT[2, 3, 9, 16], at: i64[2, 7], e); "
    "z = cache_write(*vc: DT[2, 3, 9, 5], at, *v: DT[2, 3, 7, 5]) -> y, z",
    // one token, halves of different lengths, heads seen through a permutation
    "q = ~permute(qkv: DT[3, 1, 4, 16], dims=[0, 2, 1, 3]); a = ~slice(q, dim=3, end=5); "
    "b = ~slice(q, dim=3, start=5); n = neg(b); r = cat(n, a, dim=-1); "
    "e = mul(q, r); *y = cache_write(%c: DT[3, 4, 6, 16], at: i64[3, 1], e) -> y",
    // nothing
    "a = add(x: DT[0, 5], x); y = softmax(a, dim=-1) -> y",
};

using Outputs = std::vector<RefTensor>;

// Runs each group in each dtype as one step and part by part, on every instruction set and team.
void for_each_group(std::span<const char* const> groups,
                    const std::function<void(const Outputs& fused, const Outputs& by_parts,
                                             DType dtype)>& compare) {
  unsigned seed = 1;
  for (const char* group : groups)
    for (const char* dtype : {"f32", "bf16", "f16"}) {
      const std::string text = with_type(group, dtype);
      SCOPED_TRACE(text + ", seed " + std::to_string(seed));
      for_each_way([&](int n_threads) {
        const FusedCase fused(text, n_threads);
        ASSERT_EQ(why_not_fused(fused.spec), "");
        const std::vector<RefTensor> inputs = random_inputs(fused, seed);
        compare(FusedRun(fused, inputs).fused(), FusedRun(fused, inputs).by_parts(),
                *parse_dtype(dtype));
      });
      ++seed;
    }
}

TEST(FusedRows, EqualTheirPartsBitForBit) {
  for_each_group(kRowGroups, [](const Outputs& fused, const Outputs& by_parts, DType) {
    expect_same(fused, by_parts);
  });
}

TEST(FusedRows, TakeIntegers) {
  const FusedCase fused(
      "a = add(x: i64[3, 5], y: i64[5]); b = mul(a, a); c = cast(b, dtype=f32) -> b, c", 2);
  const std::vector<RefTensor> inputs = random_inputs(fused, 3);
  expect_same(FusedRun(fused, inputs).fused(), FusedRun(fused, inputs).by_parts());
}

// A block is a share of the L2 cache: rows this long make many of them.
TEST(FusedRows, InManyBlocks) {
  const FusedCase fused(
      "h = add(x: f32[13, 20000], r: f32[13, 20000]); y = rms_norm(h, w: f32[20000], eps=1e-05) "
      "-> h, y",
      2);
  const std::vector<RefTensor> inputs = random_inputs(fused, 4);
  expect_same(FusedRun(fused, inputs).fused(), FusedRun(fused, inputs).by_parts());
}

// Random row operators over values of [a, b, n], and [a, b, 1] and [n] that broadcast.
class RandomGroup {
 public:
  explicit RandomGroup(unsigned seed) : random_(seed) {
    lead_ = "[" + std::to_string(1 + below(4)) + ", " + std::to_string(1 + below(9)) + ", ";
    half_ = 1 + below(below(2) == 0 ? 20 : 300);
    n_ = std::to_string(2 * half_);
    dtype_ = pick({"f32", "bf16", "f16"});
    text_ = "v = neg(" + operand(lead_ + n_) + "); ";
    wide_ = unread_ = {"v"};
  }

  std::string text() {
    const size_t n_parts = 1 + below(9);
    for (size_t i = 0; i < n_parts; ++i) add_part("v" + std::to_string(i));
    text_ += "-> ";
    for (size_t i = 0; i < unread_.size(); ++i) text_ += (i > 0 ? ", " : "") + unread_[i];
    return text_;
  }

 private:
  size_t below(size_t n) { return random_() % n; }
  std::string pick(const std::vector<std::string>& from) { return from[below(from.size())]; }
  std::string operand(const std::string& shape) {
    return (below(3) == 0 ? "*x" : "x") + std::to_string(n_operands_++) + ": " + dtype_ + shape +
           "]";
  }
  std::string read(const std::vector<std::string>& from) {
    const std::string value = pick(from);
    if (below(4) > 0) std::erase(unread_, value);  // else it is a result, too
    return value;
  }
  std::string any() {
    if (below(3) == 0) return operand(pick({lead_ + n_, "[" + n_, lead_ + "1", "["}));
    return !narrow_.empty() && below(3) == 0 ? read(narrow_) : read(wide_);
  }

  void add_part(const std::string& name) {
    std::vector<std::string>& kind = below(9) == 0 ? narrow_ : wide_;
    const std::string x = read(wide_);
    if (&kind == &narrow_) {
      text_ += name + " = sum(" + x + ", dim=[-1], keepdim=true); ";
    } else if (const size_t what = below(8); what == 0) {
      text_ += name + " = rms_norm(" + x + ", " + operand("[" + n_) + ", eps=1e-05); ";
    } else if (what == 1) {
      text_ += name + " = softmax(" + x + ", dim=-1); ";
    } else if (what == 2) {
      const std::string half = std::to_string(half_);
      text_ += "s" + name + " = ~slice(" + x + ", dim=2, start=" + half + "); t" + name +
               " = ~slice(" + x + ", dim=2, end=" + half + "); u" + name + " = tanh(s" + name +
               "); " + name + " = cat(u" + name + ", t" + name + ", dim=-1); ";
    } else if (what < 5) {
      text_ += name + " = " + pick({"silu", "neg", "tanh", "relu"}) + "(" + x + "); ";
    } else {
      text_ += name + " = " + pick({"add", "mul", "sub"}) + "(" + x + ", " + any() + "); ";
    }
    kind.push_back(name);
    unread_.push_back(name);
  }

  std::mt19937 random_;
  std::string lead_, n_, dtype_, text_;
  size_t half_ = 1;
  int n_operands_ = 0;
  std::vector<std::string> wide_, narrow_, unread_;
};

TEST(FusedRows, RandomGroupsEqualTheirParts) {
  for (unsigned seed = 1; seed <= 300; ++seed) {
    const std::string text = RandomGroup(seed).text();
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + text);
    const FusedCase fused(text, 1 + static_cast<int>(seed % 3));
    ASSERT_EQ(why_not_fused(fused.spec), "");
    const std::vector<RefTensor> inputs = random_inputs(fused, seed);
    expect_same(FusedRun(fused, inputs).fused(), FusedRun(fused, inputs).by_parts());
    if (HasFailure()) return;
  }
}

TEST(FusedRows, ResultInAnOperandsMemory) {
  for (const char* text :
       {"y = add(r: f32[6, 72], x: f32[6, 72]); n = rms_norm(y, w: f32[72], eps=1e-05) -> y, n",
        "a = div(x: f32[2, 3, 9, 40], k: f32[]); m = add(a, mask: f32[1, 1, 9, 40]); "
        "y = softmax(m, dim=-1) -> y"})
    for (int n_threads = 1; n_threads <= 3; ++n_threads) {
      SCOPED_TRACE(text);
      const FusedCase fused(text, n_threads);
      const std::vector<RefTensor> inputs = random_inputs(fused, 5);
      FusedRun in_place(fused, inputs);
      in_place.share(0, 0);
      expect_same(in_place.fused(), FusedRun(fused, inputs).by_parts());
    }
}

// Padding and places outside write nothing; of rows with one place the last stays.
TEST(FusedRows, WriteIntoACacheInPlace) {
  const std::vector<std::vector<double>> places = {
      {0, 1, 2, 3, 4, -1, -1}, {8, 2, 5, -1, 9, 0, 1}, {3, 3, 3, 3, 3, 3, 3}};
  for (const std::vector<double>& at : places)
    for (int n_threads = 1; n_threads <= 3; ++n_threads) {
      SCOPED_TRACE("places from " + std::to_string(at[0]) + ", " + std::to_string(n_threads));
      const FusedCase fused(
          "a = neg(k: f32[1, 2, 7, 16]); "
          "y = cache_write(c: f32[1, 2, 9, 16], at: i64[1, 7], a) -> y",
          n_threads);
      std::vector<RefTensor> inputs = random_inputs(fused, 8);
      inputs[2].data = at;
      FusedRun in_place(fused, inputs);
      in_place.share(0, 1);
      const std::vector<RefTensor> want = FusedRun(fused, inputs).by_parts();
      expect_same(in_place.fused(), want);
      expect_same(FusedRun(fused, inputs).fused(), want);
    }
}

// Scratch that nothing reads, values without elements that nothing writes: what is left where a
// chip has no share of the readers or writers.
TEST(FusedRows, WithoutSomeParts) {
  for (const char* text : {"a = neg(x: f32[2, 3]); y = exp(x); b = softmax(y, dim=1) -> y",
                           "a = neg(x: f32[2, 3]); y = exp(a); b = neg(a) -> y"}) {
    const FusedCase fused(text, 2);
    const std::vector<RefTensor> inputs = random_inputs(fused, 6);
    expect_same(FusedRun(fused, inputs).fused(), FusedRun(fused, inputs).by_parts());
  }
  FusedCase empty("a = neg(x: f32[2, 0]); y = cat(a, x: f32[2, 3], dim=1) -> y");
  empty.spec.parts.erase(empty.spec.parts.begin());
  EXPECT_EQ(why_not_fused(empty.spec), "");
}

// --- gemm ---

// LEAD: dims of x before k. All sums of small integers are exact, in any order, with f32 results.
const char* const kGemmGroups[] = {
    "a = linear(x: DT[LEAD131], w: panels DT[70, 131]); y = add(a, b: DT[70]) -> y",
    "a = linear(x: DT[LEAD40], w: panels DT[33, 40], b: DT[33]); *y = relu(a) -> y",
    "a = linear(x: DT[LEAD40], w: panels DT[33, 40]); b = add(c: DT[33], a); d = relu(b); "
    "e = add(d, r: DT[LEAD33]) -> e",
    "a = linear(*x: DT[LEAD64], w: panels DT[70, 64]); *y = add(*r: DT[LEAD70], a) -> y",
    "a = linear(x: DT[LEAD64], w: panels DT[70, 64]); c = cast(a, dtype=f32); "
    "y = add(c, r: f32[LEAD70]) -> y",
    // QKV
    "q = linear(x: DT[LEAD72], wq: panels DT[96, 72]); k = linear(x, wk: panels DT[33, 72]); "
    "*v = linear(x, wv: panels DT[5, 72]) -> q, k, v",
    "q = linear(x: DT[LEAD72], wq: panels DT[96, 72]); qb = add(q, bq: DT[96]); "
    "k = linear(x, wk: panels DT[33, 72]); kb = add(k, bk: DT[33]) -> qb, kb",
    // gate and up
    "g = linear(x: DT[LEAD72], wg: panels DT[70, 72]); u = linear(x, wu: panels DT[70, 72]); "
    "a = relu(g); y = mul(a, u) -> y",
    "u = linear(x: DT[LEAD72], wu: panels DT[70, 72]); g = linear(x, wg: panels DT[70, 72]); "
    "gb = add(g, bg: DT[70]); ub = add(u, bu: DT[70]); a = relu(gb); m = mul(ub, a); "
    "y = add(m, r: DT[LEAD70]) -> y",
    // a pair beside a single one
    "g = linear(x: DT[LEAD72], wg: panels DT[70, 72]); z = linear(x, wz: panels DT[40, 72]); "
    "u = linear(x, wu: panels DT[70, 72]); y = mul(g, u) -> y, z",
    // two stages: rows, gemm
    "h = add(x: DT[LEAD72], r: DT[LEAD72]); q = linear(h, wq: panels DT[96, 72]); "
    "k = linear(h, wk: panels DT[33, 72]) -> h, q, k",
    "a = relu(x: DT[LEAD72]); b = add(a, a); g = linear(b, wg: panels DT[70, 72]); "
    "u = linear(b, wu: panels DT[70, 72]); y = mul(g, u) -> y",
    // and gemm, rows
    "a = linear(x: DT[LEAD40], w: panels DT[34, 40]); h = add(a, r: DT[LEAD34]); "
    "s = amax(h, dim=[-1], keepdim=true); y = sub(h, s) -> h, y",
    "q = linear(x: DT[LEAD40], w: panels DT[32, 40]); a = ~slice(q, dim=-1, end=16); "
    "b = ~slice(q, dim=-1, start=16); n = neg(b); c = cat(n, a, dim=-1); y = add(c, q) -> y",
    // a result that is read again, an activation of a sum, a sum of two products
    "a = linear(x: DT[LEAD40], w: panels DT[33, 40]); y = relu(a) -> a, y",
    "a = linear(x: DT[LEAD40], w: panels DT[33, 40]); b = add(a, r: DT[LEAD33]); y = relu(b) -> y",
    "a = linear(x: DT[LEAD40], w: panels DT[33, 40]); b = linear(x, v: panels DT[33, 40]); "
    "y = add(a, b) -> y",
    // what goes before is needed after alone
    "t = neg(r: DT[LEAD33]); a = linear(x: DT[LEAD40], w: panels DT[33, 40]); s = mul(t, t); "
    "m = amax(a, dim=[-1], keepdim=true); y = add(s, m) -> y",
};

std::string gemm_text(const char* group, std::string_view dtype, std::string_view lead) {
  std::string text = with_type(group, dtype);
  for (size_t at; (at = text.find("LEAD")) != std::string::npos;) text.replace(at, 4, lead);
  return text;
}

// Every linear without a bias of its own over an int8 weight; the same text if there is none.
std::string with_int8(const std::string& text) {
  static const std::regex kLinear(R"(linear\(([^(]*), (\w+): panels \w+\[(\d+), (\d+)\]\))");
  return std::regex_replace(text, kLinear, "linear_int8($1, $2: panels i8[$3, $4], s$2: f32[$3])");
}

TEST(FusedGemm, EqualsItsPartsInIntegers) {
  unsigned seed = 1;
  std::vector<std::string> groups(std::begin(kGemmGroups), std::end(kGemmGroups));
  for (const char* group : kGemmGroups)
    if (std::string int8 = with_int8(group); int8 != group) groups.push_back(std::move(int8));
  for (const std::string& group : groups)
    for (const char* lead : {"1, ", "5, ", "2, 21, ", "", "0, "}) {
      const std::string text = gemm_text(group.c_str(), "f32", lead);
      SCOPED_TRACE(text + ", seed " + std::to_string(seed));
      for_each_way([&](int n_threads) {
        const FusedCase fused(text, n_threads);
        ASSERT_EQ(why_not_fused(fused.spec), "");
        const std::vector<RefTensor> inputs = random_inputs(fused, seed, 2);
        expect_same(FusedRun(fused, inputs).fused(), FusedRun(fused, inputs).by_parts());
      });
      ++seed;
    }
}

// 16-bit epilogues round once, the parts after each of up to four operators.
TEST(FusedGemm, IsCloseToItsPartsInAllTypes) {
  unsigned seed = 1;
  for (const char* group : kGemmGroups)
    for (const char* dtype : {"f32", "bf16", "f16"}) {
      const std::string text = gemm_text(group, dtype, "2, 5, ");
      SCOPED_TRACE(text + ", seed " + std::to_string(seed));
      for_each_way([&](int n_threads) {
        for (const std::string& one : {text, with_int8(text)}) {
          const FusedCase fused(one, n_threads);
          ASSERT_EQ(why_not_fused(fused.spec), "");
          const std::vector<RefTensor> inputs = random_inputs(fused, seed);
          expect_close(FusedRun(fused, inputs).fused(), FusedRun(fused, inputs).by_parts(),
                       4 * tolerance_of(*parse_dtype(dtype)));
        }
      });
      ++seed;
    }
}

const char* const kLayerGroups[] = {
    "n = rms_norm(x: DT[3, 7, 72], w: DT[72], eps=1e-05); q = linear(n, wq: panels DT[72, 72]); "
    "k = linear(n, wk: panels DT[24, 72]); v = linear(n, wv: panels DT[24, 72]) -> q, k, v",
    "h = add(x: DT[3, 7, 72], r: DT[3, 7, 72]); n = rms_norm(h, w: DT[72], eps=1e-05); "
    "g = linear(n, wg: panels DT[200, 72]); u = linear(n, wu: panels DT[200, 72]); a = silu(g); "
    "y = mul(a, u) -> h, y",
    "a = linear(x: DT[3, 7, 72], w: panels DT[72, 72]); h = add(r: DT[3, 7, 72], a); "
    "y = rms_norm(h, s: DT[72], eps=1e-05) -> h, y",
    "a = linear(x: DT[3, 7, 72], w: panels DT[200, 72]); b = add(a, c: DT[200]); "
    "y = gelu(b, approximate=\"tanh\") -> y",
    "a = linear(x: DT[3, 7, 72], w: panels DT[200, 72]); b = add(a, c: DT[200]); y = gelu(b) -> y",
    // QKV and rope, whose heads are seen through a permutation
    "q = linear(x: DT[2, 7, 48], wq: panels DT[48, 48]); v = linear(x, wv: panels DT[16, 48]); "
    "s = ~reshape(q, shape=[2, 7, 3, 16]); p = ~permute(s, dims=[0, 2, 1, 3]); "
    "a = ~slice(p, dim=3, end=8); b = ~slice(p, dim=3, start=8); n = neg(b); "
    "c = cat(n, a, dim=-1); d = mul(p, cos: DT[1, 1, 7, 16]); e = mul(c, sin: DT[1, 1, 7, 16]); "
    "y = add(d, e) -> y, v",
};

TEST(FusedGemm, PiecesOfDecoderLayers) {
  for_each_group(kLayerGroups, [](const Outputs& fused, const Outputs& by_parts, DType dtype) {
    expect_close(fused, by_parts, 4 * tolerance_of(dtype));
  });
}

// "rows programs before, gemms, parts that these do, rows programs after"
std::string form_of(const char* text) {
  const FusedPlan plan = plan_fused(FusedCase(text).spec);
  if (!plan.why_not.empty()) return plan.why_not;
  return std::to_string(plan.before.size()) + " " + std::to_string(plan.gemm.gemms.size()) + " " +
         std::to_string(plan.gemm.parts.size()) + " " + std::to_string(plan.after.size());
}

TEST(FusedGemm, EpiloguesTakeWhatTheyCan) {
  const std::string a = "a = linear(x: f32[4, 8], w: panels f32[6, 8]); ";
  const std::string b = "b = linear(x, v: panels f32[6, 8]); ";
  const auto form = [](const std::string& text) { return form_of(text.c_str()); };
  EXPECT_EQ(form(a + "c = add(a, k: f32[6]); d = gelu(c); y = add(d, r: f32[4, 6]) -> y"),
            "0 1 4 0");
  EXPECT_EQ(form(a + b + "c = silu(a); d = mul(c, b); y = add(d, r: f32[4, 6]) -> y"), "0 1 5 0");
  EXPECT_EQ(form("n = rms_norm(x: f32[4, 8], s: f32[8], eps=1e-05); "
                 "a = linear(n, w: panels f32[6, 8]); b = linear(n, v: panels f32[6, 8]) -> a, b"),
            "1 2 2 0");
  // Not: of a result that is kept, of another shape, after the residual, read twice, a scalar.
  EXPECT_EQ(form(a + "y = relu(a) -> a, y"), "0 1 1 1");
  EXPECT_EQ(form(a + "y = add(a, r: f32[4, 1]) -> y"), "0 1 1 1");
  EXPECT_EQ(form(a + "c = add(a, r: f32[4, 6]); y = relu(c) -> y"), "0 1 2 1");
  EXPECT_EQ(form(a + "c = relu(a); y = mul(c, a) -> y"), "0 1 1 1");
  EXPECT_EQ(form(a + "y = mul(a, k: f32[]) -> y"), "0 1 1 1");
  EXPECT_EQ(form(a + b + "c = silu(a); d = silu(b); y = mul(c, d) -> y"), "0 2 4 1");
  EXPECT_EQ(form(a + b + "y = add(a, b) -> y"), "0 2 2 1");
}

TEST(FusedGemm, ResultInTheResidualsMemory) {
  for (const char* text :
       {"a = linear(x: f32[9, 40], w: panels f32[70, 40]); y = add(r: f32[9, 70], a) -> y",
        "a = linear(x: f32[9, 40], w: panels f32[70, 40]); b = add(r: f32[9, 70], a); "
        "y = relu(b) -> y"}) {
    const FusedCase fused(text, 2);
    const std::vector<RefTensor> inputs = random_inputs(fused, 7, 2);
    FusedRun in_place(fused, inputs);
    in_place.share(0, 2);
    expect_same(in_place.fused(), FusedRun(fused, inputs).by_parts());
  }
}

// --- what can't be one step ---

TEST(Fused, SaysWhyNot) {
  const auto why = [](const char* text) { return why_not_fused(FusedCase(text).spec); };
  EXPECT_EQ(why("a = neg(x: f32[2, 3]); y = sum(a, dim=[0]) -> y"),
            "sum (part 1) is not over the last dimension alone");
  EXPECT_EQ(why("a = neg(x: f32[3, 3, 4]); b = ~permute(a, dims=[1, 0, 2]); y = neg(b) -> y"),
            "neg (part 1) reads other rows of what neg (part 0) gives");
  EXPECT_EQ(why("a = neg(x: f32[2, 3, 4]); b = ~permute(a, dims=[1, 0, 2]); y = neg(b) -> y"),
            "the dimensions of neg (part 1) cut the rows of neg (part 0) in another way");
  EXPECT_EQ(why("a = neg(x: f32[2, 6]); b = ~reshape(a, shape=[4, 3]); y = softmax(b, dim=1) -> y"),
            "softmax (part 1) has 4 rows, and neg (part 0) 2");
  EXPECT_EQ(why("a = neg(c: f32[1, 2, 4, 8]); "
                "y = cache_write(a, at: i64[1, 3], x: f32[1, 2, 3, 8]) -> y"),
            "cache_write (part 1) writes into what another part gives");
  EXPECT_EQ(why("a = cache_write(c: f32[1, 2, 3, 8], at: i64[1, 3], x: f32[1, 2, 3, 8]); "
                "y = neg(a) -> y"),
            "cache_write (part 0) gives what another part reads");
  EXPECT_EQ(why("a = neg(x: f32[3, 3]); y = matmul(a, a) -> y"),
            "matmul (part 1) does not work row by row");
  EXPECT_EQ(why("a = neg(x: f32[2, 3]); y = cat(a, a, dim=0) -> y"),
            "cat (part 1) is not in the last dimension");
  EXPECT_EQ(why("y = linear(x: f32[2, 3], w: f32[4, 3]) -> y"),
            "linear (part 0) has a weight that does not lie in panels");
  EXPECT_EQ(why("a = linear(x: f32[2, 3], w: panels f32[4, 3]); "
                "y = linear(a, v: panels f32[5, 4]) -> y"),
            "linear (part 1) reads what another linear gives");
  EXPECT_EQ(why("a = linear(x: f32[2, 3], w: panels f32[4, 3]); "
                "y = linear_int8(x, v: panels i8[4, 3], s: f32[4]) -> a, y"),
            "linear_int8 (part 1) has a weight of another type than linear (part 0)");
  EXPECT_EQ(why("a = linear(x: f32[2, 3], w: panels f32[4, 3]); "
                "y = linear(z: f32[2, 3], v: panels f32[4, 3]) -> a, y"),
            "linear (part 1) reads another x than linear (part 0)");
  EXPECT_EQ(why("n = softmax(x: f32[2, 3], dim=-1); a = linear(n, w: panels f32[4, 3]); "
                "y = softmax(a, dim=-1) -> y"),
            "softmax (part 2) must follow the gemm, and softmax (part 0) go before it: "
            "three stages");
}

TEST(Fused, RefusesSpecsOutOfOrder) {
  FusedCase fused("a = neg(x: f32[2, 3]); b = exp(a); y = neg(b) -> y");
  std::swap(fused.spec.parts[0], fused.spec.parts[1]);
  EXPECT_EQ(why_not_fused(fused.spec), "exp (part 0) reads what nothing has written");
  fused = FusedCase("a = neg(x: f32[2, 3]); b = exp(a); y = neg(b) -> y");
  fused.spec.parts[1].results = fused.spec.parts[0].results;
  EXPECT_EQ(why_not_fused(fused.spec), "exp (part 1) writes what another part has written");
}

}  // namespace
}  // namespace shardwright::ops
