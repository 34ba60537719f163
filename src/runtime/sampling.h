// Sampling: which token follows, from the logits of one position.
#pragma once

#include <cstdint>
#include <random>
#include <unordered_set>
#include <utility>
#include <vector>

#include "tensor/dtype.h"

namespace shardwright::runtime {

// Applied in this order, as transformers' `generate` does.
struct Sampling {
  // Logits of tokens that were there before: divided by it if positive, else multiplied
  // (Keskar et al., CTRL, 2019). 1: as they are.
  double repetition_penalty = 1;
  double temperature = 0;  // logits are divided by it; 0: always the likeliest token (greedy)
  int64_t top_k = 0;       // only the k likeliest tokens; 0: all
  double top_p = 1;        // only the fewest likeliest ones of at least this probability together
  uint64_t seed = 0;
};
// Throws Error(kUsage) for values that make no sense: says which ones do.
void check(const Sampling& sampling);

class Sampler {
 public:
  explicit Sampler(const Sampling& sampling) : sampling_(sampling), random_(sampling.seed) {}
  // A token that was there before: of the prompt, or one that next() gave.
  void saw(int64_t token);
  // logits: f32, bf16 or f16 [count]. The first of equals where greedy. The same seed and logits
  // give the same tokens on every machine. A NaN is less likely than all else.
  int64_t next(DType dtype, const void* logits, int64_t count);

 private:
  using Candidate = std::pair<float, int64_t>;  // logit, token
  void read(DType dtype, const void* logits, int64_t count);
  int64_t draw();
  static bool is_likelier(const Candidate& a, const Candidate& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  }
  void sort_first(size_t count);
  size_t within_top_p(size_t kept, bool is_sorted, float largest);
  double weight(size_t candidate, float largest) const;

  Sampling sampling_;
  std::mt19937_64 random_;
  std::unordered_set<int64_t> seen_;
  std::vector<float> logits_;
  std::vector<Candidate> candidates_;
};

}  // namespace shardwright::runtime
