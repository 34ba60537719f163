// run and measure-performance: a PEF on its chips.
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/arrays.h"
#include "cli/measured.h"
#include "cli/npy.h"
#include "cli/options.h"
#include "cli/pef_options.h"
#include "cli/print.h"

namespace shardwright::cli {
namespace {

using Json = nlohmann::ordered_json;

struct RunOptions {
  PefOptions pef;
  std::vector<std::string> inputs;
  uint64_t random_inputs = 0;
  std::string output_folder;
  std::vector<std::string> expect;
  int repeats = 20;
};

double seconds_of(const std::function<void()>& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Tokens (2-d integer input) or samples of one run.
std::pair<int64_t, const char*> work_of(const pef::GraphSignature& graph) {
  if (graph.inputs.empty() || graph.inputs[0].type.shape.empty()) return {1, "runs"};
  const TensorType& type = graph.inputs[0].type;
  if (is_integer(type.dtype) && type.ndim() == 2) return {type.count(), "tokens"};
  return {type.shape[0], "samples"};
}

void check_expected(const RunOptions& o, const pef::GraphSignature& graph,
                    const RunArrays& arrays) {
  for (const std::string& text : o.expect) {
    const size_t equals = text.find('=');
    const std::string name = text.substr(0, equals);
    const auto found = std::find_if(graph.outputs.begin(), graph.outputs.end(),
                                    [&](const pef::Signature& s) { return s.name == name; });
    if (equals == std::string::npos || found == graph.outputs.end()) {
      std::string names;
      for (const auto& s : graph.outputs) names += (names.empty() ? "" : ", ") + s.name;
      throw Error(ErrorCode::kUsage,
                  fmt::format("--expect {}: expected NAME=FILE.npy; outputs are {}", text, names));
    }
    const NpyArray want = read_npy(text.substr(equals + 1));
    if (want.type != found->type)
      throw Error(ErrorCode::kUsage,
                  fmt::format("--expect {}: the file holds {}, the output is {}", text,
                              to_string(want.type), to_string(found->type)));
    const auto index = static_cast<size_t>(found - graph.outputs.begin());
    const double difference =
        relative_difference(found->type, arrays.output_bytes[index].data(), want.bytes.data);
    constexpr double kTolerance = 1e-5;  // relative 2-norm, f32 (design: testing)
    if (!(difference <= kTolerance))
      throw Error(
          ErrorCode::kMismatch,
          fmt::format("output '{}' differs from {} by {:.3g} in the relative 2-norm (limit {:g})",
                      name, text.substr(equals + 1), difference, kTolerance));
  }
}

std::vector<std::string> save_outputs(const RunOptions& o, const pef::GraphSignature& graph,
                                      const RunArrays& arrays) {
  std::vector<std::string> files;
  if (o.output_folder.empty()) return files;
  std::error_code error;
  std::filesystem::create_directories(o.output_folder, error);
  for (size_t i = 0; i < graph.outputs.size(); ++i) {
    files.push_back(
        (std::filesystem::path(o.output_folder) / (graph.outputs[i].name + ".npy")).string());
    write_npy(files.back(), graph.outputs[i].type, arrays.output_bytes[i].data());
  }
  return files;
}

int run_pef(const RunOptions& o, const Globals& globals) {
  Progress progress(globals);
  progress.stage("load", 0, 0);
  std::unique_ptr<runtime::Session> session;
  const double load = seconds_of([&] { session = load_session(o.pef); });
  const int g = find_graph(session->manifest(), o.pef.graph);
  const pef::GraphSignature& graph = session->manifest().graphs[static_cast<size_t>(g)];
  RunArrays arrays = make_arrays(graph, session->report_json(), o.inputs, o.random_inputs);
  progress.stage("run", 0, 0);
  const double seconds = seconds_of([&] { session->run(g, arrays.inputs, arrays.outputs); });
  progress.end();
  check_expected(o, graph, arrays);
  const std::vector<std::string> files = save_outputs(o, graph, arrays);
  const auto [amount, unit] = work_of(graph);
  const double rate = static_cast<double>(amount) / seconds;
  const pef::Plan& plan = session->plan();
  if (globals.json) {
    emit_json(globals, Json{{"schema_version", 1},
                            {"graph", graph.name},
                            {"n_chips", plan.n_chips},
                            {"mode", plan.mode},
                            {"threads_per_chip", session->threads_per_chip()},
                            {"load_seconds", load},
                            {"seconds", seconds},
                            {std::string(unit) + "_per_second", rate},
                            {"outputs", files}}
                           .dump());
    return 0;
  }
  fmt::print("graph {}, {} x {}, mode {}\n", graph.name, count_text(plan.n_chips, "chip"),
             count_text(session->threads_per_chip(), "thread"), plan.mode);
  fmt::print("loaded in {}, ran in {}: {:.1f} {}/s\n", seconds_text(load), seconds_text(seconds),
             rate, unit);
  for (size_t i = 0; i < graph.outputs.size(); ++i)
    fmt::print("output {}: {}{}\n", graph.outputs[i].name, to_string(graph.outputs[i].type),
               files.empty() ? "" : " -> " + files[i]);
  if (files.empty()) fmt::print("(--output-folder DIR saves the outputs as .npy)\n");
  return 0;
}

struct Share {
  double seconds = 0, waited = 0;
  int count = 0;
};

// Time by operator, averaged over chips.
std::vector<std::pair<std::string, Share>> shares_of(
    const std::vector<std::vector<runtime::StepProfile>>& profiles, int runs) {
  std::map<std::string, Share> by_op;
  for (const auto& chip : profiles)
    for (const auto& step : chip) {
      Share& share = by_op[step.op];
      const double scale = 1.0 / runs / static_cast<double>(profiles.size());
      share.seconds += step.seconds * scale;
      share.waited += step.waited_seconds * scale;
      if (&chip == &profiles.front()) ++share.count;
    }
  std::vector<std::pair<std::string, Share>> shares(by_op.begin(), by_op.end());
  std::sort(shares.begin(), shares.end(),
            [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  return shares;
}

// Seconds of each run, ascending.
std::vector<double> times_of(runtime::Session& session, int graph, RunArrays& arrays, int repeats,
                             Progress& progress) {
  std::vector<double> times;
  for (int i = 0; i < repeats; ++i) {
    progress.stage("measure", i, repeats);
    times.push_back(seconds_of([&] { session.run(graph, arrays.inputs, arrays.outputs); }));
  }
  std::sort(times.begin(), times.end());
  return times;
}

// For explain, beside the PEF. A folder that can't be written is no reason to throw away the rest.
void keep(const RunOptions& o, const runtime::Session& session, const Measurement& measurement,
          const Globals& globals) {
  try {
    write_measurement(pef_of(o.pef.pef), session.digest(), measurement);
  } catch (const Error& error) {
    log(globals, LogLevel::kWarning, fmt::format("explain won't see this: {}", error.what()));
  }
}

int measure(const RunOptions& o, const Globals& globals) {
  Progress progress(globals);
  progress.stage("load", 0, 0);
  const auto session = load_session(o.pef);
  const int g = find_graph(session->manifest(), o.pef.graph);
  const pef::GraphSignature& graph = session->manifest().graphs[static_cast<size_t>(g)];
  RunArrays arrays = make_arrays(graph, session->report_json(), o.inputs, o.random_inputs);
  progress.stage("warm up", 0, 0);
  session->run(g, arrays.inputs, arrays.outputs);
  const std::vector<double> times = times_of(*session, g, arrays, o.repeats, progress);
  progress.stage("profile", 0, 0);
  const int profiled = std::min(o.repeats, 5);
  const auto profiles = session->profile(g, arrays.inputs, arrays.outputs, profiled);
  progress.end();
  keep(o, *session, measurement_of(*session, graph.name, profiles, profiled), globals);
  const auto at = [&](double q) {
    return times[static_cast<size_t>(q * static_cast<double>(times.size() - 1) + 0.5)];
  };
  const auto shares = shares_of(profiles, profiled);
  double total = 0, transfer = 0, waited = 0;
  for (const auto& [op, share] : shares) {
    total += share.seconds;
    waited += share.waited;
    if (op == "exchange") transfer += share.seconds - share.waited;
  }
  const auto [amount, unit] = work_of(graph);
  const auto percent = [&](double part) { return 100 * part / std::max(total, 1e-12); };
  if (globals.json) {
    Json json = {{"schema_version", 1},
                 {"graph", graph.name},
                 {"n_chips", session->plan().n_chips},
                 {"threads_per_chip", session->threads_per_chip()},
                 {"repeats", o.repeats},
                 {"median_seconds", at(0.5)},
                 {"p90_seconds", at(0.9)},
                 {"p99_seconds", at(0.99)},
                 {"best_seconds", times.front()},
                 {std::string(unit) + "_per_second", static_cast<double>(amount) / at(0.5)},
                 {"compute_percent", percent(total - transfer - waited)},
                 {"transfer_percent", percent(transfer)},
                 {"waiting_percent", percent(waited)}};
    for (const auto& [op, share] : shares)
      json["operators"].push_back({{"name", op},
                                   {"steps", share.count},
                                   {"seconds", share.seconds},
                                   {"waited_seconds", share.waited}});
    for (const auto& use : session->memory())
      json["memory"].push_back({{"weights_bytes", use.parameters},
                                {"arena_bytes", use.arena},
                                {"transfer_bytes", use.transfer},
                                {"scratch_bytes", use.scratch}});
    emit_json(globals, json.dump());
    return 0;
  }
  fmt::print("graph {}, {} x {}, {}\n", graph.name, count_text(session->plan().n_chips, "chip"),
             count_text(session->threads_per_chip(), "thread"), count_text(o.repeats, "run"));
  fmt::print("latency  median {}, p90 {}, p99 {}, best {}\n", seconds_text(at(0.5)),
             seconds_text(at(0.9)), seconds_text(at(0.99)), seconds_text(times.front()));
  fmt::print("throughput  {:.1f} {}/s\n", static_cast<double>(amount) / at(0.5), unit);
  fmt::print(
      "time goes to  compute {:.1f} %, transfer {:.1f} %, waiting for other chips {:.1f} %\n",
      percent(total - transfer - waited), percent(transfer), percent(waited));
  std::vector<std::vector<std::string>> rows = {{"operator", "steps", "time", "share"}};
  for (const auto& [op, share] : shares)
    rows.push_back({op, fmt::format("{}", share.count), seconds_text(share.seconds),
                    fmt::format("{:.1f} %", percent(share.seconds))});
  fmt::print("{}", table(rows));
  return 0;
}

void add_input_options(CLI::App& c, RunOptions& o, const Globals& globals) {
  add_pef_options(c, o.pef, globals);
  c.add_option("--input", o.inputs, "May be repeated; inputs without a file are random")
      ->type_name("NAME=FILE.npy")
      ->allow_extra_args(false);
  whole_number(
      c.add_option("--random-inputs", o.random_inputs, "Seed of the random inputs (default 0)"), 0);
}

}  // namespace

void add_run(CLI::App& app, const Globals& globals, Action& action) {
  auto o = std::make_shared<RunOptions>();
  CLI::App* c = app.add_subcommand("run", "Run a graph of a PEF once");
  c->footer(fmt::format(
      "Example:\n  {} run out/demo/demo.pef --input input_ids=ids.npy --output-folder results",
      globals.command_line()));
  add_input_options(*c, *o, globals);
  c->add_option("--output-folder", o->output_folder, "Save each output as DIR/NAME.npy")
      ->type_name(kFolder);
  c->add_option("--expect", o->expect, "Exit with 7 if the output differs from the file's")
      ->type_name("NAME=FILE.npy")
      ->allow_extra_args(false);
  c->callback([o, &globals, &action] { action = [o, &globals] { return run_pef(*o, globals); }; });
}

void add_measure(CLI::App& app, const Globals& globals, Action& action) {
  auto o = std::make_shared<RunOptions>();
  CLI::App* c =
      app.add_subcommand("measure-performance", "Latency, throughput, and where the time goes");
  c->footer(fmt::format("Example:\n  {} measure-performance out/demo/demo.pef --repeats 50",
                        globals.command_line()));
  add_input_options(*c, *o, globals);
  whole_number(c->add_option("--repeats", o->repeats, "How many timed runs (default 20)"), 1);
  c->callback([o, &globals, &action] { action = [o, &globals] { return measure(*o, globals); }; });
}

}  // namespace shardwright::cli
