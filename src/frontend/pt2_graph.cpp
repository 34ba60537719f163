// One program of an archive: from its JSON to a graph of the framework's operators.
#include "frontend/pt2_graph.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <set>

#include <fmt/format.h>

#include "base/check.h"
#include "base/error.h"

namespace shardwright::frontend {
namespace {

using ops::Argument;

// Arguments that say nothing about values.
constexpr std::string_view kIgnoredArguments[] = {
    "device", "layout",    "memory_format", "pin_memory",    "non_blocking",
    "copy",   "generator", "cudnn_enable",  "cudnn_enabled", "implicit"};

bool ignored(const std::string& name) {
  return std::find(std::begin(kIgnoredArguments), std::end(kIgnoredArguments), name) !=
         std::end(kIgnoredArguments);
}

// "torch.ops.aten.linear.default" -> "linear"; other targets stay whole and are unknown.
std::string operator_name(const std::string& target) {
  for (const std::string_view library : {"torch.ops.aten.", "torch.ops.shardwright."}) {
    if (!target.starts_with(library)) continue;
    const std::string name = target.substr(library.size());
    return name.substr(0, name.find('.'));
  }
  return target;
}

// "L__self__model.layers.0,model.layers.0,transformers...;..." -> the innermost module's path.
std::string module_path(const std::string& stack) {
  const size_t last = stack.rfind(';');
  const std::string triple = last == std::string::npos ? stack : stack.substr(last + 1);
  const size_t first_comma = triple.find(',');
  const size_t second_comma = triple.find(',', first_comma + 1);
  if (first_comma == std::string::npos || second_comma == std::string::npos) return {};
  return triple.substr(first_comma + 1, second_comma - first_comma - 1);
}

// The last frame of a stack trace outside of installed packages (the last of all if there is none):
// base name and line.
void read_frame(const std::string& trace, ir::Source* source) {
  std::string file, line;
  for (size_t at = trace.find("File \""); at != std::string::npos;
       at = trace.find("File \"", at + 1)) {
    const size_t end = trace.find('"', at + 6);
    const size_t number = trace.find("line ", at);
    if (end == std::string::npos || number == std::string::npos) break;
    const std::string path = trace.substr(at + 6, end - at - 6);
    if (!file.empty() && path.find("site-packages") != std::string::npos) continue;
    file = path.substr(path.rfind('/') + 1);
    line = trace.substr(number + 5, trace.find_first_not_of("0123456789", number + 5) - number - 5);
  }
  source->file = file;
  source->line = line.empty() || line.size() > 7 ? 0 : std::stoi(line);
}

constexpr const char* kAssertScalar = "torch.ops.aten._assert_scalar.default";

// Nodes that compute sizes (`_operator.mul`, `sym_size`): Symbols knows their results. Assertions.
bool dropped(const Field& node) {
  const std::string& target = node["target"].text();
  if (target == "torch.ops.aten._assert_tensor_metadata.default" || target == kAssertScalar)
    return true;
  const Field outputs = node["outputs"];
  for (size_t i = 0; i < outputs.size(); ++i)
    if (const std::string tag = outputs[i].tag();
        tag != "as_sym_int" && tag != "as_sym_bool" && tag != "as_sym_float")
      return false;
  return outputs.size() > 0;
}

class Importer {
 public:
  Importer(ir::Module& module, const Symbols& symbols, Weights& weights, ir::Graph& graph,
           const Field& program)
      : module_(module),
        symbols_(symbols),
        weights_(weights),
        graph_(graph),
        body_(program["graph_module"]["graph"]),
        signature_(program["graph_module"]["signature"]) {}

  void run() {
    read_inputs();
    check_operators();
    const Field nodes = body_["nodes"];
    for (size_t i = 0; i < nodes.size(); ++i) read_node(nodes[i]);
    read_outputs();
  }

 private:
  void read_inputs();
  void check_operators();
  void read_node(const Field& node);
  void read_outputs();
  void check_assertion(const Field& node) const;
  int read_source(const Field& node);

  ir::ValueId define(const std::string& name, TensorType type, const Field& where);
  ir::ValueId value(const Field& name) const;
  TensorType type_of_value(const Field& name) const;

  void read_argument(const Field& node, const Argument& argument, const Field& arg,
                     const std::vector<TensorType>& types, ir::Node& out, size_t operand);
  ir::ValueId scalar(const Field& arg, const std::vector<TensorType>& types);
  ops::Attr attribute(const Argument& argument, const Field& arg) const;
  std::vector<TensorType> tensor_types(const Field& node) const;

  ir::Module& module_;
  const Symbols& symbols_;
  Weights& weights_;
  ir::Graph& graph_;
  Field body_;
  Field signature_;
  std::map<std::string, ir::ValueId> values_;
};

ir::ValueId Importer::define(const std::string& name, TensorType type, const Field& where) {
  const ir::ValueId id = graph_.add_value(std::move(type), name);
  if (!values_.emplace(name, id).second) where.broken("a value that is not defined yet");
  return id;
}

ir::ValueId Importer::value(const Field& name) const {
  const auto found = values_.find(name.text());
  if (found == values_.end()) name.broken("a value that is defined before its use");
  return found->second;
}

TensorType Importer::type_of_value(const Field& name) const {
  return type_of(body_["tensor_values"][name.text().c_str()], symbols_);
}

void Importer::read_inputs() {
  const Field inputs = body_["inputs"], specs = signature_["input_specs"];
  if (inputs.size() != specs.size())
    specs.broken(fmt::format("{} entries, one for each graph input", inputs.size()));
  for (size_t i = 0; i < specs.size(); ++i) {
    const std::string tag = specs[i].tag();
    const Field spec = specs[i][tag.c_str()];
    const std::string kind = inputs[i].tag();
    if (tag == "constant_input" || kind == "as_none" || kind == "as_sym_int")
      continue;  // a Python value: fixed at capture, or by --dim
    if (kind != "as_tensor")
      throw Error(ErrorCode::kUnsupported,
                  fmt::format("{}: an input of the kind {} is not supported; give tensors, numbers "
                              "or strings",
                              inputs[i].path(), kind));
    const Field name = inputs[i]["as_tensor"]["name"];
    ir::Input input;
    TensorType type = type_of_value(name);
    if (tag == "user_input") {
      input.name = name.text();
    } else if (tag == "parameter") {
      input.role = ir::InputRole::kParameter;
      input.name = spec["parameter_name"].text();
    } else if (tag == "buffer") {
      input.role = ir::InputRole::kBuffer;
      input.name = spec["buffer_name"].text();
    } else if (tag == "tensor_constant") {
      input.role = ir::InputRole::kConstant;
      input.name = spec["tensor_constant_name"].text();
    } else {
      throw Error(
          ErrorCode::kUnsupported,
          fmt::format("{}: inputs of the kind '{}' are not supported", specs[i].path(), tag));
    }
    if (tag != "user_input") {
      const bool in_constants =
          tag == "tensor_constant" || (tag == "buffer" && !spec["persistent"].boolean());
      input.ref.tensor = weights_.tensor(input.name, in_constants, input.role);
      const TensorType& stored = module_.tensors[static_cast<size_t>(input.ref.tensor)].type;
      if (stored != type)
        name.broken(fmt::format("{}, as it is stored, not {}", to_string(stored), to_string(type)));
      input.ref.strides = contiguous_strides(type.shape);
    }
    input.value = define(name.text(), std::move(type), name);
    graph_.inputs.push_back(std::move(input));
  }
}

void Importer::check_operators() {
  struct Unknown {
    int count = 0;
    std::string where;
  };
  std::map<std::string, Unknown> unknown;
  const Field nodes = body_["nodes"];
  for (size_t i = 0; i < nodes.size(); ++i) {
    const std::string& target = nodes[i]["target"].text();
    if (dropped(nodes[i]) || ops::find_op(operator_name(target)) != nullptr) continue;
    Unknown& entry = unknown[target];
    if (entry.count++ > 0) continue;
    const int source = read_source(nodes[i]);
    const ir::Source& s = graph_.sources[static_cast<size_t>(source)];
    entry.where = fmt::format("{}{}{}:{}", s.path, s.path.empty() ? "" : ", ", s.file, s.line);
  }
  if (unknown.empty()) return;
  std::string text =
      fmt::format("the model uses {} operator{} that Shardwright does not know:", unknown.size(),
                  unknown.size() > 1 ? "s" : "");
  for (const auto& [target, entry] : unknown)
    text += fmt::format("\n  {} ({} time{}, first in {})", target, entry.count,
                        entry.count > 1 ? "s" : "", entry.where);
  text += "\nExpress them by supported operators (docs/ops.md lists these) and capture again.";
  throw Error(ErrorCode::kUnsupported, text);
}

// What torch.export asserts of sizes holds for those that were chosen.
void Importer::check_assertion(const Field& node) const {
  if (node["target"].text() != kAssertScalar) return;
  const Field condition = node["inputs"][size_t{0}]["arg"];
  if (!symbols_.boolean(condition))
    throw Error(
        ErrorCode::kUsage,
        fmt::format("--dim: with the sizes that were chosen the model's own check fails: "
                    "{}; the file leaves open {}",
                    node["inputs"][size_t{1}]["arg"]["as_string"].text(), symbols_.open_text()));
}

int Importer::read_source(const Field& node) {
  ir::Source source;
  if (node.has("metadata")) {
    const Field metadata = node["metadata"];
    if (metadata.has("nn_module_stack"))
      source.path = module_path(metadata["nn_module_stack"].text());
    if (metadata.has("stack_trace")) read_frame(metadata["stack_trace"].text(), &source);
  }
  if (!graph_.sources.empty() && graph_.sources.back() == source)
    return static_cast<int>(graph_.sources.size()) - 1;
  graph_.sources.push_back(std::move(source));
  return static_cast<int>(graph_.sources.size()) - 1;
}

// A Python number in a tensor's place takes the kind of the tensors beside it, as PyTorch computes
// it.
ir::ValueId Importer::scalar(const Field& arg, const std::vector<TensorType>& types) {
  const std::string tag = arg.tag();
  DType dtype = tag == "as_float" ? DType::kF32 : tag == "as_bool" ? DType::kBool : DType::kI64;
  for (const TensorType& type : types)
    if (is_floating(type.dtype)) dtype = type.dtype == DType::kF64 ? DType::kF64 : DType::kF32;
  double number = 0;
  if (tag == "as_int" || tag == "as_sym_int")
    number = static_cast<double>(symbols_.integer(arg));
  else if (tag == "as_float")
    number = arg["as_float"].number();
  else if (tag == "as_bool")
    number = arg["as_bool"].boolean() ? 1 : 0;
  else
    arg.broken("a tensor or a number");
  return ir::add_scalar(module_, graph_, dtype, number);
}

ops::Attr Importer::attribute(const Argument& argument, const Field& arg) const {
  const std::string tag = arg.tag();
  if (tag == "as_none") return std::monostate();
  if (tag == "as_int" || tag == "as_sym_int") {
    const int64_t integer = symbols_.integer(arg);
    if (argument.kind == Argument::Kind::kFloat) return static_cast<double>(integer);
    if (argument.kind == Argument::Kind::kInts) return std::vector<int64_t>{integer};
    return integer;
  }
  if (tag == "as_float") return arg["as_float"].number();
  if (tag == "as_bool") return arg["as_bool"].boolean();
  if (tag == "as_string") return arg["as_string"].text();
  if (tag == "as_scalar_type") {
    const auto dtype = dtype_of_number(arg["as_scalar_type"].integer());
    if (!dtype)
      throw Error(ErrorCode::kUnsupported, arg.path() + " is a dtype that is not supported");
    return *dtype;
  }
  const Field list = arg[tag.c_str()];
  if (tag == "as_ints" || tag == "as_sym_ints") {
    std::vector<int64_t> ints;
    for (size_t i = 0; i < list.size(); ++i)
      ints.push_back(tag == "as_ints" ? list[i].integer() : symbols_.integer(list[i]));
    return ints;
  }
  if (tag == "as_floats") {
    std::vector<double> floats;
    for (size_t i = 0; i < list.size(); ++i) floats.push_back(list[i].number());
    return floats;
  }
  throw Error(ErrorCode::kUnsupported,
              fmt::format("{}: an argument of the kind {} is not supported", arg.path(), tag));
}

std::vector<TensorType> Importer::tensor_types(const Field& node) const {
  std::vector<TensorType> types;
  const Field inputs = node["inputs"];
  for (size_t i = 0; i < inputs.size(); ++i)
    if (inputs[i]["arg"].tag() == "as_tensor")
      types.push_back(graph_.type(value(inputs[i]["arg"]["as_tensor"]["name"])));
  return types;
}

void Importer::read_argument(const Field& node, const Argument& argument, const Field& arg,
                             const std::vector<TensorType>& types, ir::Node& out, size_t operand) {
  (void)node;
  if (!argument.is_tensor()) {
    out.attrs.set(argument.name, attribute(argument, arg));
    return;
  }
  const std::string tag = arg.tag();
  if (argument.kind == Argument::Kind::kTensors) {
    if (tag != "as_tensors" && tag != "as_optional_tensors") arg.broken("a list of tensors");
    const Field list = arg[tag.c_str()];
    for (size_t i = 0; i < list.size(); ++i) {
      const bool optional = tag == "as_optional_tensors";
      if (optional && list[i].tag() == "as_none")
        out.inputs.push_back(ir::kNoValue);
      else
        out.inputs.push_back(value(optional ? list[i]["as_tensor"]["name"] : list[i]["name"]));
    }
    return;
  }
  CHECK(operand < out.inputs.size());
  if (tag == "as_none") return;
  out.inputs[operand] = tag == "as_tensor" ? value(arg["as_tensor"]["name"]) : scalar(arg, types);
}

void Importer::read_node(const Field& node) {
  const std::string& target = node["target"].text();
  if (dropped(node)) return check_assertion(node);
  ir::Node out;
  out.op = ops::find_op(operator_name(target));
  out.source = read_source(node);
  const std::vector<Argument>& arguments = ops::arguments_of(*out.op);
  const std::vector<TensorType> types = tensor_types(node);
  for (const Argument& argument : arguments)
    if (argument.is_tensor() && argument.kind != Argument::Kind::kTensors)
      out.inputs.push_back(ir::kNoValue);
  const Field inputs = node["inputs"];
  for (size_t i = 0; i < inputs.size(); ++i) {
    const std::string& name = inputs[i]["name"].text();
    const auto found = std::find_if(arguments.begin(), arguments.end(), [&](const Argument& a) {
      return a.aten_name == name || a.name == name;
    });
    if (found != arguments.end()) {
      read_argument(node, *found, inputs[i]["arg"], types, out,
                    static_cast<size_t>(found - arguments.begin()));
    } else if (!ignored(name) && inputs[i]["arg"].tag() != "as_none") {
      throw Error(ErrorCode::kUnsupported, fmt::format("{}: argument '{}' of {} is not supported",
                                                       graph_.describe(out), name, target));
    }
  }
  for (const Argument& argument : arguments)
    if (!argument.is_tensor() && argument.otherwise && out.attrs.find(argument.name) == nullptr)
      out.attrs.set(argument.name, *argument.otherwise);
  size_t operand = 0;
  for (const Argument& argument : arguments) {
    if (argument.kind == Argument::Kind::kTensor && out.inputs[operand] == ir::kNoValue)
      node.broken(fmt::format("a call of {} with its argument '{}'", target, argument.aten_name));
    if (argument.is_tensor()) ++operand;
  }

  const Field outputs = node["outputs"];
  std::vector<Field> names;
  for (size_t i = 0; i < outputs.size(); ++i) {
    const std::string tag = outputs[i].tag();
    if (tag == "as_tensor")
      names.push_back(outputs[i]["as_tensor"]["name"]);
    else if (tag == "as_tensors")
      for (size_t j = 0; j < outputs[i]["as_tensors"].size(); ++j)
        names.push_back(outputs[i]["as_tensors"][j]["name"]);
    else
      outputs[i].broken("a tensor result");
  }
  std::vector<TensorType> inferred;
  try {
    inferred = ops::infer_types(*out.op, out.attrs, graph_.operand_types(out));
  } catch (const Error& error) {
    throw error.within(graph_.describe(out));
  }
  for (size_t i = 0; i < names.size(); ++i) {
    const TensorType type = type_of_value(names[i]);
    const bool unused = names[i].text().find("_unused_") != std::string::npos;
    if (i >= inferred.size() && unused) continue;
    if (i >= inferred.size() || inferred[i] != type)
      throw Error(
          ErrorCode::kUnsupported,
          fmt::format("{}: result {} is {} in the file, but {} by Shardwright's rule of '{}'; "
                      "please report this",
                      graph_.describe(out), i, to_string(type),
                      i < inferred.size() ? to_string(inferred[i]) : "nothing", out.op->name));
    out.outputs.push_back(define(names[i].text(), type, names[i]));
  }
  for (size_t i = out.outputs.size(); i < inferred.size(); ++i)
    out.outputs.push_back(graph_.add_value(inferred[i]));
  graph_.nodes.push_back(std::move(out));
}

void Importer::read_outputs() {
  const Field outputs = body_["outputs"], specs = signature_["output_specs"];
  if (outputs.size() != specs.size())
    specs.broken(fmt::format("{} entries, one for each graph output", outputs.size()));
  for (size_t i = 0; i < specs.size(); ++i) {
    const std::string tag = specs[i].tag();
    const std::string kind = outputs[i].tag();
    if (kind != "as_tensor") continue;  // a Python value, which is known before the run
    const Field name = outputs[i]["as_tensor"]["name"];
    ir::Output output;
    output.value = value(name);
    output.name = name.text();
    if (tag == "buffer_mutation") {
      output.role = ir::OutputRole::kBufferMutation;
      output.name = specs[i][tag.c_str()]["buffer_name"].text();
    } else if (tag == "loss_output") {
      output.role = ir::OutputRole::kLoss;
    } else if (tag != "user_output") {
      throw Error(
          ErrorCode::kUnsupported,
          fmt::format("{}: outputs of the kind '{}' are not supported", specs[i].path(), tag));
    }
    graph_.outputs.push_back(std::move(output));
  }
  if (graph_.outputs.empty()) outputs.broken("at least one output");
}

}  // namespace

ir::Graph import_program(const Field& program, const Symbols& symbols, Weights& weights,
                         ir::Module& module, const std::string& name) {
  ir::Graph graph;
  graph.name = name;
  Importer(module, symbols, weights, graph, program).run();
  return graph;
}

}  // namespace shardwright::frontend
