// The text form: parsing, by recursive descent.
#include <algorithm>
#include <charconv>
#include <cstring>
#include <map>

#include "base/checked.h"
#include "base/error.h"
#include "ir/text.h"

namespace shardwright::ir {
namespace {

using ops::Attr;

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

bool is_word_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '.';
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text), rest_(text) {}

  Module module() {
    Module module;
    while (!at_end()) {
      const std::string keyword(word("tensor or graph"));
      if (keyword == "tensor") {
        module.tensors.push_back(tensor(module.tensors.size()));
      } else if (keyword == "graph") {
        module.graphs.push_back(graph());
      } else {
        fail("expected tensor or graph, found '" + keyword + "'");
      }
    }
    return module;
  }

 private:
  // ---- words ----

  [[noreturn]] void fail(const std::string& what) const {
    const size_t position = text_.size() - rest_.size();
    const std::string_view before = text_.substr(0, position);
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    const size_t newline = before.rfind('\n');
    const size_t column = newline == std::string_view::npos ? position + 1 : position - newline;
    throw Error(ErrorCode::kBrokenFile, "ir text, line " + std::to_string(line) + ", column " +
                                            std::to_string(column) + ": " + what);
  }

  void skip_space() {
    while (!rest_.empty() && (is_space(rest_.front()) || rest_.front() == '#')) {
      const size_t length = rest_.front() == '#' ? std::min(rest_.find('\n'), rest_.size()) : 1;
      rest_.remove_prefix(length);
    }
  }

  bool at_end() {
    skip_space();
    return rest_.empty();
  }

  bool peek(std::string_view token) {
    skip_space();
    if (!rest_.starts_with(token)) return false;
    // A keyword must end where it ends: "group" is not the start of "groups".
    return !is_word_char(token.back()) || rest_.size() == token.size() ||
           !is_word_char(rest_[token.size()]);
  }

  bool take(std::string_view token) {
    if (!peek(token)) return false;
    rest_.remove_prefix(token.size());
    return true;
  }

  void expect(std::string_view token) {
    if (take(token)) return;
    const std::string found =
        rest_.empty() ? "the end" : "'" + std::string(rest_.substr(0, 12)) + "'";
    fail("expected '" + std::string(token) + "', found " + found);
  }

  std::string_view word(std::string_view what) {
    skip_space();
    size_t length = 0;
    while (length < rest_.size() && is_word_char(rest_[length])) ++length;
    if (length == 0) fail("expected " + std::string(what));
    const std::string_view result = rest_.substr(0, length);
    rest_.remove_prefix(length);
    return result;
  }

  int64_t integer() {
    skip_space();
    int64_t value = 0;
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value);
    if (error != std::errc()) fail("expected a whole number");
    rest_.remove_prefix(static_cast<size_t>(end - rest_.data()));
    return value;
  }

  Attr attr() {
    skip_space();
    try {
      return ops::parse_attr(rest_);
    } catch (const Error& error) {
      fail(error.what());
    }
  }

  std::string quoted() {
    if (!peek("\"")) fail("expected a quoted string");
    return std::get<std::string>(attr());
  }

  // "[" item, item ... "]"
  template <typename Item>
  auto list(std::string_view open, std::string_view close, const Item& item) {
    std::vector<decltype(item())> items;
    expect(open);
    if (take(close)) return items;
    do items.push_back(item());
    while (take(","));
    expect(close);
    return items;
  }

  TensorType type() {
    const std::string name(word("a dtype"));
    const auto dtype = parse_dtype(name);
    if (!dtype) fail("'" + name + "' is not a dtype; f32 is one");
    Shape shape = list("[", "]", [&] { return integer(); });
    int64_t bytes = dtype_bytes(*dtype);
    for (const int64_t size : shape) {
      if (size < 0) fail("a size is negative");
      bytes = checked_mul(bytes, size);
    }
    return {*dtype, std::move(shape)};
  }

  template <typename Role>
  Role role(int count) {
    const std::string name(word("a role"));
    for (int i = 0; i < count; ++i)
      if (role_name(static_cast<Role>(i)) == name) return static_cast<Role>(i);
    fail("'" + name + "' is not a role");
  }

  std::vector<Range> piece() {
    if (!take("piece")) return {};
    return list("[", "]", [&] {
      const int64_t begin = integer();
      expect(":");
      return Range{begin, integer()};
    });
  }

  // ---- tensors ----

  void elements(LogicalTensor& tensor) {
    if (tensor.type.count() > kMaxPrintedElements) fail("too many elements");
    std::byte* data = nullptr;
    tensor.bytes = SharedBytes::allocate(tensor.type.bytes(), &data);
    int64_t index = 0;
    list("[", "]", [&] {
      const Attr value = attr();
      if (index >= tensor.type.count()) fail("more elements than the type has");
      std::byte* address = data + index++ * dtype_bytes(tensor.type.dtype);
      const auto* whole = std::get_if<int64_t>(&value);
      const auto* real = std::get_if<double>(&value);
      if (whole == nullptr && real == nullptr) fail("expected a number");
      if (whole != nullptr && tensor.type.dtype == DType::kI64) {
        std::memcpy(address, whole, sizeof *whole);
      } else {
        store_element(tensor.type.dtype, address, real ? *real : static_cast<double>(*whole));
      }
      return 0;
    });
    if (index != tensor.type.count()) fail("fewer elements than the type has");
  }

  LogicalTensor tensor(size_t index) {
    if (integer() != static_cast<int64_t>(index)) fail("tensors must be numbered 0, 1, 2, ...");
    LogicalTensor tensor;
    tensor.name = quoted();
    expect(":");
    tensor.type = type();
    tensor.role = role<InputRole>(4);
    tensor.trainable = take("trainable");
    tensor.strides = contiguous_strides(tensor.type.shape);
    if (take("also")) {
      do tensor.other_names.push_back(quoted());
      while (take(","));
    }
    if (take("=")) elements(tensor);
    return tensor;
  }

  // ---- graphs ----

  FusionGroup group(size_t index) {
    if (integer() != static_cast<int64_t>(index)) fail("groups must be numbered 0, 1, 2, ...");
    FusionGroup group;
    group.name = quoted();
    expect("from");
    group.origin = quoted();
    if (take("split")) group.split = quoted();
    return group;
  }

  ValueId new_value(Graph& graph) {
    expect("%");
    const std::string name(word("a value's name"));
    expect(":");
    const auto id = static_cast<ValueId>(graph.values.size());
    if (!ids_.emplace(name, id).second) fail("%" + name + " is defined twice");
    graph.values.push_back({name, type()});
    return id;
  }

  ValueId old_value() {
    if (take("-")) return kNoValue;
    expect("%");
    const std::string name(word("a value's name"));
    const auto found = ids_.find(name);
    if (found == ids_.end()) fail("%" + name + " is not defined above");
    return found->second;
  }

  Input input(Graph& graph) {
    Input input;
    input.value = new_value(graph);
    expect("=");
    input.role = role<InputRole>(4);
    input.name = quoted();
    if (input.role != InputRole::kUserInput) {
      expect("of");
      input.ref.tensor = static_cast<int>(integer());
      expect("offset");
      input.ref.offset = integer();
      expect("strides");
      input.ref.strides = list("[", "]", [&] { return integer(); });
    }
    input.piece = piece();
    return input;
  }

  Output output() {
    Output output;
    output.value = old_value();
    expect("=");
    output.role = role<OutputRole>(4);
    output.name = quoted();
    output.piece = piece();
    return output;
  }

  const ops::OpDef* op() {
    const std::string name(word("an operator"));
    const ops::OpDef* op = ops::find_op(name);
    if (op == nullptr)
      fail("'" + name + "' is not an operator; the nearest is " + ops::nearest_op(name));
    return op;
  }

  int source(Graph& graph) {
    Source source;
    source.path = quoted();
    source.file = quoted();
    expect(":");
    source.line = static_cast<int>(integer());
    const auto found = std::find(graph.sources.begin(), graph.sources.end(), source);
    const auto index = found - graph.sources.begin();
    if (found == graph.sources.end()) graph.sources.push_back(std::move(source));
    return static_cast<int>(index);
  }

  Node node(Graph& graph) {
    Node node;
    do node.outputs.push_back(new_value(graph));
    while (take(","));
    expect("=");
    node.op = op();
    node.inputs = list("(", ")", [&] { return old_value(); });
    const std::vector<ValueId>& mine = node.outputs;
    for (const ValueId id : node.inputs)
      if (std::find(mine.begin(), mine.end(), id) != mine.end())
        fail("a node reads its own result");
    if (peek("{")) {
      list("{", "}", [&] {
        const std::string name(word("an attribute's name"));
        expect("=");
        node.attrs.set(name, attr());
        return 0;
      });
    }
    if (take("begin")) {
      node.begins = list("{", "}", [&] {
        std::string factor(word("a factor"));
        expect("=");
        return std::pair<std::string, int64_t>(std::move(factor), integer());
      });
    }
    if (take("group")) {
      const int64_t group = integer();
      if (group < 0 || group >= std::ssize(graph.groups)) fail("no such group above");
      node.group = static_cast<int>(group);
    }
    if (take("@")) node.source = source(graph);
    return node;
  }

  Graph graph() {
    Graph graph;
    ids_.clear();
    graph.name = word("the graph's name");
    expect("{");
    while (!take("}")) {
      if (take("group")) {
        graph.groups.push_back(group(graph.groups.size()));
      } else if (take("input")) {
        graph.inputs.push_back(input(graph));
      } else if (take("output")) {
        graph.outputs.push_back(output());
      } else if (peek("%")) {
        graph.nodes.push_back(node(graph));
      } else {
        fail("expected group, input, output, a %value or }");
      }
    }
    return graph;
  }

  std::string_view text_;
  std::string_view rest_;
  std::map<std::string, ValueId, std::less<>> ids_;
};

}  // namespace

Module parse(std::string_view text) { return Parser(text).module(); }

}  // namespace shardwright::ir
