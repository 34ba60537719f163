// Options of the commands that open a PEF, and the refusal of those that contradict it.
#include "cli/pef_options.h"

#include <algorithm>
#include <filesystem>

#include <fmt/format.h>

#include "base/error.h"

namespace shardwright::cli {
namespace {

void contradict(const std::string& option, const std::string& given, const std::string& has) {
  throw Error(ErrorCode::kUsage,
              fmt::format("{} {} contradicts the PEF, which was compiled with {}; leave the option "
                          "out (run reads it from the PEF), or "
                          "compile again",
                          option, given, has));
}

std::string recorded(const pef::Manifest& manifest, const std::string& option) {
  const auto found = manifest.options.find(option);
  return found == manifest.options.end() ? std::string() : found->second;
}

}  // namespace

void add_pef_options(CLI::App& command, PefOptions& options, const Globals& globals) {
  CLI::Option* pef = command.add_option(
      "PEF,-p,--pef", options.pef,
      globals.provider ? "The PEF file (default: the newest below out/)" : "The PEF file");
  if (!globals.provider) pef->required();
  command.add_option("--n-chips", options.n_chips, "Which of the PEF's plans (default: its first)");
  command.add_option("--threads", options.threads,
                     "Threads a chip (default: allowed CPUs / chips)");
  command
      .add_option("--deadline-ms", options.deadline_ms,
                  "How long a chip waits for another before the run ends")
      ->check(CLI::PositiveNumber);
  command.add_option("--graph", options.graph, "Which graph (default: the first)");
  command.add_option("--tensor-parallel", options.tensor_parallel)->group("");
  command.add_option("-b,--batch-size", options.batch_size)->group("");
  command.add_option("--precision", options.precision)->group("");
  command.add_flag("--inference", options.inference)->group("");
}

void check_contradictions(const PefOptions& options, const pef::Manifest& manifest) {
  if (options.n_chips < 0)
    throw Error(ErrorCode::kUsage, fmt::format("--n-chips {}: give 1 or more", options.n_chips));
  if (options.tensor_parallel) {
    const std::string mode = recorded(manifest, "tensor-parallel");
    if (*options.tensor_parallel != mode)
      contradict("--tensor-parallel", *options.tensor_parallel, "--tensor-parallel " + mode);
  }
  if (options.batch_size && !manifest.graphs.empty() && !manifest.graphs[0].inputs.empty()) {
    const Shape& shape = manifest.graphs[0].inputs[0].type.shape;
    const int64_t batch = shape.empty() ? 1 : shape[0];
    if (*options.batch_size != batch)
      contradict("-b", fmt::format("{}", *options.batch_size), fmt::format("-b {}", batch));
  }
  if (options.precision) {
    const std::string precision = recorded(manifest, "precision");
    if (!precision.empty() && *options.precision != precision)
      contradict("--precision", *options.precision, "--precision " + precision);
  }
}

std::string pef_of(const PefOptions& options) {
  if (!options.pef.empty()) return options.pef;
  namespace fs = std::filesystem;
  std::string newest;
  fs::file_time_type newest_time;
  std::error_code error;
  for (const auto& entry : fs::recursive_directory_iterator("out", error)) {
    if (entry.path().extension() != ".pef") continue;
    const auto time = entry.last_write_time(error);
    if (newest.empty() || time > newest_time) newest = entry.path().string(), newest_time = time;
  }
  if (newest.empty())
    throw Error(ErrorCode::kUsage,
                "there is no PEF below out/; compile first, or name one with --pef FILE");
  return newest;
}

std::unique_ptr<runtime::Session> load_session(const PefOptions& options) {
  runtime::SessionOptions session;
  session.n_chips = options.n_chips;
  session.threads_per_chip = options.threads;
  session.deadline_ms = options.deadline_ms;
  auto loaded = runtime::Session::load(pef_of(options), session);
  check_contradictions(options, loaded->manifest());
  return loaded;
}

}  // namespace shardwright::cli
