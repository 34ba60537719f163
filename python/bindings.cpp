// shardwright._core: the command line, compile and Session for Python (contract: _core.pyi).
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/function.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/cli.h"
#include "cli/explanation.h"
#include "runtime/generator.h"
#include "runtime/session.h"

namespace nb = nanobind;
namespace sw = shardwright;
using Json = nlohmann::ordered_json;

namespace {

// NumPy dtype of an array that carries `dtype`; bf16 travels as its bits.
nb::dlpack::dtype numpy_dtype(sw::DType dtype) {
  switch (dtype) {
    case sw::DType::kF32:
      return nb::dtype<float>();
    case sw::DType::kF64:
      return nb::dtype<double>();
    case sw::DType::kBF16:
      return nb::dtype<uint16_t>();
    case sw::DType::kF16:
      return {static_cast<uint8_t>(nb::dlpack::dtype_code::Float), 16, 1};
    case sw::DType::kI64:
      return nb::dtype<int64_t>();
    case sw::DType::kI32:
      return nb::dtype<int32_t>();
    case sw::DType::kI16:
      return nb::dtype<int16_t>();
    case sw::DType::kI8:
      return nb::dtype<int8_t>();
    case sw::DType::kU8:
      return nb::dtype<uint8_t>();
    case sw::DType::kBool:
      return nb::dtype<bool>();
  }
  return nb::dtype<float>();
}

// (array, dtype name); the array owns its bytes.
nb::object to_python(const sw::TensorType& type, std::shared_ptr<std::vector<std::byte>> bytes) {
  std::vector<size_t> shape(type.shape.begin(), type.shape.end());
  auto* keep = new std::shared_ptr<std::vector<std::byte>>(std::move(bytes));
  nb::capsule owner(keep, [](void* p) noexcept {
    delete static_cast<std::shared_ptr<std::vector<std::byte>>*>(p);
  });
  nb::ndarray<nb::numpy> array((*keep)->data(), shape.size(), shape.data(), owner, nullptr,
                               numpy_dtype(type.dtype));
  return nb::make_tuple(nb::cast(array), std::string(sw::dtype_name(type.dtype)));
}

int find_graph(const sw::pef::Manifest& manifest, const std::optional<std::string>& name) {
  std::string names;
  for (size_t i = 0; i < manifest.graphs.size(); ++i) {
    if (!name || manifest.graphs[i].name == *name) return static_cast<int>(i);
    names += (names.empty() ? "" : ", ") + manifest.graphs[i].name;
  }
  throw sw::Error(sw::ErrorCode::kUsage,
                  fmt::format("graph '{}': the PEF has no such graph; it has {}", *name, names));
}

std::string names_of(const std::vector<sw::pef::Signature>& signatures) {
  std::string names;
  for (const auto& s : signatures) names += (names.empty() ? "" : ", ") + s.name;
  return names;
}

struct Outputs {
  std::vector<std::shared_ptr<std::vector<std::byte>>> bytes;
  std::vector<sw::runtime::Array> arrays;

  explicit Outputs(const sw::pef::GraphSignature& graph) {
    for (const auto& output : graph.outputs) {
      bytes.push_back(
          std::make_shared<std::vector<std::byte>>(static_cast<size_t>(output.type.bytes())));
      arrays.push_back({output.type, bytes.back()->data()});
    }
  }
};

class Session {
 public:
  Session(const std::string& path, const std::string& options_json) : path_(path) {
    const Json options = Json::parse(options_json);
    if (const std::string chips = options.value("chips", "threads"); chips != "threads")
      throw sw::Error(
          sw::ErrorCode::kUsage,
          fmt::format("chips=\"{}\": this version runs chips as \"threads\" of this process",
                      chips));
    sw::runtime::SessionOptions o;
    o.n_chips = options.value("n_chips", 0);
    o.threads_per_chip = options.value("threads_per_chip", 0);
    o.deadline_ms = options.value("deadline_ms", o.deadline_ms);
    if (options.contains("n_chips") && o.n_chips < 1)
      throw sw::Error(sw::ErrorCode::kUsage, fmt::format("n_chips={}: give 1 or more", o.n_chips));
    nb::gil_scoped_release release;
    session_ = sw::runtime::Session::load(path, o);
  }

  nb::dict run(const nb::dict& inputs, const std::optional<std::string>& graph_name) {
    const int g = find_graph(session_->manifest(), graph_name);
    const sw::pef::GraphSignature& graph = session_->manifest().graphs[static_cast<size_t>(g)];
    std::vector<nb::object> keep;
    const std::vector<sw::runtime::ConstArray> arrays = inputs_of(graph, inputs, keep);
    Outputs outputs(graph);
    try {
      nb::gil_scoped_release release;
      session_->run(g, arrays, outputs.arrays);
    } catch (const sw::Error& error) {
      // A chip that hangs may come back inside a kernel: the arrays of this run are left to it.
      if (error.code() == sw::ErrorCode::kPeerFailed)
        (void)new std::pair(std::move(keep), std::move(outputs));
      throw;
    }
    nb::dict result;
    for (size_t i = 0; i < graph.outputs.size(); ++i)
      result[graph.outputs[i].name.c_str()] = to_python(graph.outputs[i].type, outputs.bytes[i]);
    return result;
  }

  nb::dict parameters() {
    nb::dict result;
    const auto& tensors = session_->manifest().tensors;
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (tensors[i].constant) continue;
      const sw::SharedBytes whole = session_->parameter(static_cast<int>(i));
      auto bytes = std::make_shared<std::vector<std::byte>>(whole.data, whole.data + whole.size);
      result[tensors[i].name.c_str()] = to_python(tensors[i].type, bytes);
      for (const std::string& name : tensors[i].other_names)
        result[name.c_str()] = to_python(tensors[i].type, bytes);
    }
    return result;
  }

  std::string info() const;
  std::string measure(const std::string& options_json);
  sw::runtime::Session& core() { return *session_; }

 private:
  std::vector<sw::runtime::ConstArray> inputs_of(const sw::pef::GraphSignature& graph,
                                                 const nb::dict& inputs,
                                                 std::vector<nb::object>& keep) const;

  std::string path_;
  std::unique_ptr<sw::runtime::Session> session_;
};

std::vector<sw::runtime::ConstArray> Session::inputs_of(const sw::pef::GraphSignature& graph,
                                                        const nb::dict& inputs,
                                                        std::vector<nb::object>& keep) const {
  for (const auto& [key, value] : inputs) {
    const auto name = nb::cast<std::string>(key);
    const bool known = std::any_of(graph.inputs.begin(), graph.inputs.end(),
                                   [&](const auto& s) { return s.name == name; });
    if (!known)
      throw sw::Error(sw::ErrorCode::kUsage,
                      fmt::format("graph '{}' has no input '{}'; its inputs are {}", graph.name,
                                  name, names_of(graph.inputs)));
  }
  std::vector<sw::runtime::ConstArray> arrays;
  for (const sw::pef::Signature& want : graph.inputs) {
    if (!inputs.contains(want.name.c_str()))
      throw sw::Error(sw::ErrorCode::kUsage,
                      fmt::format("input '{}' ({}) of graph '{}' is missing", want.name,
                                  to_string(want.type), graph.name));
    const auto pair = nb::cast<nb::tuple>(inputs[want.name.c_str()]);
    const auto array = nb::cast<nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>>(pair[0]);
    sw::TensorType type{sw::parse_dtype(nb::cast<std::string>(pair[1])).value(), {}};
    for (size_t d = 0; d < array.ndim(); ++d)
      type.shape.push_back(static_cast<int64_t>(array.shape(d)));
    arrays.push_back({type, array.data()});
    keep.push_back(nb::cast(array));
  }
  return arrays;
}

Json signature_json(const std::vector<sw::pef::Signature>& signatures) {
  Json list = Json::array();
  for (const auto& s : signatures)
    list.push_back({{"name", s.name},
                    {"dtype", std::string(sw::dtype_name(s.type.dtype))},
                    {"shape", s.type.shape}});
  return list;
}

std::string Session::info() const {
  Json json = {{"path", path_},
               {"n_chips", session_->plan().n_chips},
               {"mode", session_->plan().mode},
               {"threads_per_chip", session_->threads_per_chip()}};
  for (const auto& graph : session_->manifest().graphs)
    json["graphs"].push_back({{"name", graph.name},
                              {"inputs", signature_json(graph.inputs)},
                              {"outputs", signature_json(graph.outputs)}});
  for (const auto& plan : session_->manifest().plans)
    json["plans"].push_back({{"n_chips", plan.n_chips}, {"mode", plan.mode}});
  for (const auto& use : session_->memory())
    json["memory"].push_back({{"parameters", use.parameters},
                              {"arena", use.arena},
                              {"transfer", use.transfer},
                              {"scratch", use.scratch}});
  return json.dump();
}

std::string Session::measure(const std::string& options_json) {
  const Json options = Json::parse(options_json);
  const int runs = options.value("runs", 20), warmup = options.value("warmup", 2);
  if (runs < 1)
    throw sw::Error(sw::ErrorCode::kUsage, fmt::format("runs={}: give 1 or more", runs));
  const int g =
      find_graph(session_->manifest(), options.contains("graph")
                                           ? std::optional(options["graph"].get<std::string>())
                                           : std::nullopt);
  const auto& graph = session_->manifest().graphs[static_cast<size_t>(g)];
  std::vector<std::vector<std::byte>> zeros;  // zero is a valid id and a valid feature
  std::vector<sw::runtime::ConstArray> inputs;
  for (const auto& input : graph.inputs) {
    zeros.emplace_back(static_cast<size_t>(input.type.bytes()));
    inputs.push_back({input.type, zeros.back().data()});
  }
  Outputs outputs(graph);
  nb::gil_scoped_release release;
  std::vector<double> times;
  for (int i = 0; i < warmup + runs; ++i) {
    const auto start = std::chrono::steady_clock::now();
    session_->run(g, inputs, outputs.arrays);
    if (i >= warmup)
      times.push_back(
          std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(times.begin(), times.end());
  const auto at = [&](double q) {
    return times[static_cast<size_t>(q * static_cast<double>(times.size() - 1) + 0.5)];
  };
  Json json = {{"runs", runs},      {"median_s", at(0.5)},     {"p90_s", at(0.9)},
               {"p99_s", at(0.99)}, {"best_s", times.front()}, {"steps", Json::array()}};
  const auto profile = session_->profile(g, inputs, outputs.arrays, runs);
  for (size_t chip = 0; chip < profile.size(); ++chip)
    for (const auto& step : profile[chip])
      json["steps"].push_back({{"chip", chip},
                               {"operator", step.op},
                               {"source", step.source},
                               {"seconds", step.seconds / runs},
                               {"waited_seconds", step.waited_seconds / runs}});
  return json.dump();
}

// The files that go along in a PEF.
nb::dict files(const std::string& path) {
  const auto file = sw::pef::File::open(path, sw::pef::kNoPlan);
  nb::dict result;
  for (const std::string& name : file->files()) {
    const std::string_view bytes = file->file(name);
    result[name.c_str()] = nb::bytes(bytes.data(), bytes.size());
  }
  return result;
}

class Generator {
 public:
  // The session must outlive it: the Python class keeps it.
  explicit Generator(Session& session) : generator_(session.core()) {}

  void start(int slot, const std::vector<int64_t>& tokens, const std::string& sampling_json) {
    const Json json = Json::parse(sampling_json);
    sw::runtime::Sampling sampling;
    sampling.repetition_penalty = json.value("repetition_penalty", sampling.repetition_penalty);
    sampling.temperature = json.value("temperature", sampling.temperature);
    sampling.top_k = json.value("top_k", sampling.top_k);
    sampling.top_p = json.value("top_p", sampling.top_p);
    sampling.seed = json.value("seed", sampling.seed);
    generator_.start(slot, tokens, sampling);
  }
  void stop(int slot) { generator_.stop(slot); }
  std::vector<std::tuple<int, int64_t, bool>> step() {
    std::vector<std::tuple<int, int64_t, bool>> tokens;
    nb::gil_scoped_release release;
    for (const auto& token : generator_.step())
      tokens.emplace_back(token.slot, token.token, token.last);
    return tokens;
  }
  std::string info() const {
    const auto& stats = generator_.stats();
    return Json{{"slots", generator_.slots()},
                {"length", generator_.length()},
                {"vocabulary", generator_.vocabulary()},
                {"prompt_tokens", stats.prompt_tokens},
                {"prompt_seconds", stats.prompt_seconds},
                {"decode_runs", stats.decode_runs},
                {"decode_tokens", stats.decode_tokens},
                {"decode_seconds", stats.decode_seconds}}
        .dump();
  }

 private:
  sw::runtime::Generator generator_;
};

// {"n_chips": [1, 2], "inference": true} -> "--n-chips", "1,2", "--inference".
std::vector<std::string> arguments_of(const std::string& model, const Json& options) {
  std::vector<std::string> args = {"compile", model};
  for (const auto& [key, value] : options.items()) {
    std::string option = "--" + key;
    std::replace(option.begin(), option.end(), '_', '-');
    if (value.is_boolean()) {
      if (value.get<bool>()) args.push_back(option);
      continue;
    }
    std::string text = value.is_string()  ? value.get<std::string>()
                       : value.is_array() ? ""
                                          : value.dump();
    if (value.is_array())
      for (const auto& item : value)
        text +=
            (text.empty() ? "" : ",") + (item.is_string() ? item.get<std::string>() : item.dump());
    if (text.empty())
      throw sw::Error(sw::ErrorCode::kUsage,
                      fmt::format("{} is empty: give a value, or leave it out", key));
    args.push_back(option + "=" + text);
  }
  return args;
}

std::string compile(const std::string& model, const std::string& options_json,
                    const std::function<void(const std::string&, double)>& progress) {
  sw::cli::ProgressCallback callback;
  if (progress)
    callback = [&progress](const std::string& stage, double share) {
      nb::gil_scoped_acquire acquire;
      if (PyErr_CheckSignals() != 0) throw nb::python_error();
      progress(stage, share);
    };
  Json result;
  {
    nb::gil_scoped_release release;
    result = Json::parse(
        sw::cli::run_for_json(arguments_of(model, Json::parse(options_json)), callback));
  }
  Json plans = Json::array();
  for (const auto& plan : result["plans"])
    plans.push_back({{"n_chips", plan["n_chips"]}, {"mode", plan["mode"]}});
  return Json{{"path", result["pef"]},
              {"size_bytes", result["size_bytes"]},
              {"graphs", result["graphs"]},
              {"plans", plans}}
      .dump();
}

// The model script's answer; its ShardwrightError is an error like ours.
std::string provided(const std::function<std::string(const std::string&)>& provider,
                     const std::string& options) {
  try {
    return provider(options);
  } catch (const nb::python_error& error) {
    if (!error.matches(nb::module_::import_("shardwright.errors").attr("ShardwrightError"))) throw;
    const auto code = nb::cast<int>(error.value().attr("code"));
    throw sw::Error(static_cast<sw::ErrorCode>(code), nb::str(error.value()).c_str());
  }
}

int cli(const std::vector<std::string>& argv,
        const std::function<std::string(const std::string&)>& provider) {
  const std::vector<std::string> args(argv.begin() + 1, argv.end());
  sw::cli::ModelProvider call;
  if (provider)
    call = [&provider](const std::string& options) {
      nb::gil_scoped_acquire acquire;
      return provided(provider, options);
    };
  nb::gil_scoped_release release;
  return sw::cli::run(args, argv[0], call);
}

}  // namespace

NB_MODULE(_core, m) {
  nb::register_exception_translator([](const std::exception_ptr& pointer, void*) {
    try {
      std::rethrow_exception(pointer);
    } catch (const sw::Error& error) {
      const nb::object type = nb::module_::import_("shardwright.errors").attr("ShardwrightError");
      PyErr_SetObject(type.ptr(), type(error.what(), static_cast<int>(error.code())).ptr());
    }
  });
  m.def("cli", &cli, nb::arg("argv"), nb::arg("model_path_provider").none());
  m.def("compile", &compile, nb::arg("model_path"), nb::arg("options_json"),
        nb::arg("progress").none());
  m.def(
      "explain",
      [](const std::string& path, int n_chips, std::optional<int> layer) {
        return sw::cli::explain(path, n_chips, layer).dump();
      },
      nb::arg("path"), nb::arg("n_chips"), nb::arg("layer").none());
  m.def("files", &files, nb::arg("path"));
  nb::class_<Session>(m, "Session")
      .def(nb::init<const std::string&, const std::string&>(), nb::arg("path"),
           nb::arg("options_json"))
      .def("run", &Session::run, nb::arg("inputs"), nb::arg("graph").none())
      .def("parameters", &Session::parameters)
      .def("info", &Session::info)
      .def("measure", &Session::measure, nb::arg("options_json"));
  nb::class_<Generator>(m, "Generator")
      .def(nb::init<Session&>(), nb::arg("session"), nb::keep_alive<1, 2>())
      .def("start", &Generator::start, nb::arg("slot"), nb::arg("tokens"), nb::arg("sampling_json"))
      .def("stop", &Generator::stop, nb::arg("slot"))
      .def("step", &Generator::step)
      .def("info", &Generator::info);
}
