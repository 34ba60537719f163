// Options of the commands that open a PEF, and the refusal of those that contradict it.
#include "cli/pef_options.h"

#include <algorithm>
#include <filesystem>
#include <map>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "cli/options.h"

namespace shardwright::cli {
namespace {

std::string recorded(const pef::Manifest& manifest, const std::string& option) {
  const auto found = manifest.options.find(option);
  return found == manifest.options.end() ? std::string() : found->second;
}

// The dtype of most weights, if it is one of --precision.
std::string precision_of(const pef::Manifest& manifest) {
  std::map<DType, int64_t> bytes;
  for (const pef::Tensor& tensor : manifest.tensors)
    if (!tensor.constant && is_floating(tensor.type.dtype))
      bytes[tensor.type.dtype] += tensor.type.bytes();
  const auto most = std::max_element(bytes.begin(), bytes.end(),
                                     [](auto& a, auto& b) { return a.second < b.second; });
  return most == bytes.end() ? "" : std::string(dtype_name(most->first));
}

// Dimension `dim` of the first input: 0 the batch; 1, of token ids, the sequence.
std::string size_of(const pef::Manifest& manifest, size_t dim) {
  if (manifest.graphs.empty() || manifest.graphs[0].inputs.empty()) return "";
  const TensorType& type = manifest.graphs[0].inputs[0].type;
  if (type.shape.size() <= dim || (dim == 1 && !is_integer(type.dtype))) return "";
  return fmt::format("{}", type.shape[dim]);
}

std::string plans_of(const pef::Manifest& manifest) {
  std::vector<int> n_chips;
  for (const pef::Plan& plan : manifest.plans) n_chips.push_back(plan.n_chips);
  return fmt::format("{}", fmt::join(n_chips, ","));
}

}  // namespace

void add_pef(CLI::App& command, std::string& pef, const Globals& globals) {
  CLI::Option* option = command.add_option(
      "PEF,-p,--pef", pef,
      globals.provider ? "The PEF file (default: the newest below out/)" : "The PEF file");
  option->type_name(kFile);
  if (!globals.provider) option->required();
}

void add_pef_options(CLI::App& command, PefOptions& options, const Globals& globals) {
  add_pef(command, options.pef, globals);
  whole_number(command.add_option("--n-chips", options.n_chips,
                                  "Which of the PEF's plans (default: its first)"),
               1);
  whole_number(command.add_option("--threads", options.threads,
                                  "Threads a chip (default: allowed CPUs / chips)"),
               1);
  whole_number(command.add_option("--deadline-ms", options.deadline_ms,
                                  "How long a chip waits for another before the run ends"),
               1);
  command.add_option("--graph", options.graph, "Which graph (default: the first)")
      ->type_name("NAME");
  command.add_option("--tensor-parallel", options.tensor_parallel)->group("");
  whole_number(command.add_option("-b,--batch-size", options.batch_size), 1)->group("");
  whole_number(command.add_option("--seq", options.seq), 1)->group("");
  command.add_option("--precision", options.precision)->group("");
  command.add_flag("--inference", options.inference)->group("");
}

void check_contradictions(const PefOptions& options, const pef::Manifest& manifest) {
  const auto check = [&](const std::string& option, const std::string& given,
                         const std::string& has) {
    if (given.empty() || has.empty() || given == has) return;
    throw Error(ErrorCode::kUsage,
                fmt::format("{} {} contradicts the PEF, which was compiled with {} {}; leave the "
                            "option out (run reads it from the PEF), or compile again",
                            option, given, option, has));
  };
  const auto text = [](const auto& number) {
    return number ? fmt::format("{}", *number) : std::string();
  };
  check("--tensor-parallel", options.tensor_parallel.value_or(""),
        recorded(manifest, "tensor-parallel"));
  check("--precision", options.precision.value_or(""), precision_of(manifest));
  check("--batch-size", text(options.batch_size), size_of(manifest, 0));
  const std::string seq = recorded(manifest, "seq");  // of generation the cache's
  check("--seq", text(options.seq), seq.empty() ? size_of(manifest, 1) : seq);
  const bool has_plan =
      std::any_of(manifest.plans.begin(), manifest.plans.end(),
                  [&](const pef::Plan& plan) { return plan.n_chips == options.n_chips; });
  if (options.n_chips > 0 && !has_plan)
    check("--n-chips", fmt::format("{}", options.n_chips), plans_of(manifest));
}

std::string pef_of(const std::string& pef) {
  if (!pef.empty()) return pef;
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
  const std::string path = pef_of(options.pef);
  if (options.n_chips > 0 || options.tensor_parallel || options.precision || options.batch_size ||
      options.seq)
    check_contradictions(options, pef::File::open(path, pef::kNoPlan)->manifest());
  return runtime::Session::load(path, session);
}

}  // namespace shardwright::cli
