// check_outputs: the chips together write every element of every user output, and none twice.
#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "pef/check.h"

namespace shardwright::pef {
namespace {

[[noreturn]] void broken(const std::string& message) {
  throw Error(ErrorCode::kBrokenFile, message);
}

using Block = std::vector<Range>;  // one a dimension of the output

// The rows of a contiguous array of shape `whole` that the buffer is, its own dimensions being some
// of the array's in any order, merged or split. Nothing if it is no such block.
std::optional<Block> block_of(const Buffer& buffer, const Shape& whole) {
  std::vector<std::pair<int64_t, int64_t>> dims;  // stride, size
  for (size_t d = 0; d < buffer.strides.size(); ++d)
    if (buffer.type.shape[d] > 1) dims.emplace_back(buffer.strides[d], buffer.type.shape[d]);
  std::sort(dims.begin(), dims.end());
  const Strides strides = contiguous_strides(whole);
  const int64_t offset = buffer.offset_bytes / dtype_bytes(buffer.type.dtype);
  Block block;
  for (size_t d = 0; d < whole.size(); ++d) {
    const int64_t begin = offset / strides[d] % whole[d];
    block.push_back({begin, begin + 1});
  }
  for (auto [stride, size] : dims) {
    while (size > 1) {
      size_t d = whole.size();  // the one dimension that grows in steps of `stride`, + 1
      while (d > 0 && (strides[d - 1] * block[d - 1].size() != stride ||
                       block[d - 1].size() == whole[d - 1]))
        --d;
      if (d-- == 0) return std::nullopt;
      const int64_t times = std::min(size, whole[d] / block[d].size());
      if (times == 1 || size % times != 0) return std::nullopt;
      block[d].end = block[d].begin + block[d].size() * times;
      if (block[d].end > whole[d]) return std::nullopt;
      stride *= times;
      size /= times;
    }
  }
  return block;
}

bool overlap(const Block& a, const Block& b) {
  for (size_t d = 0; d < a.size(); ++d)
    if (std::max(a[d].begin, b[d].begin) >= std::min(a[d].end, b[d].end)) return false;
  return true;
}

// What the steps of one chip write of an output, if anything.
std::optional<Block> written_block(const Program& program, int output, const Shape& whole) {
  std::optional<Block> block;
  for (size_t i = 0; i < program.steps.size(); ++i)
    for (const Buffer& buffer : program.steps[i].results) {
      if (buffer.space != Space::kOutput || buffer.index != output || buffer.type.count() == 0)
        continue;
      if (block) broken(fmt::format("step {} writes it a second time", i));
      block = block_of(buffer, whole);
      if (!block) broken(fmt::format("what step {} writes is no block of it", i));
    }
  return block;
}

void check_output(const Plan& plan, size_t graph, int output, const TensorType& whole) {
  std::vector<std::pair<size_t, Block>> blocks;
  int64_t count = 0;
  for (size_t c = 0; c < plan.chips.size(); ++c) {
    const auto block = written_block(plan.chips[c].programs[graph], output, whole.shape);
    if (!block) continue;
    int64_t size = 1;
    for (const Range& rows : *block) size *= rows.size();
    count += size;
    for (const auto& [other, rows] : blocks)
      if (overlap(*block, rows))
        broken(fmt::format("chips {} and {} write the same elements", other, c));
    blocks.emplace_back(c, *block);
  }
  if (count != whole.count())
    broken(fmt::format("the chips write {} of its {} elements", count, whole.count()));
}

}  // namespace

void check_outputs(const Manifest& manifest, const Plan& plan, size_t graph) {
  const GraphSignature& signature = manifest.graphs[graph];
  for (size_t i = 0; i < signature.outputs.size(); ++i) {
    try {
      check_output(plan, graph, static_cast<int>(i), signature.outputs[i].type);
    } catch (const Error& error) {
      throw error.within(
          fmt::format("graph {}, output {}", signature.name, signature.outputs[i].name));
    }
  }
}

}  // namespace shardwright::pef
