// Fused steps: which there are, and their kernels.
#include "ops/fused.h"

#include "base/check.h"

namespace shardwright::ops {

std::string why_not_fused(const FusedSpec&) { return "no kernel runs several operators yet"; }

std::unique_ptr<Kernel> make_fused_kernel(const FusedSpec& spec) {
  const std::string why_not = why_not_fused(spec);
  CHECK(false, why_not);
}

}  // namespace shardwright::ops
