// Manifest, chip plans and programs to FlatBuffers.
#include <type_traits>

#include "pef/codec.h"
#include "pef/flatbuffer.h"
#include "pef/manifest_generated.h"
#include "pef/plan_generated.h"

namespace shardwright::pef {
namespace {

using flatbuffers::FlatBufferBuilder;
using flatbuffers::Offset;

// A vector of what `encode` makes of each item.
template <typename Items, typename Encode>
auto vector_of(FlatBufferBuilder& builder, const Items& items, Encode encode) {
  std::vector<decltype(encode(*items.begin()))> offsets;
  offsets.reserve(items.size());
  for (const auto& item : items) offsets.push_back(encode(item));
  return builder.CreateVector(offsets);
}

auto strings(FlatBufferBuilder& builder, const std::vector<std::string>& texts) {
  return vector_of(builder, texts,
                   [&](const std::string& text) { return builder.CreateString(text); });
}

Offset<fb::TensorType> encode(FlatBufferBuilder& builder, const TensorType& type) {
  const auto shape = builder.CreateVector(type.shape);
  return fb::CreateTensorType(builder, static_cast<uint8_t>(type.dtype), shape);
}

auto encode(FlatBufferBuilder& builder, const std::vector<Signature>& signatures) {
  return vector_of(builder, signatures, [&](const Signature& signature) {
    const auto name = builder.CreateString(signature.name);
    return fb::CreateSignature(builder, name, encode(builder, signature.type));
  });
}

Offset<fb::GraphSignature> encode(FlatBufferBuilder& builder, const GraphSignature& graph) {
  const auto name = builder.CreateString(graph.name);
  const auto inputs = encode(builder, graph.inputs);
  return fb::CreateGraphSignature(builder, name, inputs, encode(builder, graph.outputs));
}

Offset<fb::Tensor> encode(FlatBufferBuilder& builder, const Tensor& tensor) {
  const auto name = builder.CreateString(tensor.name);
  const auto other_names = strings(builder, tensor.other_names);
  const auto type = encode(builder, tensor.type);
  return fb::CreateTensor(builder, name, other_names, type, tensor.trainable, tensor.constant,
                          tensor.offset_bytes, tensor.repeated);
}

Offset<fb::Plan> encode(FlatBufferBuilder& builder, const Plan& plan) {
  const auto mode = builder.CreateString(plan.mode);
  return fb::CreatePlan(builder, plan.n_chips, mode, strings(builder, plan.notes));
}

Offset<fb::Piece> encode(FlatBufferBuilder& builder, const Piece& piece) {
  const auto strides = builder.CreateVector(piece.strides);
  const auto shape = builder.CreateVector(piece.shape);
  return fb::CreatePiece(builder, piece.tensor, piece.offset, strides, shape,
                         static_cast<uint8_t>(piece.layout), piece.memory_offset_bytes,
                         piece.memory_bytes);
}

Offset<fb::Buffer> encode(FlatBufferBuilder& builder, const Buffer& buffer) {
  const auto shape = builder.CreateVector(buffer.type.shape);
  const auto strides = builder.CreateVector(buffer.strides);
  return fb::CreateBuffer(builder, static_cast<uint8_t>(buffer.space), buffer.index,
                          buffer.offset_bytes, static_cast<uint8_t>(buffer.type.dtype), shape,
                          strides, buffer.written_by);
}

Offset<fb::Attr> encode(FlatBufferBuilder& builder,
                        const std::pair<std::string, ops::Attr>& entry) {
  const auto name = builder.CreateSharedString(entry.first);
  Offset<flatbuffers::String> text;
  Offset<flatbuffers::Vector<int64_t>> integers;
  Offset<flatbuffers::Vector<double>> numbers;
  int64_t integer = 0;
  double number = 0;
  std::visit(
      [&](const auto& value) {
        using T = std::decay_t<decltype(value)>;
        if constexpr (std::is_same_v<T, double>) number = value;
        if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, int64_t> ||
                      std::is_same_v<T, DType>)
          integer = static_cast<int64_t>(value);
        if constexpr (std::is_same_v<T, std::string>) text = builder.CreateString(value);
        if constexpr (std::is_same_v<T, std::vector<int64_t>>)
          integers = builder.CreateVector(value);
        if constexpr (std::is_same_v<T, std::vector<double>>) numbers = builder.CreateVector(value);
      },
      entry.second);
  return fb::CreateAttr(builder, name, static_cast<uint8_t>(entry.second.index()), integer, number,
                        text, integers, numbers);
}

Offset<fb::Step> encode(FlatBufferBuilder& builder, const Step& step) {
  const auto buffers = [&](const std::vector<Buffer>& list) {
    return vector_of(builder, list, [&](const Buffer& buffer) { return encode(builder, buffer); });
  };
  const auto op = builder.CreateSharedString(step.op);
  const auto attrs = vector_of(builder, step.attrs.entries(),
                               [&](const auto& entry) { return encode(builder, entry); });
  const auto operands = buffers(step.operands);
  const auto results = buffers(step.results);
  const auto begins = vector_of(builder, step.begins, [&](const auto& begin) {
    const auto factor = builder.CreateSharedString(begin.first);
    return fb::CreateBegin(builder, factor, begin.second);
  });
  const auto source = builder.CreateSharedString(step.source);
  if (!step.is_fused())
    return fb::CreateStep(builder, op, attrs, operands, results, begins, source,
                          step.barrier_before);
  const auto parts =
      vector_of(builder, step.parts, [&](const Step& part) { return encode(builder, part); });
  return fb::CreateStep(builder, op, attrs, operands, results, begins, source, step.barrier_before,
                        parts, builder.CreateVector(step.scratch_bytes));
}

}  // namespace

std::string encode_manifest(const Manifest& manifest) {
  FlatBufferBuilder builder;
  const auto list = [&](const auto& items) {
    return vector_of(builder, items, [&](const auto& item) { return encode(builder, item); });
  };
  const auto model_name = builder.CreateString(manifest.model_name);
  const auto producer = builder.CreateString(manifest.producer);
  const auto options = vector_of(builder, manifest.options, [&](const auto& option) {
    const auto name = builder.CreateString(option.first);
    return fb::CreateOption(builder, name, builder.CreateString(option.second));
  });
  const auto graphs = list(manifest.graphs);
  const auto tensors = list(manifest.tensors);
  const auto plans = list(manifest.plans);
  builder.Finish(
      fb::CreateManifest(builder, model_name, producer, options, graphs, tensors, plans));
  return bytes_of(builder);
}

std::string encode_chip(const ChipPlan& chip) {
  FlatBufferBuilder builder;
  const auto pieces =
      vector_of(builder, chip.pieces, [&](const Piece& piece) { return encode(builder, piece); });
  builder.Finish(
      fb::CreateChip(builder, pieces, chip.parameter_bytes, chip.arena_bytes, chip.transfer_bytes));
  return bytes_of(builder);
}

std::string encode_program(const Program& program) {
  FlatBufferBuilder builder;
  const auto steps =
      vector_of(builder, program.steps, [&](const Step& step) { return encode(builder, step); });
  builder.Finish(fb::CreateProgram(builder, steps, program.arena_bytes));
  return bytes_of(builder);
}

}  // namespace shardwright::pef
