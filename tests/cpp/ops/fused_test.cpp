// Fused steps against their parts, run one by one by the kernels that the operators have alone.
#include "kernels/cpu/isa.h"
#include "ops/fused_case.h"

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
    // softmax by hand, and as it is
    "m = amax(x: DT[6, 37], dim=[-1], keepdim=true); d = sub(x, m); e = exp(d); "
    "t = sum(e, dim=[1], keepdim=true); y = div(e, t) -> y",
    "s = mul(x: DT[2, 3, 5, 40], k: DT[]); m = add(s, mask: DT[1, 1, 5, 40]); "
    "y = softmax(m, dim=-1) -> y",
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
    // nothing
    "a = add(x: DT[0, 5], x); y = softmax(a, dim=-1) -> y",
};

TEST(FusedRows, EqualTheirPartsBitForBit) {
  unsigned seed = 1;
  for (const char* group : kRowGroups)
    for (const char* dtype : {"f32", "bf16", "f16"}) {
      const std::string text = with_type(group, dtype);
      SCOPED_TRACE(text + ", seed " + std::to_string(seed));
      for_each_way([&](int n_threads) {
        const FusedCase fused(text, n_threads);
        ASSERT_EQ(why_not_fused(fused.spec), "");
        const std::vector<RefTensor> inputs = random_inputs(fused, seed);
        expect_same(FusedRun(fused, inputs).fused(), FusedRun(fused, inputs).by_parts());
      });
      ++seed;
    }
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
  const char* const text =
      "h = add(x: f32[6, 72], r: f32[6, 72]); y = rms_norm(h, w: f32[72], eps=1e-05) -> h, y";
  const FusedCase fused(text, 2);
  EXPECT_TRUE(may_share(fused.spec, 0, 0));
  EXPECT_TRUE(may_share(fused.spec, 0, 1));
  EXPECT_TRUE(may_share(fused.spec, 1, 0));   // read before, in the same rows
  EXPECT_FALSE(may_share(fused.spec, 1, 2));  // the weight is read by all rows
  const std::vector<RefTensor> inputs = random_inputs(fused, 5);
  FusedRun in_place(fused, inputs);
  in_place.share(0, 1);
  expect_same(in_place.fused(), FusedRun(fused, inputs).by_parts());
}

TEST(FusedRows, ResultNotInMemoryThatIsReadLater) {
  const auto shares = [](const char* text, int operand) {
    return may_share(FusedCase(text).spec, 0, operand);
  };
  EXPECT_FALSE(shares("a = silu(x: f32[4, 8]); b = softmax(a, dim=-1); y = add(b, x) -> a, y", 0));
  EXPECT_FALSE(
      shares("a = ~permute(x: f32[8, 8], dims=[1, 0]); b = silu(a); c = add(b, x) -> c", 0));
  EXPECT_FALSE(shares("a = cast(x: f32[4, 8], dtype=bf16); y = neg(a) -> y", 0));
  // Programs of one stage are not in step.
  EXPECT_FALSE(
      shares("a = silu(x: f32[4, 8]); y = neg(a); b = exp(z: f32[4, 8]); u = neg(b) -> y, u", 1));
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
  EXPECT_EQ(why("a = neg(x: f32[3, 3]); y = matmul(a, a) -> y"),
            "matmul (part 1) does not work row by row");
  EXPECT_EQ(why("a = neg(x: f32[2, 3]); y = cat(a, a, dim=0) -> y"),
            "cat (part 1) is not in the last dimension");
}

TEST(Fused, RefusesSpecsOutOfOrder) {
  FusedCase fused("a = neg(x: f32[2, 3]); b = exp(a); y = neg(b) -> y");
  std::swap(fused.spec.parts[0], fused.spec.parts[1]);
  EXPECT_EQ(why_not_fused(fused.spec), "exp (part 0) reads what nothing has written");
  fused = FusedCase("a = neg(x: f32[2, 3]); b = exp(a); y = neg(b) -> y");
  fused.spec.parts[1].results = fused.spec.parts[0].results;
  EXPECT_EQ(why_not_fused(fused.spec), "exp (part 1) writes what another part has written");
  fused = FusedCase("a = neg(x: f32[2, 3]); y = neg(x); -> y");
  EXPECT_EQ(why_not_fused(fused.spec), "neg (part 0) writes scratch that nothing reads");
}

}  // namespace
}  // namespace shardwright::ops
