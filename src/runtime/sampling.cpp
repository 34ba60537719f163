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

void Sampler::sort_first(size_t count) {
  std::partial_sort(candidates_.begin(), candidates_.begin() + static_cast<std::ptrdiff_t>(count),
                    candidates_.end(), is_likelier);
}

// Sorts no more of the first `kept` candidates than are needed.
size_t Sampler::within_top_p(size_t kept, bool is_sorted, float largest) {
  double total = 0;
  for (size_t i = 0; i < kept; ++i) total += weight(i, largest);
  size_t sorted = is_sorted ? kept : 0;
  double reached = 0;
  size_t n = 0;
  while (n < kept && (n == 0 || reached < sampling_.top_p * total)) {
    if (n == sorted) sort_first(sorted = std::min(kept, std::max<size_t>(64, sorted * 8)));
    reached += weight(n++, largest);
  }
  return n;
}

// Relative to the likeliest token's.
double Sampler::weight(size_t candidate, float largest) const {
  return std::exp(
      (static_cast<double>(candidates_[candidate].first) - static_cast<double>(largest)) /
      sampling_.temperature);
}

int64_t Sampler::draw() {
  candidates_.clear();
  for (const float logit : logits_) candidates_.emplace_back(logit, std::ssize(candidates_));
  size_t kept = candidates_.size();
  const auto k = static_cast<size_t>(sampling_.top_k);
  const bool is_cut = k > 0 && k < kept;
  if (is_cut) sort_first(kept = k);
  const Candidate likeliest =
      *std::min_element(candidates_.begin(), candidates_.end(), is_likelier);
  if (!std::isfinite(likeliest.first)) return likeliest.second;  // no others have a weight
  if (sampling_.top_p < 1) kept = within_top_p(kept, is_cut, likeliest.first);
  double total = 0;
  for (size_t i = 0; i < kept; ++i) total += weight(i, likeliest.first);
  // 53 random bits: distributions of the standard library differ between implementations.
  const double point = static_cast<double>(random_() >> 11) * 0x1p-53 * total;
  double reached = 0;
  for (size_t i = 0; i < kept; ++i) {
    reached += weight(i, likeliest.first);
    if (point < reached) return candidates_[i].second;
  }
  return candidates_[kept - 1].second;
}

}  // namespace shardwright::runtime
