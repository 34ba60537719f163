// RefCall: where this chip's range of a factor starts.
#include "ops/reference.h"

#include "ops/kernel.h"

namespace shardwright::ops {

namespace {

int64_t begin_of(std::span<const std::pair<std::string, int64_t>> begins, std::string_view factor) {
  for (const auto& [name, begin] : begins)
    if (name == factor) return begin;
  return 0;
}

}  // namespace

int64_t RefCall::begin(std::string_view factor) const { return begin_of(begins, factor); }

int64_t KernelSpec::begin(std::string_view factor) const { return begin_of(begins, factor); }

}  // namespace shardwright::ops
