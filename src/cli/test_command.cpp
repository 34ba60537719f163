// test: the chips of a PEF against one chip, and against the interpreter in f64.
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <optional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/arrays.h"
#include "cli/npy.h"
#include "cli/options.h"
#include "cli/pef_options.h"
#include "cli/print.h"
#include "compiler/compile.h"
#include "ir/interpret.h"

namespace shardwright::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct TestOptions {
  PefOptions pef;
  uint64_t seed = 0;
  bool no_interpreter = false;
};

struct Comparison {
  int n_chips = 0;
  std::string output, against;
  double difference = 0, limit = 0;
  bool ok() const { return difference <= limit; }
};

// Relative 2-norm limits of testing.md: whole models, n chips against one; against f64 what
// rounding of that dtype does over a deep model.
double limit_of(DType dtype, bool against_interpreter) {
  if (dtype == DType::kBF16 || dtype == DType::kF16) return against_interpreter ? 5e-2 : 3e-2;
  return against_interpreter ? 1e-4 : 1e-5;
}

std::vector<TensorView> views_of(const pef::File& file) {
  std::vector<TensorView> views;
  for (size_t i = 0; i < file.manifest().tensors.size(); ++i)
    views.push_back(file.tensor(static_cast<int>(i)));
  return views;
}

// A PEF with a plan for one chip, made from the graphs that the PEF holds.
class OneChipFile {
 public:
  explicit OneChipFile(const pef::File& file)
      : path_((fs::temp_directory_path() / fmt::format("shardwright-test-{}.pef", getpid()))
                  .string()) {
    compiler::CompileOptions options;
    options.output_path = path_;
    (void)compiler::compile(compiler::module_of_report(file.report_json(), views_of(file)),
                            options);
  }
  ~OneChipFile() {
    std::error_code ignored;
    fs::remove(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// The plan that was named, or all of them.
std::vector<int> plans_to_test(const PefOptions& options, const pef::Manifest& manifest) {
  if (options.n_chips > 0) return {options.n_chips};
  std::vector<int> n_chips;
  for (const pef::Plan& plan : manifest.plans) n_chips.push_back(plan.n_chips);
  return n_chips;
}

std::unique_ptr<runtime::Session> load_plan(PefOptions options, int n_chips) {
  options.n_chips = n_chips;
  return load_session(options);
}

void compare(int n_chips, const pef::GraphSignature& graph, const RunArrays& got,
             const RunArrays& want, std::vector<Comparison>& all) {
  for (size_t i = 0; i < graph.outputs.size(); ++i) {
    const TensorType& type = graph.outputs[i].type;
    all.push_back(
        {n_chips, graph.outputs[i].name, "1 chip",
         relative_difference(type, got.output_bytes[i].data(), want.output_bytes[i].data()),
         limit_of(type.dtype, false)});
  }
}

ir::RefMap interpret(const pef::File& file, int g, const RunArrays& given) {
  const ir::Module module = compiler::module_of_report(file.report_json(), views_of(file));
  const pef::GraphSignature& graph = file.manifest().graphs[static_cast<size_t>(g)];
  ir::RefMap inputs;
  for (size_t i = 0; i < graph.inputs.size(); ++i)
    inputs[graph.inputs[i].name] =
        ir::to_ref({graph.inputs[i].type, contiguous_strides(graph.inputs[i].type.shape),
                    given.input_bytes[i].data});
  return ir::interpret(module, module.graphs[static_cast<size_t>(g)], inputs);
}

void compare_interpreter(int n_chips, const pef::GraphSignature& graph, const RunArrays& got,
                         const ir::RefMap& outputs, std::vector<Comparison>& all) {
  for (size_t i = 0; i < graph.outputs.size(); ++i) {
    const TensorType& type = graph.outputs[i].type;
    const ops::RefTensor& want = outputs.at(graph.outputs[i].name);
    std::vector<std::byte> values(static_cast<size_t>(type.count()) * sizeof(double)),
        mine(values.size());
    for (int64_t k = 0; k < type.count(); ++k) {
      store_element(DType::kF64, values.data() + k * 8, want.data[static_cast<size_t>(k)]);
      store_element(
          DType::kF64, mine.data() + k * 8,
          load_element(type.dtype, got.output_bytes[i].data() + k * dtype_bytes(type.dtype)));
    }
    all.push_back({n_chips, graph.outputs[i].name, "the interpreter (f64)",
                   relative_difference({DType::kF64, type.shape}, mine.data(), values.data()),
                   limit_of(type.dtype, true)});
  }
}

int report(const std::vector<Comparison>& all, const std::vector<int>& n_chips,
           const Globals& globals) {
  const Comparison* worst = nullptr;
  Json list = Json::array();
  std::vector<std::vector<std::string>> rows = {
      {"chips", "output", "against", "relative 2-norm", "limit", ""}};
  for (const Comparison& c : all) {
    if (!c.ok() && worst == nullptr) worst = &c;
    list.push_back({{"n_chips", c.n_chips},
                    {"output", c.output},
                    {"against", c.against},
                    {"difference", c.difference},
                    {"limit", c.limit},
                    {"ok", c.ok()}});
    rows.push_back({fmt::format("{}", c.n_chips), c.output, c.against,
                    fmt::format("{:.2e}", c.difference), fmt::format("{:.0e}", c.limit),
                    c.ok() ? "equal" : "DIFFERS"});
  }
  if (globals.json)
    emit_json(globals, Json{{"schema_version", 1},
                            {"n_chips", n_chips},
                            {"ok", worst == nullptr},
                            {"comparisons", list}}
                           .dump());
  else
    fmt::print("{}", table(rows));
  if (worst == nullptr) return 0;
  log(globals, LogLevel::kError,
      fmt::format("output '{}' of {} differs from {}: {:.3g}, limit {:g}{}", worst->output,
                  count_text(worst->n_chips, "chip"), worst->against, worst->difference,
                  worst->limit,
                  globals.provider ? "; were the script's own options the same for compile?" : ""));
  return static_cast<int>(ErrorCode::kMismatch);
}

// Where PyTorch's inputs and outputs are: the model script computes them.
fs::path reference_of(const pef::Manifest& manifest, const Globals& globals) {
  Json want = {{"want", "reference"}};
  const auto& recorded = manifest.options;
  if (const auto found = recorded.find("precision"); found != recorded.end())
    want["precision"] = found->second;
  for (const auto& [option, key] : {std::pair{"batch-size", "batch_size"}, {"seq", "seq"}})
    if (const auto found = recorded.find(option); found != recorded.end())
      want[key] = std::stoll(found->second);
  return globals.provider(want.dump());
}

void compare_pytorch(int n_chips, const pef::GraphSignature& graph, const RunArrays& got,
                     const fs::path& folder, std::vector<Comparison>& all) {
  for (size_t i = 0; i < graph.outputs.size(); ++i) {
    const NpyArray expected =
        read_npy((folder / "outputs" / (graph.outputs[i].name + ".npy")).string());
    const TensorType& type = graph.outputs[i].type;
    if (expected.type != type)
      throw Error(ErrorCode::kMismatch,
                  fmt::format("output '{}' is {}, but PyTorch's is {}", graph.outputs[i].name,
                              to_string(type), to_string(expected.type)));
    all.push_back({n_chips, graph.outputs[i].name, "PyTorch",
                   relative_difference(type, got.output_bytes[i].data(), expected.bytes.data),
                   limit_of(type.dtype, true)});
  }
}

// In the door of a model script.
int test_against_pytorch(const TestOptions& o, const Globals& globals) {
  Progress progress(globals);
  progress.stage("load", 0, 0);
  const auto file = pef::File::open(pef_of(o.pef.pef));
  const int g = find_graph(file->manifest(), o.pef.graph);
  const pef::GraphSignature& graph = file->manifest().graphs[static_cast<size_t>(g)];
  const std::vector<int> plans = plans_to_test(o.pef, file->manifest());
  auto session = load_plan(o.pef, plans[0]);  // contradicting options are said before PyTorch runs
  progress.stage("run PyTorch", 0, 0);
  const fs::path folder = reference_of(file->manifest(), globals);
  std::vector<std::string> files;
  for (const pef::Signature& input : graph.inputs)
    files.push_back(input.name + "=" + (folder / "inputs" / (input.name + ".npy")).string());
  std::vector<Comparison> all;
  for (const int n : plans) {
    progress.stage("run " + count_text(n, "chip"), 0, 0);
    if (n != session->plan().n_chips) session = load_plan(o.pef, n);
    RunArrays got = make_arrays(graph, session->report_json(), files, 0);
    session->run(g, got.inputs, got.outputs);
    compare_pytorch(n, graph, got, folder, all);
  }
  progress.end();
  return report(all, plans, globals);
}

// PyTorch has other weights: such a PEF is compared with one chip and the interpreter, on its own.
bool has_int8_weights(const TestOptions& o) {
  const auto file = pef::File::open(pef_of(o.pef.pef));
  const auto& recorded = file->manifest().options;
  const auto precision = recorded.find("precision");
  return precision != recorded.end() && precision->second == "int8";
}

int test_pef(const TestOptions& o, const Globals& globals) {
  if (globals.provider && !has_int8_weights(o)) return test_against_pytorch(o, globals);
  Progress progress(globals);
  progress.stage("load", 0, 0);
  const auto file = pef::File::open(pef_of(o.pef.pef));
  const int g = find_graph(file->manifest(), o.pef.graph);
  const pef::GraphSignature& graph = file->manifest().graphs[static_cast<size_t>(g)];
  const std::vector<int> plans = plans_to_test(o.pef, file->manifest());
  auto session = load_plan(o.pef, plans[0]);
  const auto run = [&](runtime::Session& on) {
    RunArrays arrays = make_arrays(graph, file->report_json(), {}, o.seed);
    on.run(g, arrays.inputs, arrays.outputs);
    return arrays;
  };
  progress.stage("compile and run 1 chip", 0, 0);
  const OneChipFile one_chip(*file);
  runtime::SessionOptions options;
  options.threads_per_chip = o.pef.threads;
  const RunArrays want = run(*runtime::Session::load(one_chip.path(), options));
  std::optional<ir::RefMap> exact;
  if (!o.no_interpreter) {
    progress.stage("interpret in f64 (slow and plain; --no-interpreter leaves it out)", 0, 0);
    exact = interpret(*file, g, want);
  }
  std::vector<Comparison> all;
  for (const int n : plans) {
    progress.stage("run " + count_text(n, "chip"), 0, 0);
    if (n != session->plan().n_chips) session = load_plan(o.pef, n);
    const RunArrays got = run(*session);
    if (n > 1) compare(n, graph, got, want, all);
    if (exact) compare_interpreter(n, graph, got, *exact, all);
  }
  progress.end();
  return report(all, plans, globals);
}

}  // namespace

void add_test(CLI::App& app, const Globals& globals, Action& action) {
  auto o = std::make_shared<TestOptions>();
  CLI::App* c =
      app.add_subcommand("test",
                         "Compare the chips' answer, of every plan, with one chip's and with the "
                         "interpreter's");
  c->footer(fmt::format("Example:\n  {} test out/demo/demo.pef", globals.command_line()));
  add_pef_options(*c, o->pef, globals);
  whole_number(c->add_option("--random-inputs", o->seed, "Seed of the random inputs (default 0)"),
               0);
  c->add_flag("--no-interpreter", o->no_interpreter, "Compare with one chip alone");
  c->callback([o, &globals, &action] { action = [o, &globals] { return test_pef(*o, globals); }; });
}

}  // namespace shardwright::cli
