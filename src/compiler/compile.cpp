// The pipeline, top to bottom.
#include "compiler/compile.h"

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>

#include <fmt/format.h>

#include "base/check.h"
#include "base/error.h"
#include "base/units.h"
#include "compiler/fit.h"
#include "compiler/fusion_rules.h"
#include "compiler/report.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/canonicalize.h"
#include "passes/check_supported.h"
#include "passes/fuse.h"
#include "passes/gradient.h"
#include "passes/quantize_weights.h"
#include "pef/write.h"
#include "plan/plan.h"
#include "shard/partition.h"

namespace shardwright::compiler {
namespace {

constexpr const char* kVersion = "shardwright 0.1.0";

class Pipeline {
 public:
  Pipeline(ir::Module module, const CompileOptions& options)
      : module_(std::move(module)), options_(options) {}

  CompileResult run() {
    check_options();
    stage("imported", [&] { verify(ir::Stage::kImported); });
    if (done("imported")) return std::move(result_);
    if (trains()) stage("loss", [&] { minimise_loss(); });
    // On the framework's operators, which rules name; the passes carry the marks along.
    if (options_.optimization == 1)
      stage("rules", [&] { notes_ = apply_rules(module_, options_); });
    for (const passes::Pass& pass : passes::canonical_passes()) {
      if (options_.without.contains(pass.name)) continue;
      stage(pass.name, [&] {
        for (ir::Graph& graph : module_.graphs) pass.run(module_, graph);
      });
    }
    // Global still, so that every reduction of a gradient follows from the rules.
    if (trains()) stage("gradient", [&] { passes::gradient(module_, module_.graphs[0]); });
    if (options_.purpose == CompileOptions::Purpose::kTrain)
      stage("optimize", [&] { optimize(module_, module_.graphs[0], options_.optimizer); });
    // Where every weight is the operand of one linear in its final form; before fusion sees these.
    if (options_.int8_weights)
      stage("quantize_weights", [&] { passes::quantize_weights(module_); });
    if (options_.optimization == 3 && !options_.without.contains("fuse"))
      stage("fuse", [&] {
        for (ir::Graph& graph : module_.graphs) passes::fuse(module_, graph);
      });
    // Only a model that we know whole is worth splitting.
    stage("canonical", [&] {
      for (const ir::Graph& graph : module_.graphs) passes::check_supported(graph);
      verify(ir::Stage::kCanonical);
    });
    for (std::string& note : idle_splits_notes(module_)) notes_.push_back(std::move(note));
    if (done("canonical")) return std::move(result_);
    for (int n : options_.n_chips) add_plan(n);
    describe();
    if (options_.until.empty()) write();
    return std::move(result_);
  }

 private:
  void check_options() const;
  void minimise_loss();
  bool trains() const { return options_.purpose != CompileOptions::Purpose::kForward; }
  void add_plan(int n);
  void describe();
  void write();
  void verify(ir::Stage stage) const {
    for (const ir::Graph& graph : module_.graphs) ir::verify(module_, graph, stage);
  }
  // Runs, times and dumps one stage.
  template <typename F>
  void stage(const std::string& name, F body) {
    if (options_.progress) options_.progress(name, 0, 0);
    const auto start = std::chrono::steady_clock::now();
    body();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    result_.stages.push_back({name, seconds.count()});
    if (!options_.dump_folder.empty()) dump(name, ir::print(module_));
  }
  void dump(const std::string& name, const std::string& text) const;
  bool done(const char* name) const { return options_.until == name; }

  ir::Module module_;
  const CompileOptions& options_;
  CompileResult result_;
  std::vector<PlanReport> reports_;
  std::vector<std::string> notes_;  // of the rules
};

void Pipeline::check_options() const {
  std::string names;
  const auto known = [&](const std::string& name) {
    bool found = false;
    names.clear();
    for (const passes::Pass& pass : passes::canonical_passes()) {
      if (names.find(pass.name) == std::string::npos)  // drop_noops runs more than once
        names += std::string(names.empty() ? "" : ", ") + pass.name;
      found = found || name == pass.name;
    }
    names += ", fuse";
    return found || name == "fuse";
  };
  for (const std::string& name : options_.without)
    if (!known(name))
      throw Error(ErrorCode::kUsage,
                  fmt::format("--without {}: there is no such pass; passes are {}", name, names));
  static const std::set<std::string> kStages = {"",       "imported", "canonical",
                                                "solved", "local",    "plan"};
  if (!kStages.contains(options_.until))
    throw Error(ErrorCode::kUsage, fmt::format("--until {}: there is no such stage; stages are "
                                               "imported, canonical, solved, local, plan",
                                               options_.until));
  if (options_.optimization != 1 && !options_.rules_file.empty())
    throw Error(ErrorCode::kUsage,
                fmt::format("--optimization-rules {}: rules are for -o1, not -o{}; give -o1, or "
                            "leave the file out",
                            options_.rules_file, options_.optimization));
  if (!options_.dump_folder.empty()) {
    std::error_code error;
    std::filesystem::create_directories(options_.dump_folder, error);
    if (error)
      throw Error(ErrorCode::kUsage, fmt::format("--dump {}: can't make this folder: {}",
                                                 options_.dump_folder, error.message()));
  }
  if (trains() && options_.int8_weights)
    throw Error(ErrorCode::kUsage,
                "--precision int8: weights of one byte can't be trained; train in f32 or bf16, and "
                "compile the result with --inference --precision int8");
  for (int n : options_.n_chips)
    if (n < 1) throw Error(ErrorCode::kUsage, fmt::format("--n-chips {}: give 1 or more", n));
}

// The output called "loss" is what training minimises; it gives back nothing else.
void Pipeline::minimise_loss() {
  if (module_.graphs.size() != 1)
    throw Error(
        ErrorCode::kUsage,
        fmt::format("training takes one graph, and this file has {}: capture the model with "
                    "its loss alone",
                    module_.graphs.size()));
  ir::Graph& graph = module_.graphs[0];
  std::vector<ir::Output> kept;
  std::string names;
  for (ir::Output output : graph.outputs) {
    if (output.role == ir::OutputRole::kBufferMutation) kept.push_back(output);
    if (output.role != ir::OutputRole::kUserOutput && output.role != ir::OutputRole::kLoss)
      continue;
    names += (names.empty() ? "" : ", ") + output.name;
    if (output.name != "loss" && output.role != ir::OutputRole::kLoss) continue;
    output.role = ir::OutputRole::kLoss;
    kept.push_back(std::move(output));
  }
  if (std::none_of(kept.begin(), kept.end(),
                   [](const ir::Output& o) { return o.role == ir::OutputRole::kLoss; }))
    throw Error(
        ErrorCode::kUsage,
        fmt::format("the model has no output called 'loss' to minimise (it has: {}): return "
                    "a loss, give labels to a Hugging Face model, or add --inference to "
                    "compile the forward pass",
                    names));
  graph.outputs = std::move(kept);
  graph.name = options_.purpose == CompileOptions::Purpose::kTrain ? "train" : "gradients";
}

void Pipeline::dump(const std::string& name, const std::string& text) const {
  std::string file = fmt::format("{:02}_{}.ir", result_.stages.size(), name);
  for (char& c : file)
    if (c == ' ') c = '_';
  std::ofstream out(options_.dump_folder + "/" + file, std::ios::binary);
  out << text << std::flush;
  if (!out)
    throw Error(ErrorCode::kUsage, fmt::format("--dump {}: can't write {} there: {}",
                                               options_.dump_folder, file, std::strerror(errno)));
}

void Pipeline::add_plan(int n) {
  const std::string chips = count_text(n, "chip");
  shard::SolveOptions solve_options{.mode = n == 1 ? shard::Mode::kNone : options_.mode,
                                    .n_chips = n,
                                    .machine = options_.machine,
                                    .fixed = fixed_splits(module_)};
  std::vector<shard::Solution> solutions;
  stage("solve " + chips, [&] { solutions = shard::solve(module_, solve_options); });
  if (done("solved")) return;
  std::vector<std::vector<ir::Graph>> local;
  stage("partition " + chips, [&] {
    for (size_t g = 0; g < module_.graphs.size(); ++g)
      local.push_back(shard::partition(module_, module_.graphs[g], solutions[g]));
    for (const auto& graphs : local)
      for (const ir::Graph& graph : graphs) ir::verify(module_, graph, ir::Stage::kLocal);
  });
  if (!options_.dump_folder.empty())
    for (const auto& graphs : local)
      for (size_t chip = 0; chip < graphs.size(); ++chip)
        dump(fmt::format("local_{}_{}_chip_{}", graphs[chip].name, n, chip),
             ir::print(graphs[chip]));
  if (done("local")) return;
  plan::Planned planned;
  stage("plan " + chips, [&] {
    planned = plan::make_plan(module_, local);
    planned.plan.n_chips = n;
    planned.plan.mode = to_string(solve_options.mode);
    planned.plan.notes = notes_;
    if (solve_options.mode == shard::Mode::kBatch)
      if (std::string note = ignored_splits_note(module_); !note.empty())
        planned.plan.notes.push_back(std::move(note));
    for (const shard::Solution& solution : solutions)
      for (const std::string& note : solution.notes)
        if (std::find(planned.plan.notes.begin(), planned.plan.notes.end(), note) ==
            planned.plan.notes.end())
          planned.plan.notes.push_back(note);
  });
  check_fits(module_, planned.plan, options_);
  stage("explain " + chips,
        [&] { reports_.push_back(report_plan(module_, solutions, local, planned)); });
  result_.manifest.plans.push_back(std::move(planned.plan));
}

void Pipeline::describe() {
  pef::Manifest& manifest = result_.manifest;
  manifest.model_name = options_.model_name;
  manifest.producer = kVersion;
  manifest.options = options_.recorded;
  manifest.tensors = plan::tensors_of(module_);
  for (const ir::Graph& graph : module_.graphs)
    manifest.graphs.push_back(plan::signature_of(graph));
  result_.report_json = to_json(module_, reports_);
}

void Pipeline::write() {
  std::vector<TensorView> views;
  for (const ir::LogicalTensor& tensor : module_.tensors) {
    if (tensor.bytes.data == nullptr && tensor.type.count() > 0)
      throw Error(ErrorCode::kUsage,
                  fmt::format("tensor '{}' has no values: a PEF can't be written; use --until plan",
                              tensor.name));
    views.push_back(tensor.view());
  }
  stage("write", [&] {
    pef::WriteOptions write_options;
    write_options.report_json = result_.report_json;
    write_options.files = options_.files;
    if (options_.progress)
      write_options.progress = [&](int64_t done, int64_t total) {
        options_.progress("write", done, total);
      };
    pef::write(options_.output_path, result_.manifest, views, write_options);
  });
  result_.path = options_.output_path;
  std::ifstream file(result_.path, std::ios::binary | std::ios::ate);
  result_.size_bytes = file.tellg();
}

}  // namespace

CompileResult compile(ir::Module module, const CompileOptions& options) {
  return Pipeline(std::move(module), options).run();
}

shard::Mode parse_mode(const std::string& text) {
  for (shard::Mode mode :
       {shard::Mode::kNone, shard::Mode::kBatch, shard::Mode::kWeight, shard::Mode::kAuto})
    if (to_string(mode) == text) return mode;
  throw Error(ErrorCode::kUsage,
              fmt::format("--tensor-parallel {}: unknown mode; give batch (splits the data), "
                          "weight (splits the weights), auto or none",
                          text));
}

std::string to_string(shard::Mode mode) {
  switch (mode) {
    case shard::Mode::kNone:
      return "none";
    case shard::Mode::kBatch:
      return "batch";
    case shard::Mode::kWeight:
      return "weight";
    case shard::Mode::kAuto:
      return "auto";
  }
  CHECK(false);
}

}  // namespace shardwright::compiler
