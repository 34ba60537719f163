// Runs a session on tensors of the interpreter.
#pragma once

#include <vector>

#include "ir/interpret.h"
#include "runtime/session.h"

namespace shardwright::runtime {

// User inputs by name -> user outputs by name, of graph 0.
inline ir::RefMap run_session(Session& session, const ir::RefMap& inputs) {
  const pef::GraphSignature& signature = session.manifest().graphs[0];
  std::vector<SharedBytes> memory;
  const auto allocate = [&](const TensorType& type) {
    std::byte* bytes = nullptr;
    memory.push_back(SharedBytes::allocate(type.bytes(), &bytes));
    return bytes;
  };
  std::vector<ConstArray> given;
  std::vector<Array> outputs;
  for (const pef::Signature& input : signature.inputs) {
    std::byte* bytes = allocate(input.type);
    given.push_back({input.type, bytes});
    for (const double element : inputs.at(input.name).data) {
      store_element(input.type.dtype, bytes, element);
      bytes += dtype_bytes(input.type.dtype);
    }
  }
  for (const pef::Signature& output : signature.outputs)
    outputs.push_back({output.type, allocate(output.type)});
  session.run(0, given, outputs);
  ir::RefMap results;
  for (size_t i = 0; i < outputs.size(); ++i) {
    const TensorType& type = outputs[i].type;
    results[signature.outputs[i].name] = ir::to_ref(
        {type, contiguous_strides(type.shape), static_cast<const std::byte*>(outputs[i].data)});
  }
  return results;
}

}  // namespace shardwright::runtime
