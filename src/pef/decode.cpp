// Manifest, chip plans and programs from FlatBuffers.
#include <fmt/format.h>

#include <cstring>

#include "pef/codec.h"
#include "pef/flatbuffer.h"
#include "pef/manifest_generated.h"
#include "pef/plan_generated.h"

namespace shardwright::pef {
namespace {

// Turns a verified FlatBuffer into our types. Strings may be shared in a buffer, so the verifier
// alone does not bound what they decode to: the decoder does.
class Decoder {
 public:
  Decoder(const std::string& what, size_t buffer_bytes)
      : what_(what), budget_bytes_(kBlowUp * buffer_bytes) {}

  std::string text(const flatbuffers::String* string) {
    if (string == nullptr) return {};
    spend(string->size());
    return string->str();
  }

  template <typename T>
  std::vector<T> numbers(const flatbuffers::Vector<T>* vector) {
    if (vector == nullptr) return {};
    spend(vector->size() * sizeof(T));
    // The verifier does not check the alignment of elements larger than the vector's length.
    std::vector<T> numbers(vector->size());
    if (!numbers.empty()) std::memcpy(numbers.data(), vector->Data(), numbers.size() * sizeof(T));
    return numbers;
  }

  // Of a vector of tables or strings.
  template <typename Vector, typename Decode>
  auto list(const Vector* vector, Decode decode) {
    std::vector<decltype(decode(*vector->Get(0)))> items;
    if (vector == nullptr) return items;
    spend(vector->size() * sizeof(flatbuffers::uoffset_t));
    for (const auto* item : *vector) items.push_back(decode(*item));
    return items;
  }

  template <typename Enum>
  Enum enumerator(uint8_t value, Enum last) const {
    if (value > static_cast<uint8_t>(last)) broken(fmt::format("an enum has the value {}", value));
    return static_cast<Enum>(value);
  }

  std::vector<std::string> texts(
      const flatbuffers::Vector<flatbuffers::Offset<flatbuffers::String>>* strings) {
    return list(strings, [&](const flatbuffers::String& string) { return text(&string); });
  }

  TensorType type(const fb::TensorType* type) {
    if (type == nullptr) broken("a type is missing");
    return {enumerator(type->dtype(), DType::kBool), numbers(type->shape())};
  }

  std::vector<Signature> signatures(
      const flatbuffers::Vector<flatbuffers::Offset<fb::Signature>>* signatures) {
    return list(signatures, [&](const fb::Signature& signature) {
      return Signature{text(signature.name()), type(signature.type())};
    });
  }

  Tensor tensor(const fb::Tensor& tensor) {
    return {.name = text(tensor.name()),
            .other_names = texts(tensor.other_names()),
            .type = type(tensor.type()),
            .trainable = tensor.trainable(),
            .constant = tensor.constant(),
            .offset_bytes = tensor.offset_bytes(),
            .repeated = tensor.repeated()};
  }

  Piece piece(const fb::Piece& piece) {
    return {.tensor = piece.tensor(),
            .offset = piece.offset(),
            .strides = numbers(piece.strides()),
            .shape = numbers(piece.shape()),
            .layout = enumerator(piece.layout(), ops::Layout::kPanels),
            .memory_offset_bytes = piece.memory_offset_bytes(),
            .memory_bytes = piece.memory_bytes()};
  }

  Buffer buffer(const fb::Buffer& buffer) {
    return {.space = enumerator(buffer.space(), Space::kStepScratch),
            .index = buffer.index(),
            .offset_bytes = buffer.offset_bytes(),
            .type = {enumerator(buffer.dtype(), DType::kBool), numbers(buffer.shape())},
            .strides = numbers(buffer.strides()),
            .written_by = buffer.written_by()};
  }

  ops::Attr attr(const fb::Attr& attr) {
    switch (attr.kind()) {
      case 0:
        return std::monostate();
      case 1:
        return attr.integer() != 0;
      case 2:
        return attr.integer();
      case 3:
        return attr.number();
      case 4:
        return text(attr.text());
      case 5:
        return numbers(attr.integers());
      case 6:
        return numbers(attr.numbers());
      case 7:
        if (attr.integer() < 0 || attr.integer() >= kDTypeCount) break;
        return static_cast<DType>(attr.integer());
      default:
        break;
    }
    broken(fmt::format("an attribute has kind {} and value {}", attr.kind(), attr.integer()));
  }

  Step step(const fb::Step& step, bool is_part = false) {
    const auto one = [&](const fb::Buffer& item) { return buffer(item); };
    Step result;
    result.op = text(step.op());
    if (step.attrs() != nullptr)
      for (const fb::Attr* entry : *step.attrs())
        result.attrs.set(text(entry->name()), attr(*entry));
    result.operands = list(step.operands(), one);
    result.results = list(step.results(), one);
    result.begins = list(step.begins(), [&](const fb::Begin& begin) {
      return std::pair(text(begin.factor()), begin.begin());
    });
    result.source = text(step.source());
    result.barrier_before = step.barrier_before();
    if (is_part && step.parts() != nullptr) broken("a part of a step has parts");
    result.parts = list(step.parts(), [&](const fb::Step& part) { return this->step(part, true); });
    result.scratch_bytes = numbers(step.scratch_bytes());
    return result;
  }

 private:
  static constexpr size_t kBlowUp = 16;  // sources of steps are often the same

  [[noreturn]] void broken(const std::string& message) const {
    throw Error(ErrorCode::kBrokenFile, what_ + ": " + message);
  }

  void spend(size_t bytes) {
    if (bytes > budget_bytes_) broken("it says the same strings too often");
    budget_bytes_ -= bytes;
  }

  std::string what_;
  size_t budget_bytes_;
};

}  // namespace

Manifest decode_manifest(std::span<const std::byte> bytes, const std::string& what) {
  const auto& root = verified_root<fb::Manifest>(bytes, what);
  Decoder decoder(what, bytes.size());
  Manifest manifest;
  manifest.model_name = decoder.text(root.model_name());
  manifest.producer = decoder.text(root.producer());
  if (root.options() != nullptr)
    for (const fb::Option* option : *root.options())
      manifest.options[decoder.text(option->name())] = decoder.text(option->value());
  manifest.graphs = decoder.list(root.graphs(), [&](const fb::GraphSignature& graph) {
    return GraphSignature{decoder.text(graph.name()), decoder.signatures(graph.inputs()),
                          decoder.signatures(graph.outputs())};
  });
  manifest.tensors = decoder.list(root.tensors(),
                                  [&](const fb::Tensor& tensor) { return decoder.tensor(tensor); });
  manifest.plans = decoder.list(root.plans(), [&](const fb::Plan& plan) {
    return Plan{.n_chips = plan.n_chips(),
                .mode = decoder.text(plan.mode()),
                .chips = {},
                .notes = decoder.texts(plan.notes())};
  });
  return manifest;
}

ChipPlan decode_chip(std::span<const std::byte> bytes, const std::string& what) {
  const auto& root = verified_root<fb::Chip>(bytes, what);
  Decoder decoder(what, bytes.size());
  return {.pieces = decoder.list(root.pieces(),
                                 [&](const fb::Piece& piece) { return decoder.piece(piece); }),
          .programs = {},
          .parameter_bytes = root.parameter_bytes(),
          .arena_bytes = root.arena_bytes(),
          .transfer_bytes = root.transfer_bytes()};
}

Program decode_program(std::span<const std::byte> bytes, const std::string& what) {
  const auto& root = verified_root<fb::Program>(bytes, what);
  Decoder decoder(what, bytes.size());
  return {
      .steps = decoder.list(root.steps(), [&](const fb::Step& step) { return decoder.step(step); }),
      .arena_bytes = root.arena_bytes()};
}

}  // namespace shardwright::pef
