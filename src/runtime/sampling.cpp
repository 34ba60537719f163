// Greedy choice, or a draw from the tokens that top-k and top-p leave.
#include "runtime/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "base/check.h"
#include "base/error.h"
#include "tensor/tensor.h"

namespace shardwright::runtime {

void check(const Sampling& s) {
  const auto require = [](bool holds, const char* name, double value, const char* works) {
    if (!holds) throw Error(ErrorCode::kUsage, fmt::format("--{} {}: give {}", name, value, works));
  };
  require(s.temperature >= 0 && std::isfinite(s.temperature), "temperature", s.temperature,
          "0 (always the likeliest token) or more; 0.7 is usual");
  require(s.top_k >= 0, "top-k", static_cast<double>(s.top_k), "0 (all tokens) or more");
  require(s.top_p > 0 && s.top_p <= 1, "top-p", s.top_p, "more than 0 and at most 1 (all tokens)");
  require(s.repetition_penalty > 0 && std::isfinite(s.repetition_penalty), "repetition-penalty",
          s.repetition_penalty, "more than 0; 1 changes nothing, 1.1 is usual");
}

void Sampler::saw(int64_t token) {
  if (sampling_.repetition_penalty != 1) seen_.insert(token);
}

void Sampler::read(DType dtype, const void* logits, int64_t count) {
  logits_.resize(static_cast<size_t>(count));
  if (dtype == DType::kF32) {
    std::copy_n(static_cast<const float*>(logits), count, logits_.begin());
  } else {
    const auto* bytes = static_cast<const std::byte*>(logits);
    for (int64_t i = 0; i < count; ++i)
      logits_[static_cast<size_t>(i)] =
          static_cast<float>(load_element(dtype, bytes + i * dtype_bytes(dtype)));
  }
  for (float& logit : logits_)
    if (std::isnan(logit)) logit = -std::numeric_limits<float>::infinity();
  const auto penalty = static_cast<float>(sampling_.repetition_penalty);
  for (const int64_t token : seen_) {
    if (token < 0 || token >= count) continue;
    float& logit = logits_[static_cast<size_t>(token)];
    logit = logit > 0 ? logit / penalty : logit * penalty;
  }
}

int64_t Sampler::next(DType dtype, const void* logits, int64_t count) {
  CHECK(count > 0);
  read(dtype, logits, count);
  const int64_t token =
      sampling_.temperature == 0
          ? std::distance(logits_.begin(), std::max_element(logits_.begin(), logits_.end()))
          : draw();
  saw(token);
  return token;
}

// Candidates are sorted from the likeliest on, as far as top-k or top-p look.
int64_t Sampler::draw() {
  const size_t count = logits_.size();
  candidates_.resize(count);
  for (size_t i = 0; i < count; ++i) candidates_[i] = {logits_[i], static_cast<int64_t>(i)};
  const auto likelier = [](const Candidate& a, const Candidate& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  };
  size_t kept = count;
  if (sampling_.top_k > 0) kept = std::min(count, static_cast<size_t>(sampling_.top_k));
  size_t sorted = std::min<size_t>(kept, sampling_.top_p < 1 ? 64 : kept);
  const bool whole = kept == count && sampling_.top_p == 1;
  if (!whole)
    std::partial_sort(candidates_.begin(),
                      candidates_.begin() + static_cast<std::ptrdiff_t>(sorted), candidates_.end(),
                      likelier);
  const float largest =
      whole ? *std::max_element(logits_.begin(), logits_.end()) : candidates_[0].first;
  const auto weight = [&](size_t i) {
    return std::exp((static_cast<double>(candidates_[i].first) - static_cast<double>(largest)) /
                    sampling_.temperature);
  };
  if (!std::isfinite(largest)) return candidates_[0].second;  // no logit means anything
  if (sampling_.top_p < 1) {
    // The probability of each is relative to those that top-k leaves.
    if (kept < count) {
      sorted = kept;
      std::partial_sort(candidates_.begin(),
                        candidates_.begin() + static_cast<std::ptrdiff_t>(sorted),
                        candidates_.end(), likelier);
    }
    double total = 0;
    for (size_t i = 0; i < kept; ++i) total += weight(i);
    double reached = 0;
    size_t n = 0;
    while (n < kept && reached < sampling_.top_p * total) {
      if (n == sorted) {
        sorted = std::min(kept, sorted * 8);
        std::partial_sort(candidates_.begin(),
                          candidates_.begin() + static_cast<std::ptrdiff_t>(sorted),
                          candidates_.end(), likelier);
      }
      reached += weight(n++);
    }
    kept = std::max<size_t>(n, 1);
  }
  double total = 0;
  for (size_t i = 0; i < kept; ++i) total += weight(i);
  // 53 random bits: distributions of the standard library differ between implementations.
  const double point = static_cast<double>(random_() >> 11) * 0x1p-53 * total;
  double reached = 0;
  for (size_t i = 0; i < kept; ++i) {
    reached += weight(i);
    if (point < reached) return candidates_[i].second;
  }
  return candidates_[kept - 1].second;
}

}  // namespace shardwright::runtime
