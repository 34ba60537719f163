// Arrays of a run.
#include "cli/arrays.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/npy.h"

namespace shardwright::cli {
namespace {

std::string names_of(const std::vector<pef::Signature>& signatures) {
  std::string names;
  for (const pef::Signature& s : signatures)
    names += fmt::format("{}{} ({})", names.empty() ? "" : ", ", s.name, to_string(s.type));
  return names;
}

int64_t bound_of(const std::string& report_json, const std::string& graph,
                 const std::string& input) {
  const auto report = nlohmann::json::parse(report_json, nullptr, false);
  if (!report.is_object() || !report.contains("input_below")) return 2;
  const auto& bounds = report["input_below"];
  if (!bounds.contains(graph) || !bounds[graph].contains(input)) return 2;
  return std::max<int64_t>(1, bounds[graph][input].get<int64_t>());
}

SharedBytes random_bytes(const TensorType& type, int64_t below, std::mt19937_64& random) {
  std::byte* to = nullptr;
  SharedBytes bytes = SharedBytes::allocate(type.bytes(), &to);
  std::normal_distribution<double> normal;
  for (int64_t i = 0; i < type.count(); ++i) {
    const double value = is_floating(type.dtype)
                             ? normal(random)
                             : static_cast<double>(random() % static_cast<uint64_t>(below));
    store_element(type.dtype, to + i * dtype_bytes(type.dtype), value);
  }
  return bytes;
}

}  // namespace

RunArrays make_arrays(const pef::GraphSignature& graph, const std::string& report_json,
                      const std::vector<std::string>& files, uint64_t seed) {
  RunArrays arrays;
  arrays.input_bytes.resize(graph.inputs.size());
  for (const std::string& file : files) {
    const size_t equals = file.find('=');
    if (equals == std::string::npos)
      throw Error(ErrorCode::kUsage,
                  fmt::format("--input {}: expected NAME=FILE.npy; inputs are {}", file,
                              names_of(graph.inputs)));
    const std::string name = file.substr(0, equals);
    size_t index = 0;
    while (index < graph.inputs.size() && graph.inputs[index].name != name) ++index;
    if (index == graph.inputs.size())
      throw Error(ErrorCode::kUsage,
                  fmt::format("--input {}: graph '{}' has no input '{}'; inputs are {}", file,
                              graph.name, name, names_of(graph.inputs)));
    const NpyArray array = read_npy(file.substr(equals + 1));
    if (array.type != graph.inputs[index].type)
      throw Error(
          ErrorCode::kUsage,
          fmt::format("--input {}: the file holds {}, but input '{}' of this PEF is {}", file,
                      to_string(array.type), name, to_string(graph.inputs[index].type)));
    arrays.input_bytes[index] = array.bytes;
  }
  std::mt19937_64 random(seed);
  for (size_t i = 0; i < graph.inputs.size(); ++i) {
    if (arrays.input_bytes[i].data == nullptr)
      arrays.input_bytes[i] = random_bytes(
          graph.inputs[i].type, bound_of(report_json, graph.name, graph.inputs[i].name), random);
    arrays.inputs.push_back({graph.inputs[i].type, arrays.input_bytes[i].data});
  }
  for (const pef::Signature& output : graph.outputs) {
    arrays.output_bytes.emplace_back(static_cast<size_t>(output.type.bytes()));
    arrays.outputs.push_back({output.type, arrays.output_bytes.back().data()});
  }
  return arrays;
}

int find_graph(const pef::Manifest& manifest, const std::string& name) {
  std::string names;
  for (size_t i = 0; i < manifest.graphs.size(); ++i) {
    if (name.empty() || manifest.graphs[i].name == name) return static_cast<int>(i);
    names += (names.empty() ? "" : ", ") + manifest.graphs[i].name;
  }
  throw Error(ErrorCode::kUsage,
              fmt::format("--graph {}: the PEF has no such graph; it has {}", name, names));
}

double relative_difference(const TensorType& type, const std::byte* a, const std::byte* b) {
  double difference = 0, norm = 0;
  const int64_t step = dtype_bytes(type.dtype);
  for (int64_t i = 0; i < type.count(); ++i) {
    const double x = load_element(type.dtype, a + i * step),
                 y = load_element(type.dtype, b + i * step);
    if (x == y || (std::isnan(x) && std::isnan(y))) {
      norm += std::isfinite(y) ? y * y : 0;
      continue;
    }
    if (!std::isfinite(x) || !std::isfinite(y)) return std::numeric_limits<double>::infinity();
    difference += (x - y) * (x - y);
    norm += y * y;
  }
  if (difference == 0) return 0;
  return norm == 0 ? std::numeric_limits<double>::infinity() : std::sqrt(difference / norm);
}

}  // namespace shardwright::cli
