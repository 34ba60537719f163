// Fused steps in tests, from a text of their parts; run fused, and part by part with the kernels
// that the operators have alone.
//
//   h = add(x: bf16[2, 5, 64], r: bf16[2, 5, 64]); n = rms_norm(h, w: bf16[64], eps=1e-05);
//   a = ~slice(n, dim=2, end=32); y = silu(a) -> h, y
//
// A name with a type is an operand of the step ("w: panels f32[9, 8]" one in panels); "~" makes a
// view without a part; "*" before a name puts its rows apart, "%" its columns; what stands after
// "->" are the step's results.
#pragma once

#include <map>

#include "ops/fused.h"
#include "ops/run_op.h"

namespace shardwright::ops {

class FusedCase {
 public:
  explicit FusedCase(std::string_view text, int n_threads = 1) : text_(text) {
    spec.n_threads = n_threads;
    const size_t arrow = text.rfind("->");
    CHECK(arrow != std::string_view::npos);
    for (const std::string_view name : split(text.substr(arrow + 2), ','))
      results_.push_back(std::string(name));
    for (const std::string_view statement : split(text.substr(0, arrow), ';')) add(statement);
    CHECK(result_specs.size() == results_.size(), text_);
  }

  FusedSpec spec;
  std::vector<OperandSpec> operand_specs;  // of the step
  std::vector<OperandSpec> result_specs;

 private:
  using Where = FusedValue::Where;

  static std::string_view trim(std::string_view text) {
    while (!text.empty() && (text.front() == ' ' || text.front() == '\n')) text.remove_prefix(1);
    while (!text.empty() && (text.back() == ' ' || text.back() == '\n')) text.remove_suffix(1);
    return text;
  }
  static std::vector<std::string_view> split(std::string_view text, char separator) {
    std::vector<std::string_view> parts;
    int depth = 0;
    size_t begin = 0;
    for (size_t i = 0; i <= text.size(); ++i) {
      if (i < text.size() && (text[i] == '(' || text[i] == '[')) ++depth;
      if (i < text.size() && (text[i] == ')' || text[i] == ']')) --depth;
      if (i < text.size() && (text[i] != separator || depth > 0)) continue;
      if (const auto part = trim(text.substr(begin, i - begin)); !part.empty())
        parts.push_back(part);
      begin = i + 1;
    }
    return parts;
  }
  static TensorType parse_type(std::string_view text) {
    return *parse_sample(*find_op("neg"), "x: " + std::string(text)).operands[0];
  }

  static char take_mark(std::string_view* name) {
    const char mark = name->front();
    if (mark != '*' && mark != '%') return ' ';
    name->remove_prefix(1);
    return mark;
  }
  static Strides strides_of(const Shape& shape, char mark) {
    return test_strides(shape, mark == '%' ? Strided::kAny : Strided::kRows,
                        mark == ' ' ? TestLayout::kContiguous : TestLayout::kStrided);
  }

  FusedValue operand(std::string_view text) {
    if (text == "-") return {};
    const size_t colon = text.find(':');
    if (colon == std::string_view::npos) {
      CHECK(values_.contains(text), std::string(text) + " in " + text_);
      return values_.find(text)->second;
    }
    std::string_view name = trim(text.substr(0, colon));
    std::string_view type = trim(text.substr(colon + 1));
    const char mark = take_mark(&name);
    FusedValue value{
        .where = Where::kOperand, .index = static_cast<int>(operand_specs.size()), .spec = {}};
    if (type.starts_with("panels ")) {
      value.spec.layout = Layout::kPanels;
      type.remove_prefix(7);
    }
    value.spec.type = parse_type(type);
    value.spec.strides = strides_of(value.spec.type.shape, mark);
    operand_specs.push_back(value.spec);
    return values_[std::string(name)] = value;
  }

  void add(std::string_view statement) {
    const size_t equals = statement.find('=');
    std::string_view name = trim(statement.substr(0, equals));
    std::string_view call = trim(statement.substr(equals + 1));
    const bool is_view = call[0] == '~';
    if (is_view) call.remove_prefix(1);
    const size_t open = call.find('(');
    FusedPart part;
    part.op = find_op(call.substr(0, open));
    CHECK(part.op != nullptr, std::string(call));
    for (std::string_view arg : split(call.substr(open + 1, call.size() - open - 2), ',')) {
      const size_t sign = arg.find('=');
      if (sign == std::string_view::npos) {
        part.operands.push_back(operand(arg));
        continue;
      }
      std::string_view value = arg.substr(sign + 1);
      part.attrs.set(trim(arg.substr(0, sign)), parse_attr(value));
    }
    fill_defaults(*part.op, &part.attrs);
    const std::vector<Argument>& arguments = arguments_of(*part.op);
    while (part.operands.size() < arguments.size() &&
           arguments[part.operands.size()].kind == Argument::Kind::kOptionalTensor)
      part.operands.emplace_back();
    std::vector<std::optional<TensorType>> types;
    for (const FusedValue& value : part.operands)
      types.push_back(value.where == Where::kAbsent ? std::nullopt
                                                    : std::optional(value.spec.type));
    const TensorType type = infer_types(*part.op, part.attrs, types)[0];
    if (is_view) return add_view(name, part, type);
    const char mark = take_mark(&name);
    FusedValue value{.spec = {.type = type, .strides = strides_of(type.shape, mark)}};
    const auto result = std::find(results_.begin(), results_.end(), name);
    if (result != results_.end()) {
      value.where = Where::kResult;
      value.index = static_cast<int>(result - results_.begin());
      result_specs.resize(std::max(result_specs.size(), static_cast<size_t>(value.index) + 1));
      result_specs[static_cast<size_t>(value.index)] = value.spec;
    } else {
      value.where = Where::kScratch;
      value.index = static_cast<int>(spec.scratch_bytes.size());
      spec.scratch_bytes.push_back(type.bytes());
    }
    part.results.push_back(value);
    values_[std::string(name)] = value;
    spec.parts.push_back(std::move(part));
  }

  void add_view(std::string_view name, const FusedPart& part, const TensorType& type) {
    FusedValue value = part.operands[0];
    KernelSpec kernel{.op = part.op,
                      .attrs = &part.attrs,
                      .operands = {value.spec},
                      .results = {{.type = type, .strides = contiguous_strides(type.shape)}},
                      .begins = {}};
    int64_t offset = 0;
    CHECK(part.op->view(kernel, part.operands[0].spec.strides, &value.spec.strides, &offset),
          text_);
    value.offset_bytes += offset * dtype_bytes(type.dtype);
    value.spec.type = type;
    values_[std::string(name)] = value;
  }

  std::string text_;
  std::vector<std::string> results_;
  std::map<std::string, FusedValue, std::less<>> values_;
};

// 64-byte aligned bytes, filled with 0xff.
class Bytes {
 public:
  explicit Bytes(int64_t size) : bytes_(static_cast<size_t>(size) + 64, std::byte{0xff}) {}
  std::byte* data() {
    return reinterpret_cast<std::byte*>((reinterpret_cast<uintptr_t>(bytes_.data()) + 63) / 64 *
                                        64);
  }

 private:
  std::vector<std::byte> bytes_;
};

// Operands and results of a case in memory.
class FusedRun {
 public:
  FusedRun(const FusedCase& fused, const std::vector<RefTensor>& inputs)
      : case_(fused), team_(fused.spec.n_threads) {
    buffers_.reserve(inputs.size() + fused.result_specs.size());
    for (size_t i = 0; i < inputs.size(); ++i) {
      const OperandSpec& spec = fused.operand_specs[i];
      buffers_.emplace_back(spec.type, spec.strides).write(inputs[i]);
      operands_.push_back(buffers_.back().data());
      if (spec.layout == Layout::kPanels) pack(spec);
    }
    for (const OperandSpec& spec : fused.result_specs) {
      buffers_.emplace_back(spec.type, spec.strides);
      results_.push_back(buffers_.back().data());
    }
  }
  // Result `result` in the memory of that operand.
  void share(int result, int operand) {
    results_[static_cast<size_t>(result)] =
        const_cast<void*>(operands_[static_cast<size_t>(operand)]);
    shared_[result] = operand;
  }

  std::vector<RefTensor> fused() {
    const std::unique_ptr<Kernel> kernel = make_fused_kernel(case_.spec);
    run(*kernel, operands_.data(), results_.data());
    if (shared_.empty()) run(*kernel, operands_.data(), results_.data());  // scratch is reused
    return read();
  }

  std::vector<RefTensor> by_parts() {
    std::vector<Bytes> scratch;
    for (const int64_t bytes : case_.spec.scratch_bytes) scratch.emplace_back(bytes);
    for (const FusedPart& part : case_.spec.parts) {
      KernelSpec spec{.op = part.op,
                      .attrs = &part.attrs,
                      .operands = {},
                      .results = {},
                      .begins = part.begins,
                      .n_threads = case_.spec.n_threads};
      std::vector<const void*> operands;
      std::vector<void*> results;
      const auto place = [&](const FusedValue& value) -> std::byte* {
        const auto i = static_cast<size_t>(value.index);
        switch (value.where) {
          case FusedValue::Where::kOperand:
            return static_cast<std::byte*>(const_cast<void*>(operands_[i])) + value.offset_bytes;
          case FusedValue::Where::kResult:
            return static_cast<std::byte*>(results_[i]) + value.offset_bytes;
          case FusedValue::Where::kScratch:
            return scratch[i].data() + value.offset_bytes;
          default:
            return nullptr;
        }
      };
      for (const FusedValue& value : part.operands) {
        spec.operands.push_back(value.spec);
        spec.operands.back().present = value.where != FusedValue::Where::kAbsent;
        operands.push_back(place(value));
      }
      for (const FusedValue& value : part.results) {
        spec.results.push_back(value.spec);
        results.push_back(place(value));
      }
      run(*part.op->make_kernel(spec), operands.data(), results.data());
    }
    return read();
  }

 private:
  void pack(const OperandSpec& spec) {
    const DType dtype = kernels::panel_dtype(spec.type.dtype);
    panels_.emplace_back(kernels::panel_bytes(dtype, spec.type.shape[0], spec.type.shape[1]));
    const kernels::PackArgs pack{.n = spec.type.shape[0],
                                 .k = spec.type.shape[1],
                                 .w = operands_.back(),
                                 .w_dtype = spec.type.dtype,
                                 .stride_n = spec.type.shape[1],
                                 .panels = panels_.back().data(),
                                 .panels_dtype = dtype};
    team_.run([&](Member& member) { kernels::pack_panels(member, pack); });
    operands_.back() = pack.panels;
  }

  void run(const Kernel& kernel, const void* const* operands, void* const* results) {
    Bytes scratch(kernel.scratch_bytes());
    team_.run([&](Member& member) { kernel.run(member, operands, results, scratch.data()); });
  }

  std::vector<RefTensor> read() {
    std::vector<RefTensor> out;
    const size_t first = operands_.size();
    for (size_t i = 0; i < results_.size(); ++i) {
      const auto shared = shared_.find(static_cast<int>(i));
      TestBuffer& buffer =
          buffers_[shared == shared_.end() ? first + i : static_cast<size_t>(shared->second)];
      EXPECT_TRUE(buffer.rest_is_untouched()) << "result " << i << ": wrote between the elements";
      out.push_back(buffer.read());
    }
    return out;
  }

  const FusedCase& case_;
  Team team_;
  std::vector<TestBuffer> buffers_;
  std::vector<Bytes> panels_;
  std::vector<const void*> operands_;
  std::vector<void*> results_;
  std::map<int, int> shared_;
};

inline std::vector<RefTensor> random_inputs(const FusedCase& fused, unsigned seed,
                                            int integers = 0) {
  std::mt19937 random(seed);
  std::vector<RefTensor> inputs;
  for (const OperandSpec& spec : fused.operand_specs) {
    inputs.push_back(random_tensor(spec.type, 0, random));
    std::uniform_int_distribution<int> integer(-integers, integers);
    for (double& value : inputs.back().data)
      if (integers > 0) value = integer(random);
  }
  return inputs;
}

// The same bits, NaN being equal to NaN.
inline void expect_same(const std::vector<RefTensor>& got, const std::vector<RefTensor>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t r = 0; r < got.size(); ++r)
    for (size_t i = 0; i < want[r].data.size(); ++i) {
      const double a = got[r].data[i];
      const double b = want[r].data[i];
      ASSERT_TRUE(a == b || (std::isnan(a) && std::isnan(b)))
          << "result " << r << " element " << i << " is " << a << ", expected " << b;
    }
}

}  // namespace shardwright::ops
