// The checks of one operator, as a step of its own or as a part of a fused one.
#pragma once

#include <string>

#include "ops/op.h"
#include "pef/program.h"

namespace shardwright::pef {

[[noreturn]] void broken(const std::string& message);  // throws Error(kBrokenFile)

// Operands and attributes as the operator declares them, begins not negative.
void check_arguments(const ops::OpDef& op, const Step& step);
// A known operator with a kernel, and its arguments.
void check_operator(const Step& step);
// Result types as the operator's rule gives them, where it holds for pieces. Of buffers with sound
// shapes (byte_range).
void check_rule(const Step& step);
// The buffer, which covers `range` of a memory of `size_bytes`, is inside it and aligned to its
// elements.
void check_inside(const Buffer& buffer, const Range& range, int64_t size_bytes);
// The kernel takes operands and results that lie like this (`layouts` of the operands): it would
// read or write elsewhere otherwise.
void check_strides(const Step& step, const std::vector<ops::Layout>& layouts);

}  // namespace shardwright::pef
