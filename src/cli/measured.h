// What measure-performance found, kept beside the PEF as PEF.measured.json: explain shows it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runtime/session.h"

namespace shardwright::cli {

struct Measurement {
  std::string graph;
  int n_chips = 1;
  int threads_per_chip = 1;
  int runs = 1;
  struct Step {  // means of a run
    double seconds = 0;
    double waited_seconds = 0;   // of these, for other chips
    int64_t received_bytes = 0;  // from other chips
  };
  std::vector<std::vector<Step>> chips;  // [chip][step of its program]
};

Measurement measurement_of(const runtime::Session& session, const std::string& graph,
                           const std::vector<std::vector<runtime::StepProfile>>& profiles,
                           int runs);

std::string measured_path(const std::string& pef);
// Keeps what the file says of other graphs and numbers of chips if it is of the same PEF
// (`digest`: pef::File::digest). Throws Error(kUsage) where the folder can't be written.
void write_measurement(const std::string& pef, const std::string& digest,
                       const Measurement& measurement);

struct Measured {
  std::optional<Measurement> found;
  std::string why_not;  // for people, if none was found
};
// `steps[chip]`: how many the plan has.
Measured read_measurement(const std::string& pef, const std::string& digest,
                          const std::string& graph, const std::vector<size_t>& steps);

}  // namespace shardwright::cli
