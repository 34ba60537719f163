// compile: a model to a PEF.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "cli/commands.h"
#include "cli/inspect.h"
#include "cli/options.h"
#include "cli/print.h"
#include "cli/python.h"
#include "compiler/compile.h"
#include "frontend/pt2.h"

namespace shardwright::cli {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string model;
  std::string pef_name;
  std::string output_folder = "out";
  std::vector<std::string> tensor_parallel;
  CLI::Option* tensor_parallel_option = nullptr;
  std::vector<int> n_chips;
  int64_t batch_size = 0;
  int64_t seq = 0;
  std::string precision;
  std::vector<std::string> dims;
  bool inference = false;
  bool generate = false;
  std::string optimizer = "adamw";
  CLI::Option* optimizer_option = nullptr;
  passes::Optimizer update;
  CLI::Option* weight_decay_option = nullptr;
  std::vector<std::pair<CLI::Option*, std::string>> of_optimizer;  // options of one alone
  std::vector<int64_t> prompts;
  std::string optimization = "3";
  std::string rules_file;
  std::string chip_memory;
  std::string until;
  std::string dump;
  std::vector<std::string> without;
  bool dry_run = false;
};

// "24GB", "500 MB", "1e9": bytes.
int64_t parse_bytes(const std::string& text) {
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  std::string unit = end;
  std::transform(unit.begin(), unit.end(), unit.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  const double factor = unit.empty() || unit == "B"   ? 1
                        : unit == "KB" || unit == "K" ? 1e3
                        : unit == "MB" || unit == "M" ? 1e6
                        : unit == "GB" || unit == "G" ? 1e9
                                                      : 0;
  if (end == text.c_str() || factor == 0 || !(number > 0))
    throw Error(
        ErrorCode::kUsage,
        fmt::format("--chip-memory {}: give bytes, or a number with MB or GB, as in 24GB", text));
  return static_cast<int64_t>(number * factor);
}

shard::Mode mode_of(const Options& o) {
  if (o.tensor_parallel_option->count() > 0) {
    // CLI11 stands an empty value for one that is missing
    if (o.tensor_parallel.empty() || o.tensor_parallel[0].empty())
      throw Error(ErrorCode::kUsage,
                  "--tensor-parallel needs a value: batch (splits the data), weight (splits the "
                  "weights), auto or none");
    return compiler::parse_mode(o.tensor_parallel[0]);
  }
  const bool many = std::any_of(o.n_chips.begin(), o.n_chips.end(), [](int n) { return n > 1; });
  return many ? shard::Mode::kBatch : shard::Mode::kNone;  // requirement C4
}

// Requirement C7: neither the forward pass alone nor text.
bool trains(const Options& o) { return !o.inference && !o.generate; }

// int8 is of the weights alone, whatever the model computes in: nothing that capturing sees.
bool has_int8_weights(const Options& o) { return o.precision == "int8"; }
std::string captured_precision(const Options& o) {
  return has_int8_weights(o) ? std::string() : o.precision;
}

// A file of captured programs. A Hugging Face folder is captured by the Python package, in a
// process of its own.
struct Capture {
  std::string path;
  bool temporary = false;
  std::string files;  // a folder of what goes along in the PEF, if there is any
  ~Capture() {
    std::error_code ignored;
    if (temporary) fs::remove(path, ignored);
    if (!files.empty()) fs::remove_all(files, ignored);
  }
};

void capture_folder(const Options& o, Capture& capture) {
  capture.path = (fs::temp_directory_path() / fmt::format("shardwright-{}.pt2", getpid())).string();
  capture.temporary = true;
  std::string command =
      fmt::format("{} -m shardwright.capture {} -o {}", shell_quoted(python_program()),
                  shell_quoted(o.model), shell_quoted(capture.path));
  if (o.batch_size > 0) command += fmt::format(" --batch {}", o.batch_size);
  if (o.seq > 0) command += fmt::format(" --seq {}", o.seq);
  if (const std::string precision = captured_precision(o); !precision.empty())
    command += fmt::format(" --precision {}", shell_quoted(precision));
  if (trains(o)) command += " --train";
  if (o.generate) {
    capture.files = capture.path + ".files";
    command += fmt::format(" --generate --files {}", shell_quoted(capture.files));
    if (!o.prompts.empty()) command += fmt::format(" --prompts {}", fmt::join(o.prompts, ","));
  }
  const int status = std::system(command.c_str());
  if (status == 0) return;
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
  if (code == 2 || code == 3 || code == 5)  // its own errors
    throw Error(static_cast<ErrorCode>(code), "the model could not be captured (see above)");
  throw Error(
      ErrorCode::kUsage,
      fmt::format("capturing {} failed (see above): a Hugging Face folder {}; a .pt2 file needs no "
                  "Python",
                  o.model, kNeedsPackage));
}

void find_model(const Options& o, const Globals& globals, Progress& progress, Capture& capture) {
  if (!o.dims.empty() && (globals.provider || fs::is_directory(o.model)))
    throw Error(
        ErrorCode::kUsage,
        fmt::format("--dim {}: is for a .pt2 file that leaves sizes open; here -b and --seq "
                    "choose the sizes",
                    o.dims[0]));
  if (globals.provider) {
    nlohmann::json json = {{"want", "model"}};
    if (o.batch_size > 0) json["batch_size"] = o.batch_size;
    if (o.seq > 0) json["seq"] = o.seq;
    if (const std::string precision = captured_precision(o); !precision.empty())
      json["precision"] = precision;
    if (o.generate) json["generate"] = true;
    if (trains(o)) json["train"] = true;
    if (!o.prompts.empty()) json["prompts"] = o.prompts;
    progress.stage("capture", 0, 0);
    capture.path = globals.provider(json.dump());
    capture.temporary = true;
    return;
  }
  if (!fs::exists(o.model))
    throw Error(ErrorCode::kUsage,
                fmt::format("{}: there is no such file or folder; give a .pt2 file or a Hugging "
                            "Face folder (config.json + weights)",
                            o.model));
  if (fs::is_directory(o.model)) {
    progress.stage("capture", 0, 0);
    return capture_folder(o, capture);
  }
  if (o.model.ends_with(".onnx"))
    throw Error(ErrorCode::kUnsupported, o.model +
                                             ": ONNX is not read yet; capture the PyTorch model "
                                             "into a .pt2 file (python -m shardwright.capture)");
  for (const auto& [given, option] : {std::pair{o.batch_size > 0, "--batch-size"},
                                      {o.seq > 0, "--seq"},
                                      {!captured_precision(o).empty(), "--precision"},
                                      {!o.prompts.empty(), "--prompts"}})
    if (given)
      throw Error(ErrorCode::kUsage,
                  fmt::format("{}: a .pt2 file has its sizes and precision; leave the option out, "
                              "or capture again with it (--dim INPUT.DIM=SIZE chooses sizes that "
                              "the file leaves open)",
                              option));
  capture.path = o.model;
}

std::string pef_path(const Options& o, const std::string& name) {
  const fs::path folder = fs::path(o.output_folder) / name;
  std::error_code error;
  fs::create_directories(folder, error);
  if (error)
    throw Error(ErrorCode::kUsage, fmt::format("--output-folder {}: can't make {}: {}",
                                               o.output_folder, folder.string(), error.message()));
  return (folder / (name + ".pef")).string();
}

std::string name_of(const Options& o, const Globals& globals) {
  if (!o.pef_name.empty()) {
    if (o.pef_name.find('/') != std::string::npos)
      throw Error(
          ErrorCode::kUsage,
          fmt::format("--pef-name {}: a name without '/'; --output-folder says where it goes",
                      o.pef_name));
    return o.pef_name;
  }
  fs::path model = globals.provider ? fs::path(globals.program) : fs::path(o.model);
  if (!model.has_filename()) model = model.parent_path();
  const std::string stem = model.stem().string();
  return stem.empty() ? "model" : stem;
}

void print_result(const compiler::CompileResult& result, double seconds) {
  fmt::print("{}", plans_text(result.manifest, result.report_json));
  fmt::print("{}  {}, compiled in {}\n", result.path, bytes_text(result.size_bytes),
             seconds_text(seconds));
}

// What generation must know of the graphs, and of each logical file beside them.
void describe_generation(const ir::Module& module, const Capture& capture,
                         compiler::CompileOptions& options) {
  for (const ir::Graph& graph : module.graphs)
    for (const ir::Node& node : graph.nodes)
      if (node.op == ops::find_op("cache_write")) {
        const Shape& cache = graph.type(node.inputs[0]).shape;  // [B, KV heads, length, D]
        options.recorded["batch-size"] = fmt::format("{}", cache[0]);
        options.recorded["seq"] = fmt::format("{}", cache[2]);
      }
  if (!options.recorded.contains("seq"))
    throw Error(ErrorCode::kUsage,
                "--generate: this file's graphs have no KV cache; capture the model with "
                "python -m shardwright.capture FOLDER --generate, or give its folder here");
  options.recorded["generate"] = "true";
  if (capture.files.empty() || !fs::is_directory(capture.files)) return;
  for (const auto& entry : fs::directory_iterator(capture.files)) {
    const auto file = MappedFile::open(entry.path().string());
    options.files[entry.path().filename().string()] =
        std::string(reinterpret_cast<const char*>(file->data()), static_cast<size_t>(file->size()));
  }
}

void check_purpose(const Options& o) {
  if (!trains(o) && o.optimizer_option->count() > 0)
    throw Error(ErrorCode::kUsage, fmt::format("--optimizer trains, and {} does not: leave one out",
                                               o.generate ? "--generate" : "--inference"));
  for (const auto& [option, optimizer] : o.of_optimizer)
    if (option->count() > 0 && (!trains(o) || o.optimizer != optimizer))
      throw Error(ErrorCode::kUsage, fmt::format("{} is for --optimizer {}: leave one out",
                                                 option->get_name(), optimizer));
}

void set_training(const Options& o, compiler::CompileOptions& options) {
  using Purpose = compiler::CompileOptions::Purpose;
  options.purpose = o.optimizer == "none" ? Purpose::kGradients : Purpose::kTrain;
  options.optimizer = o.update;
  options.optimizer.kind =
      o.optimizer == "sgd" ? passes::Optimizer::Kind::kSgd : passes::Optimizer::Kind::kAdamW;
  if (o.optimizer == "sgd" && o.weight_decay_option->count() == 0)
    options.optimizer.weight_decay = 0;  // torch.optim's default
  options.recorded["inference"] = "false";
  options.recorded["optimizer"] = o.optimizer;
}

int compile_model(const Options& o, const Globals& globals) {
  check_purpose(o);
  if (!o.prompts.empty() && !o.generate)
    throw Error(ErrorCode::kUsage, "--prompts: only --generate has prompt graphs; add --generate");
  compiler::CompileOptions options;
  options.mode = mode_of(o);
  options.model_name = name_of(o, globals);
  if (!o.n_chips.empty()) options.n_chips = o.n_chips;
  options.int8_weights = has_int8_weights(o);
  options.optimization = std::stoi(o.optimization);
  options.rules_file = o.rules_file;
  if (!o.chip_memory.empty()) options.machine.memory_bytes = parse_bytes(o.chip_memory);
  options.until = o.dry_run ? "plan" : o.until;
  options.dump_folder = o.dump;
  options.without = {o.without.begin(), o.without.end()};
  options.recorded = {{"tensor-parallel", compiler::to_string(options.mode)},
                      {"n-chips", fmt::format("{}", fmt::join(options.n_chips, ","))},
                      {"inference", "true"},
                      {"optimization", o.optimization}};
  if (trains(o)) set_training(o, options);
  if (!o.rules_file.empty())
    options.recorded["optimization-rules"] = fs::path(o.rules_file).filename().string();
  if (!o.precision.empty()) options.recorded["precision"] = o.precision;
  if (o.batch_size > 0) options.recorded["batch-size"] = fmt::format("{}", o.batch_size);
  if (o.seq > 0) options.recorded["seq"] = fmt::format("{}", o.seq);
  if (!o.dims.empty()) options.recorded["dim"] = fmt::format("{}", fmt::join(o.dims, ","));
  Progress progress(globals);
  options.progress = [&](const std::string& stage, int64_t done, int64_t total) {
    progress.stage(stage, done, total);
  };
  const auto start = std::chrono::steady_clock::now();
  Capture capture;
  find_model(o, globals, progress, capture);
  progress.stage("read", 0, 0);
  std::vector<frontend::DimChoice> dims;
  for (const std::string& text : o.dims) dims.push_back(frontend::parse_dim(text));
  ir::Module module = frontend::read_pt2(capture.path, dims);
  if (o.generate) describe_generation(module, capture, options);
  if (options.until.empty()) options.output_path = pef_path(o, options.model_name);
  const compiler::CompileResult result = compiler::compile(std::move(module), options);
  progress.end();
  for (const auto& stage : result.stages)
    log(globals, LogLevel::kDebug,
        fmt::format("{} took {}", stage.stage, seconds_text(stage.seconds)));
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  if (globals.json) {
    nlohmann::ordered_json json = {{"schema_version", 1},
                                   {"pef", result.path},
                                   {"size_bytes", result.size_bytes},
                                   {"seconds", seconds.count()}};
    for (const auto& stage : result.stages)
      json["stages"].push_back({{"name", stage.stage}, {"seconds", stage.seconds}});
    json["graphs"] = nlohmann::ordered_json::array();
    for (const auto& graph : result.manifest.graphs) json["graphs"].push_back(graph.name);
    json["plans"] = nlohmann::ordered_json::parse(plans_json(result.manifest, result.report_json));
    emit_json(globals, json.dump());
  } else if (!result.path.empty()) {
    print_result(result, seconds.count());
  } else {
    for (const auto& stage : result.stages)
      fmt::print("{:<28} {}\n", stage.stage, seconds_text(stage.seconds));
    fmt::print("{}stopped after --until {}; nothing was written\n",
               plans_text(result.manifest, result.report_json), options.until);
  }
  return 0;
}

// Names, defaults and meaning are torch.optim's.
void add_training_options(CLI::App& c, Options& o) {
  const char* group = "Training (without --inference and --generate)";
  const auto number = [&](const char* name, double& value, const char* text) {
    return c.add_option(name, value, text)->type_name("X")->group(group);
  };
  o.optimizer_option =
      one_of(c.add_option("--optimizer", o.optimizer,
                          "A PEF that trains: each run is a step that minimises the output `loss`; "
                          "none: gives loss and gradients instead (default: adamw)"),
             {"adamw", "sgd", "none"})
          ->group(group);
  o.weight_decay_option = number("--weight-decay", o.update.weight_decay,
                                 "Of every parameter (default: adamw 0.01, sgd 0)");
  CLI::Option* nesterov = c.add_flag("--nesterov", o.update.nesterov, "Nesterov momentum, of sgd");
  o.of_optimizer = {{number("--momentum", o.update.momentum, "Of sgd (default: 0)"), "sgd"},
                    {nesterov->group(group), "sgd"},
                    {number("--beta1", o.update.beta1, "Of adamw (default: 0.9)"), "adamw"},
                    {number("--beta2", o.update.beta2, "Of adamw (default: 0.999)"), "adamw"},
                    {number("--eps", o.update.eps, "Of adamw (default: 1e-8)"), "adamw"}};
  number("--clip-norm", o.update.clip_norm,
         "Scales the gradients to at most this joint 2-norm (default: 0, not)");
}

// What the graphs of the PEF are for; training if nothing is said.
void add_purpose_options(CLI::App& c, Options& o) {
  c.add_flag("--inference", o.inference, "The forward pass alone");
  c.add_flag("--generate", o.generate,
             "Graphs that write text: prompts of several lengths and one token, which share the "
             "weights and a KV cache of --seq tokens for -b sequences");
  whole_number(c.add_option("--prompts", o.prompts,
                            "Tokens of the prompt graphs of --generate (default: 32,128,512,... up "
                            "to --seq)"),
               2)
      ->type_name("N,N")
      ->delimiter(',')
      ->allow_extra_args(false);
  add_training_options(c, o);
}

void add_stage_options(CLI::App& c, Options& o) {
  c.add_flag("--dry-run", o.dry_run, "Plan everything, write nothing");
  one_of(c.add_option("--until", o.until, "Stop after this stage, write nothing"),
         {"imported", "canonical", "solved", "local", "plan"});
  c.add_option("--dump", o.dump, "Write the text of every stage into this folder")
      ->type_name(kFolder);
  c.add_option("--without", o.without, "Leave a pass out; may be repeated")
      ->type_name("PASS")
      ->delimiter(',')
      ->allow_extra_args(false);
}

}  // namespace

ir::Module read_model(const std::string& model, const Globals& globals) {
  Options o;
  o.model = model;
  o.inference = true;
  Progress progress(globals);
  Capture capture;
  find_model(o, globals, progress, capture);
  return frontend::read_pt2(capture.path);
}

void add_compile(CLI::App& app, const Globals& globals, Action& action) {
  auto o = std::make_shared<Options>();
  CLI::App* c = app.add_subcommand("compile", "Compile a model into a PEF");
  c->footer(
      fmt::format("-tp N and --tensor-parallel-size N are --tensor-parallel weight --n-chips "
                  "N.\nExample:\n  {} compile {}--inference --pef-name demo "
                  "--tensor-parallel weight --n-chips 2",
                  globals.command_line(), globals.provider ? "" : "model.pt2 "));
  if (!globals.provider)
    c->add_option("MODEL", o->model,
                  "A .pt2 file, or a Hugging Face folder (needs the Python package)")
        ->required()
        ->type_name(kFile);
  c->add_option("--pef-name", o->pef_name,
                "Name of the PEF: FOLDER/NAME/NAME.pef (default: the model's name)")
      ->type_name("NAME");
  c->add_option("--output-folder", o->output_folder, "FOLDER (default: out)")->type_name(kFolder);
  o->tensor_parallel_option =
      c->add_option("--tensor-parallel", o->tensor_parallel,
                    "batch: split the data; weight: split the weights; auto: what the cost model "
                    "finds fastest; none")
          ->type_name("batch|weight|auto|none")
          ->expected(0, 1);
  whole_number(c->add_option("--n-chips", o->n_chips,
                             "How many chips; a list 1,2,4 makes one PEF with a plan for each "
                             "(default: 1; without --tensor-parallel: batch)"),
               1)
      ->type_name("N,N")
      ->delimiter(',')
      ->allow_extra_args(false);
  whole_number(c->add_option("-b,--batch-size", o->batch_size, "Batch to capture the model with"),
               1);
  whole_number(c->add_option("--seq", o->seq, "Sequence length to capture the model with"), 1);
  one_of(c->add_option("--precision", o->precision,
                       "f32, bf16: to capture the model with; int8: weights of one byte and a "
                       "scale an output channel, all else as the model has it"),
         {"f32", "bf16", "int8"});
  c->add_option("--dim", o->dims,
                "A size that a .pt2 file leaves open (exported with dynamic_shapes); may be "
                "repeated (default: the example's size)")
      ->delimiter(',')
      ->type_name("INPUT.DIM=SIZE")
      ->allow_extra_args(false)
      ->group(globals.provider ? "" : "Options");
  add_purpose_options(*c, *o);
  one_of(c->add_option("-o,--optimization", o->optimization,
                       "Fusion of operators: -o0 none, -o1 by rules, -o3 the compiler's own "
                       "(default: 3)"),
         {"0", "1", "3"});
  c->add_option("--optimization-rules", o->rules_file,
                "Fusion rules for -o1, a YAML file (default: `shardwright rules --builtin`)")
      ->type_name(kFile);
  c->add_option("--chip-memory", o->chip_memory,
                "Memory of one chip, as in 24GB (default: this machine's, shared by all chips)")
      ->type_name("BYTES");
  add_stage_options(*c, *o);
  c->callback(
      [o, &globals, &action] { action = [o, &globals] { return compile_model(*o, globals); }; });
}

}  // namespace shardwright::cli
