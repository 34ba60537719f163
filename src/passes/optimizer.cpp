// optimizer: texts of the expression language, one a parameter.
#include "passes/optimizer.h"

#include <cstring>

#include <fmt/format.h>

#include "base/check.h"
#include "base/error.h"
#include "passes/drop_noops.h"
#include "passes/expand.h"
#include "passes/expression.h"
#include "passes/fold_constants.h"
#include "passes/merge_common.h"

namespace shardwright::passes {
namespace {

using ir::ValueId;

void check(const Optimizer& o) {
  const auto require = [](bool good, const char* what, double value, const char* range) {
    if (!good)
      throw Error(ErrorCode::kUsage, fmt::format("{} {}: it must be {}", what, value, range));
  };
  require(o.weight_decay >= 0, "weight decay", o.weight_decay, "0 or more, for example 0.01");
  require(o.momentum >= 0, "momentum", o.momentum, "0 or more, for example 0.9");
  require(o.beta1 >= 0 && o.beta1 < 1, "beta1", o.beta1, "in [0, 1), for example 0.9");
  require(o.beta2 >= 0 && o.beta2 < 1, "beta2", o.beta2, "in [0, 1), for example 0.999");
  require(o.eps >= 0, "eps", o.eps, "0 or more, for example 1e-8");
  require(o.clip_norm >= 0, "clip norm", o.clip_norm, "0 (none) or more, for example 1.0");
  if (o.nesterov && o.momentum == 0)
    throw Error(ErrorCode::kUsage, "nesterov needs a momentum above 0, for example 0.9");
}

// The rows of each dimension of its tensor that a part holds; empty if it is no such box.
std::vector<Range> box_of(const ir::LogicalTensor& tensor, const ir::TensorRef& ref,
                          const Shape& shape) {
  const Strides whole = contiguous_strides(tensor.type.shape);
  std::vector<Range> box;
  int64_t rest = ref.offset;
  for (size_t d = 0; d < whole.size(); ++d) {
    const int64_t begin = whole[d] > 0 ? rest / whole[d] : 0;
    rest -= begin * whole[d];
    int64_t size = 1;
    bool found = false;
    for (size_t i = 0; i < shape.size(); ++i)
      if (!found && shape[i] != 1 && ref.strides[i] == whole[d] &&
          begin + shape[i] <= tensor.type.shape[d]) {
        size = shape[i];
        found = true;
      }
    box.push_back({begin, begin + size});
  }
  int64_t count = 1;
  for (const Range& rows : box) count *= rows.size();
  return count == element_count(shape) ? box : std::vector<Range>{};
}

class Updates {
 public:
  Updates(ir::Module& module, ir::Graph& graph, const Optimizer& optimizer)
      : module_(module), graph_(graph), optimizer_(optimizer) {}

  void run() {
    check(optimizer_);
    take_gradients();
    check_parts();
    names_["lr"] = graph_.add_value({DType::kF32, {}}, "lr");
    graph_.inputs.push_back({names_["lr"], ir::InputRole::kUserInput, "lr", {}, {}});
    if (optimizer_.clip_norm > 0) clip();
    if (optimizer_.kind == Optimizer::Kind::kAdamW) count_step();
    for (const Trained& trained : trained_) update(trained);
    expand(module_, graph_);
    fold_constants(module_, graph_);
    drop_noops(module_, graph_);
    merge_common(module_, graph_);
  }

 private:
  struct Trained {
    ir::Input input;
    ValueId gradient;
  };

  void take_gradients() {
    std::vector<ir::Output> kept;
    for (const ir::Output& output : graph_.outputs) {
      if (output.role != ir::OutputRole::kGradient) {
        kept.push_back(output);
        continue;
      }
      for (const ir::Input& input : graph_.inputs)
        if (input.name == output.name) trained_.push_back({input, output.value});
    }
    CHECK(!trained_.empty(), "graph " + graph_.name + " has no gradients");
    graph_.outputs = std::move(kept);
  }

  // Each element of a parameter is updated once.
  void check_parts() const {
    for (size_t i = 0; i < trained_.size(); ++i)
      for (size_t j = 0; j < i; ++j)
        if (trained_[i].input.ref.tensor == trained_[j].input.ref.tensor) check_apart(i, j);
  }

  void check_apart(size_t i, size_t j) const {
    const auto& tensor = module_.tensors[static_cast<size_t>(trained_[i].input.ref.tensor)];
    const auto box = [&](size_t which) {
      const ir::Input& input = trained_[which].input;
      return box_of(tensor, input.ref, graph_.type(input.value).shape);
    };
    const std::vector<Range> a = box(i);
    const std::vector<Range> b = box(j);
    bool apart = false;
    for (size_t d = 0; d < a.size() && d < b.size(); ++d)
      apart |= a[d].end <= b[d].begin || b[d].end <= a[d].begin;
    if (!apart)
      throw Error(ErrorCode::kUnsupported,
                  fmt::format("{} and {} are trained, and share elements: the sum of their "
                              "gradients is not supported yet; freeze the parameter "
                              "(requires_grad=False) or untie it",
                              trained_[j].input.name, trained_[i].input.name));
  }

  void clip() {
    ValueId total = ir::kNoValue;
    for (const Trained& trained : trained_) {
      const ValueId part = text("sum(mul(g, g))", {{"g", trained.gradient}});
      total = total == ir::kNoValue ? part : text("add(a, b)", {{"a", total}, {"b", part}});
    }
    const ValueId factor =
        text(fmt::format("minimum(div({}, add(sqrt(n), 1e-6)), 1.0)", number(optimizer_.clip_norm)),
             {{"n", total}});
    for (Trained& trained : trained_)
      trained.gradient = text("mul(g, f)", {{"g", trained.gradient}, {"f", factor}});
  }

  // a = lr / (1 - beta1^t), s = sqrt(1 - beta2^t); in f64, as 1 - 0.999 in f32 is off by 1e-5.
  void count_step() {
    const ValueId before = state("optimizer.step", {DType::kF32, {}});
    const Built built =
        build(module_, graph_,
              fmt::format("t = add(before, 1.0); d = cast(t, dtype=f64); "
                          "a = cast(div(cast(lr, dtype=f64), sub(1.0, pow({}, d))), dtype=f32); "
                          "s = cast(sqrt(sub(1.0, pow({}, d))), dtype=f32)",
                          number(optimizer_.beta1), number(optimizer_.beta2)),
              {{"before", before}, {"lr", names_["lr"]}}, -1);
    write("optimizer.step", built.names.at("t"));
    names_["a"] = built.names.at("a");
    names_["s"] = built.names.at("s");
  }

  void update(const Trained& trained) {
    Names names = names_;
    names["w"] = trained.input.value;
    names["g"] = trained.gradient;
    const TensorType type{DType::kF32, graph_.type(trained.input.value).shape};
    const std::string& name = trained.input.name;
    const auto add_state = [&](const char* as, const std::string& which) {
      names[as] = state("optimizer." + which + "." + name, type);
    };
    if (optimizer_.kind == Optimizer::Kind::kAdamW) {
      add_state("m", "exp_avg");
      add_state("v", "exp_avg_sq");
      const Built built = build(module_, graph_, adamw_text(), names, -1);
      write("optimizer.exp_avg." + name, built.names.at("m"));
      write("optimizer.exp_avg_sq." + name, built.names.at("v"));
      write(name, built.names.at("w"));
      return;
    }
    if (optimizer_.momentum > 0) add_state("b", "momentum");
    const Built built = build(module_, graph_, sgd_text(), names, -1);
    if (optimizer_.momentum > 0) write("optimizer.momentum." + name, built.names.at("b"));
    write(name, built.names.at("w"));
  }

  std::string adamw_text() const {
    const Optimizer& o = optimizer_;
    return fmt::format(
        "p = {}; m = add(m, mul(sub(g, m), {})); v = add(mul(v, {}), mul(mul(g, g), {})); "
        "w = sub(p, div(mul(m, a), add(div(sqrt(v), s), {})))",
        o.weight_decay == 0 ? "w" : "mul(w, sub(1.0, mul(lr, " + number(o.weight_decay) + ")))",
        number(1 - o.beta1), number(o.beta2), number(1 - o.beta2), number(o.eps));
  }

  std::string sgd_text() const {
    const Optimizer& o = optimizer_;
    std::string text;
    if (o.weight_decay > 0) text += "g = add(g, mul(w, " + number(o.weight_decay) + ")); ";
    if (o.momentum > 0) text += "b = add(mul(b, " + number(o.momentum) + "), g); ";
    if (o.nesterov) text += "g = add(g, mul(b, " + number(o.momentum) + ")); ";
    const bool by_momentum = o.momentum > 0 && !o.nesterov;
    return text + "w = sub(w, mul(" + (by_momentum ? "b" : "g") + ", lr))";
  }

  static std::string number(double value) { return ops::to_string(ops::Attr(value)); }

  ValueId text(const std::string& text, const Names& names) {
    return build(module_, graph_, text, names, -1).results.at(0);
  }

  // A buffer of zeros, of which one element is stored.
  ValueId state(const std::string& name, const TensorType& type) {
    ir::LogicalTensor tensor;
    tensor.name = name;
    tensor.type = type;
    tensor.role = ir::InputRole::kBuffer;
    std::byte* bytes = nullptr;
    tensor.bytes = SharedBytes::allocate(dtype_bytes(type.dtype), &bytes);
    std::memset(bytes, 0, static_cast<size_t>(dtype_bytes(type.dtype)));
    tensor.strides.assign(type.shape.size(), 0);
    module_.tensors.push_back(std::move(tensor));
    const ValueId value = graph_.add_value(type, name);
    const int index = static_cast<int>(module_.tensors.size()) - 1;
    graph_.inputs.push_back(
        {value, ir::InputRole::kBuffer, name, {index, 0, contiguous_strides(type.shape)}, {}});
    return value;
  }

  void write(const std::string& name, ValueId value) {
    graph_.outputs.push_back({value, ir::OutputRole::kBufferMutation, name});
  }

  ir::Module& module_;
  ir::Graph& graph_;
  const Optimizer& optimizer_;
  std::vector<Trained> trained_;
  Names names_;  // lr, and a, s of AdamW
};

}  // namespace

void optimize(ir::Module& module, ir::Graph& graph, const Optimizer& optimizer) {
  Updates(module, graph, optimizer).run();
}

}  // namespace shardwright::passes
