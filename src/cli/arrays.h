// The arrays of one run: inputs from files or random, outputs to files.
#pragma once

#include <string>
#include <vector>

#include "runtime/session.h"

namespace shardwright::cli {

struct RunArrays {
  std::vector<SharedBytes> input_bytes;
  std::vector<std::vector<std::byte>> output_bytes;
  std::vector<runtime::ConstArray> inputs;
  std::vector<runtime::Array> outputs;
};

// `files`: "NAME=FILE.npy"; every input that has none is random (`seed`): floats normal, integers
// below what the model's tables hold. Throws Error(kUsage): an unknown name (lists the names), a
// file of another dtype or shape.
RunArrays make_arrays(const pef::GraphSignature& graph, const std::string& report_json,
                      const std::vector<std::string>& files, uint64_t seed);

// Index of graph `name` ("": the first). Throws Error(kUsage) listing the names.
int find_graph(const pef::Manifest& manifest, const std::string& name);

// |a - b| / |b| in the 2-norm, over elements as double. Infinity where exactly one of both is not
// finite.
double relative_difference(const TensorType& type, const std::byte* a, const std::byte* b);

}  // namespace shardwright::cli
