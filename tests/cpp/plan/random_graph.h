// Random graphs of views, elementwise operators and gemms.
#pragma once

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "ir/graph.h"

namespace shardwright::plan {

using ir::ValueId;

class RandomGraph {
 public:
  explicit RandomGraph(unsigned seed) : random_(seed) {
    graph_.name = "random";
    for (int i = 0; i < 2; ++i) {
      const ValueId value = graph_.add_value({DType::kF32, random_shape()});
      graph_.inputs.push_back({.value = value,
                               .role = ir::InputRole::kUserInput,
                               .name = "x" + std::to_string(i),
                               .ref = {}});
      values_.push_back(value);
    }
    for (int64_t i = 0, n = 4 + below(14); i < n; ++i) add_node();
    for (int64_t i = 0, n = 1 + below(4); i < n; ++i)
      graph_.outputs.push_back({.value = i == 0 ? values_.back() : any(),
                                .role = ir::OutputRole::kUserOutput,
                                .name = "y" + std::to_string(i)});
    module_.graphs = {graph_};
  }

  ir::Module module() const { return module_; }
  // The same with nodes in up to three groups, at random: some have to be divided.
  ir::Module grouped() {
    ir::Module module = module_;
    ir::Graph& graph = module.graphs[0];
    const int64_t n = 1 + below(3);
    for (int64_t i = 0; i < n; ++i) graph.groups.push_back({"g" + std::to_string(i), "test", ""});
    for (ir::Node& node : graph.nodes) node.group = static_cast<int>(below(n + 1)) - 1;
    return module;
  }

 private:
  int64_t below(int64_t n) { return static_cast<int64_t>(random_() % static_cast<uint64_t>(n)); }
  ValueId any() { return values_[static_cast<size_t>(below(std::ssize(values_)))]; }
  const Shape& shape(ValueId value) const { return graph_.type(value).shape; }
  Shape random_shape() {
    Shape result;
    for (int64_t i = 0, n = 1 + below(3); i < n; ++i) result.push_back(1 + below(4));
    return result;
  }
  void add(const char* op, std::vector<ValueId> inputs, ops::Attrs attrs = {}) {
    values_.push_back(ir::append(graph_, *ops::find_op(op), std::move(inputs), std::move(attrs)));
  }

  void add_node() {
    const ValueId x = any();
    const Shape s = shape(x);
    const auto ndim = std::ssize(s);
    switch (below(9)) {
      case 0:
        return add("neg", {x});
      case 1:
        return add("relu", {x});
      case 2: {  // of equal shapes if there are two
        const ValueId y = any();
        return add("add", {x, shape(y) == s ? y : x}, {{"alpha", int64_t{1}}});
      }
      case 3: {
        std::vector<int64_t> dims(s.size());
        for (size_t i = 0; i < dims.size(); ++i) dims[i] = static_cast<int64_t>(i);
        std::shuffle(dims.begin(), dims.end(), random_);
        return add("permute", {x}, {{"dims", dims}});
      }
      case 4:
        return add_reshape(x, s);
      case 5: {
        if (ndim == 0) return add("neg", {x});
        const int64_t dim = below(ndim);
        const int64_t size = s[static_cast<size_t>(dim)];
        const int64_t start = below(size);
        return add("slice", {x},
                   {{"dim", dim},
                    {"start", start},
                    {"end", start + 1 + below(size - start)},
                    {"step", 1 + below(2)}});
      }
      case 6: {
        if (ndim >= 4) return add("relu", {x});
        Shape wide = s;
        wide.insert(wide.begin(), 1 + below(3));
        return add("expand", {x}, {{"shape", wide}});
      }
      case 7: {
        if (ndim == 0) return add("neg", {x});
        return add("cat", {x, x}, {{"dim", below(ndim)}});
      }
      default:
        if (ndim < 2 || ndim > 4) return add("neg", {x});
        return add_linear(x, s);
    }
  }

  void add_reshape(ValueId x, const Shape& s) {
    Shape to;
    if (below(2) == 0 || s.empty()) {
      to = {element_count(s)};
    } else {  // split one dimension or merge two
      to = s;
      const auto d = static_cast<size_t>(below(std::ssize(s)));
      if (to[d] % 2 == 0 && to.size() < 5) {
        to[d] /= 2;
        to.insert(to.begin() + static_cast<std::ptrdiff_t>(d) + 1, 2);
      } else if (d + 1 < to.size()) {
        to[d] *= to[d + 1];
        to.erase(to.begin() + static_cast<std::ptrdiff_t>(d) + 1);
      }
    }
    add("reshape", {x}, {{"shape", to}});
  }

  void add_linear(ValueId x, const Shape& s) {
    const int64_t k = s.back();
    const int64_t n = 1 + below(5);
    ir::LogicalTensor tensor;
    tensor.name = "w" + std::to_string(module_.tensors.size());
    tensor.type = {DType::kF32, {n, k}};
    const ValueId w = graph_.add_value(tensor.type);
    graph_.inputs.push_back(
        {.value = w,
         .role = ir::InputRole::kParameter,
         .name = tensor.name,
         .ref = {
             .tensor = static_cast<int>(module_.tensors.size()), .offset = 0, .strides = {k, 1}}});
    module_.tensors.push_back(std::move(tensor));
    add("linear", {x, w, ir::kNoValue});
  }

  std::mt19937 random_;
  ir::Graph graph_;
  ir::Module module_;
  std::vector<ValueId> values_;
};

}  // namespace shardwright::plan
