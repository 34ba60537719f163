// Sizes and ranges of what a PEF describes.
#include "pef/program.h"

#include <algorithm>

#include "base/checked.h"
#include "base/error.h"

namespace shardwright::pef {

int64_t checked_bytes(const TensorType& type) {
  int64_t bytes = dtype_bytes(type.dtype);
  bool empty = false;
  for (int64_t size : type.shape) {
    if (size < 0)
      throw Error(ErrorCode::kBrokenFile, "a tensor has the shape " + to_string(type.shape));
    empty |= size == 0;
    if (size > 0) bytes = checked_mul(bytes, size);
  }
  if (type.ndim() > kMaxDims)
    throw Error(ErrorCode::kBrokenFile, "a tensor has " + std::to_string(type.ndim()) +
                                            " dimensions; at most " + std::to_string(kMaxDims) +
                                            " are possible");
  return empty ? 0 : bytes;
}

Range byte_range(const Buffer& buffer) {
  const Shape& shape = buffer.type.shape;
  const int64_t bytes = checked_bytes(buffer.type);
  if (buffer.strides.size() != shape.size() || buffer.offset_bytes < 0)
    throw Error(ErrorCode::kBrokenFile, "a buffer of shape " + to_string(shape) + " has strides " +
                                            to_string(buffer.strides) + " and starts at byte " +
                                            std::to_string(buffer.offset_bytes));
  int64_t last = 0;  // element
  for (size_t d = 0; d < shape.size(); ++d) {
    if (buffer.strides[d] < 0)
      throw Error(ErrorCode::kBrokenFile, "a buffer has a negative stride");
    if (shape[d] > 1) last = checked_add(last, checked_mul(shape[d] - 1, buffer.strides[d]));
  }
  if (buffer.space == Space::kNone || bytes == 0) return {};
  const int64_t end = checked_mul(checked_add(last, 1), dtype_bytes(buffer.type.dtype));
  return {buffer.offset_bytes, checked_add(buffer.offset_bytes, end)};
}

int64_t stored_bytes(const Tensor& tensor) {
  return tensor.repeated ? dtype_bytes(tensor.type.dtype) : checked_bytes(tensor.type);
}

Traffic traffic_of(const Program& program) {
  Traffic traffic;
  for (const Step& step : program.steps)
    for (const std::vector<Buffer>* buffers : {&step.operands, &step.results})
      for (const Buffer& buffer : *buffers) {
        int64_t& bytes =
            buffer.space == Space::kParameter ? traffic.weights_bytes : traffic.activations_bytes;
        // What is broadcast by strides of 0 lies there once.
        bytes += std::min(byte_range(buffer).size(), checked_bytes(buffer.type));
      }
  return traffic;
}

uint64_t features_of(const Manifest& manifest) {
  uint64_t features = 0;
  for (const Tensor& tensor : manifest.tensors)
    if (tensor.repeated) features |= kRepeatedTensors;
  for (const Plan& plan : manifest.plans)
    for (const ChipPlan& chip : plan.chips)
      for (const Program& program : chip.programs)
        for (const Step& step : program.steps)
          if (step.is_fused()) return features | kFusedSteps;
  return features;
}

}  // namespace shardwright::pef
