// The file of measurements.
#include "cli/measured.h"

#include <fstream>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/units.h"

namespace shardwright::cli {
namespace {

using Json = nlohmann::ordered_json;

// Null where there is none, or no JSON of ours.
Json read_json(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  Json json = file ? Json::parse(file, nullptr, false) : Json();
  const bool ours = json.is_object() && json.contains("pef_digest") &&
                    json["pef_digest"].is_string() && json.contains("measurements") &&
                    json["measurements"].is_array();
  return ours ? json : Json();
}

bool is_of(const Json& entry, const std::string& graph, size_t n_chips) {
  return entry.is_object() && entry.value("graph", "") == graph &&
         entry.value("n_chips", size_t{0}) == n_chips;
}

Json to_json(const Measurement& m) {
  Json chips = Json::array();
  for (const auto& steps : m.chips) {
    Json& chip = chips.emplace_back(Json::array());
    for (const Measurement::Step& step : steps)
      chip.push_back({{"seconds", step.seconds},
                      {"waited_seconds", step.waited_seconds},
                      {"received_bytes", step.received_bytes}});
  }
  return Json{{"graph", m.graph},
              {"n_chips", m.n_chips},
              {"threads_per_chip", m.threads_per_chip},
              {"runs", m.runs},
              {"chips", chips}};
}

Measurement from_json(const Json& json) {
  Measurement m{.graph = json.at("graph"),
                .n_chips = json.at("n_chips"),
                .threads_per_chip = json.at("threads_per_chip"),
                .runs = json.at("runs"),
                .chips = {}};
  for (const Json& chip : json.at("chips")) {
    auto& steps = m.chips.emplace_back();
    for (const Json& step : chip)
      steps.push_back({step.at("seconds"), step.at("waited_seconds"), step.at("received_bytes")});
  }
  return m;
}

bool has_steps(const Measurement& m, const std::vector<size_t>& steps) {
  if (m.chips.size() != steps.size()) return false;
  for (size_t chip = 0; chip < steps.size(); ++chip)
    if (m.chips[chip].size() != steps[chip]) return false;
  return true;
}

}  // namespace

Measurement measurement_of(const runtime::Session& session, const std::string& graph,
                           const std::vector<std::vector<runtime::StepProfile>>& profiles,
                           int runs) {
  Measurement m{.graph = graph,
                .n_chips = session.plan().n_chips,
                .threads_per_chip = session.threads_per_chip(),
                .runs = runs,
                .chips = {}};
  for (const auto& profile : profiles) {
    auto& steps = m.chips.emplace_back();
    for (const runtime::StepProfile& step : profile)
      steps.push_back(
          {step.seconds / runs, step.waited_seconds / runs, step.received_bytes / runs});
  }
  return m;
}

std::string measured_path(const std::string& pef) { return pef + ".measured.json"; }

void write_measurement(const std::string& pef, const std::string& digest,
                       const Measurement& measurement) {
  Json json = read_json(measured_path(pef));
  if (json.is_null() || json["pef_digest"] != digest)
    json = {{"schema_version", 1}, {"pef_digest", digest}, {"measurements", Json::array()}};
  Json kept = Json::array({to_json(measurement)});
  for (const Json& entry : json["measurements"])
    if (!is_of(entry, measurement.graph, measurement.chips.size())) kept.push_back(entry);
  json["measurements"] = kept;
  AtomicFile file(measured_path(pef));
  file.write_at(0, json.dump());
  file.commit();
}

Measured read_measurement(const std::string& pef, const std::string& digest,
                          const std::string& graph, const std::vector<size_t>& steps) {
  const std::string path = measured_path(pef);
  const std::string remedy =
      fmt::format("`shardwright measure-performance {} --n-chips {}` measures", pef, steps.size());
  if (!std::ifstream(path)) return {{}, "nothing is measured yet: " + remedy};
  const Json json = read_json(path);
  if (json.is_null()) return {{}, fmt::format("{} can't be read: {} anew", path, remedy)};
  if (json["pef_digest"] != digest)
    return {{}, fmt::format("{} is of another file: {} this one", path, remedy)};
  for (const Json& entry : json["measurements"]) {
    if (!is_of(entry, graph, steps.size())) continue;
    try {
      Measurement m = from_json(entry);
      if (has_steps(m, steps)) return {std::move(m), ""};
    } catch (const Json::exception&) {  // falls through: the file is damaged
    }
    return {{}, fmt::format("{} can't be read: {} anew", path, remedy)};
  }
  return {{},
          fmt::format("graph {} on {} is not measured yet: {}", graph,
                      count_text(std::ssize(steps), "chip"), remedy)};
}

}  // namespace shardwright::cli
