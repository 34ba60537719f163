// The pipeline: from an imported module to a PEF.
#pragma once

#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "ir/graph.h"
#include "passes/optimizer.h"
#include "pef/program.h"
#include "shard/solve.h"

namespace shardwright::compiler {

struct CompileOptions {
  std::string output_path;  // of the PEF
  std::string model_name = "model";
  shard::Mode mode = shard::Mode::kNone;
  std::vector<int> n_chips = {1};  // a plan each
  shard::Machine
      machine;  // memory_bytes: of one chip; 0: this machine's memory, shared by all chips
  bool int8_weights = false;  // passes/quantize_weights.h
  // What the PEF's graphs do: the forward pass; or that of the loss and its gradients, which are
  // outputs named as the parameters; or a training step with `optimizer`.
  enum class Purpose : uint8_t { kForward, kGradients, kTrain } purpose = Purpose::kForward;
  passes::Optimizer optimizer;
  // Fusion: 0 every operator alone, 1 by the rules of `rules_file` ("": the built-in ones,
  // rules/builtin.yaml), 3 the compiler's own.
  int optimization = 3;
  std::string rules_file;
  std::map<std::string, std::string> recorded;  // options to keep in the manifest
  std::map<std::string, std::string> files;     // to go along in the PEF: name -> content
  std::string until;                            // stop after this stage ("" : write the PEF)
  std::string dump_folder;        // the text of every stage, if given; made if it is not there
  std::set<std::string> without;  // passes to leave out
  // Called at the start of each stage ("fold_constants", "solve 4 chips", "write"); for "write"
  // again with done and total bytes.
  std::function<void(const std::string& stage, int64_t done, int64_t total)> progress;
};

struct StageTime {
  std::string stage;
  double seconds = 0;
};

struct CompileResult {
  std::string path;  // empty if stopped by `until`
  int64_t size_bytes = 0;
  std::vector<StageTime> stages;
  pef::Manifest manifest;
  std::string report_json;
};

// Throws Error: kUnsupported (operators), kUsage (batch too small, stage or pass unknown: lists
// them), kDoesNotFit (need, limit, remedies).
CompileResult compile(ir::Module module, const CompileOptions& options);

// The module that a PEF's report holds (its canonical graphs), over the bytes of `views` (one a
// tensor of the manifest).
ir::Module module_of_report(const std::string& report_json, const std::vector<TensorView>& views);

// "none", "batch", "weight", "auto"; throws Error(kUsage) naming the choices.
shard::Mode parse_mode(const std::string& text);
std::string to_string(shard::Mode mode);

}  // namespace shardwright::compiler
