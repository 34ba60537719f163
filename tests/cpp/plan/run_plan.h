// Runs plans step by step, all chips in lockstep on one thread, with the real kernels.
#pragma once

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/team.h"
#include "ir/interpret.h"
#include "kernels/cpu/gemm.h"
#include "ops/exchange.h"
#include "ops/op.h"
#include "pef/program.h"
#include "plan/plan.h"

namespace shardwright::plan {

// A manifest with one plan, as `compile` would make it.
inline pef::Manifest manifest_of(const ir::Module& module,
                                 const std::vector<std::vector<ir::Graph>>& local) {
  pef::Manifest manifest;
  for (const ir::Graph& graph : module.graphs) manifest.graphs.push_back(signature_of(graph));
  manifest.tensors = tensors_of(module);
  manifest.plans = {make_plan(module, local).plan};
  return manifest;
}

using Bytes = std::vector<std::byte>;

inline Bytes to_bytes(const ops::RefTensor& tensor) {
  const int64_t size = dtype_bytes(tensor.type.dtype);
  Bytes bytes(static_cast<size_t>(tensor.type.bytes()));
  for (size_t i = 0; i < tensor.data.size(); ++i)
    store_element(tensor.type.dtype, bytes.data() + static_cast<int64_t>(i) * size, tensor.data[i]);
  return bytes;
}

inline ops::RefTensor to_tensor(const TensorType& type, const std::byte* bytes) {
  ops::RefTensor tensor(type);
  for (size_t i = 0; i < tensor.data.size(); ++i)
    tensor.data[i] =
        load_element(type.dtype, bytes + static_cast<int64_t>(i) * dtype_bytes(type.dtype));
  return tensor;
}

class PlanRunner {
 public:
  PlanRunner(const ir::Module& module, const pef::Plan& plan, const ir::RefMap& tensors)
      : plan_(plan), chips_(plan.chips.size()) {
    for (size_t c = 0; c < chips_.size(); ++c) {
      // Whatever is read before it is written shows.
      chips_[c].arena.assign(static_cast<size_t>(plan.chips[c].arena_bytes) + 64, kGarbage);
      chips_[c].parameters.assign(static_cast<size_t>(plan.chips[c].parameter_bytes) + 64,
                                  kGarbage);
      for (const pef::Piece& piece : plan.chips[c].pieces)
        load(module, tensors, piece, memory(chips_[c].parameters) + piece.memory_offset_bytes);
    }
  }

  // Outputs by name.
  ir::RefMap run(size_t graph, const pef::GraphSignature& signature, const ir::RefMap& inputs) {
    inputs_.clear();
    outputs_.clear();
    for (const pef::Signature& input : signature.inputs)
      inputs_.push_back(to_bytes(inputs.at(input.name)));
    for (const pef::Signature& output : signature.outputs)
      outputs_.emplace_back(static_cast<size_t>(output.type.bytes()), kGarbage);
    const size_t n_steps = plan_.chips[0].programs[graph].steps.size();
    for (size_t s = 0; s < n_steps; ++s) {
      if (plan_.chips[0].programs[graph].steps[s].op == ops::exchange.name) {
        exchange(graph, s);
        continue;
      }
      for (size_t c = 0; c < chips_.size(); ++c)
        run_step(c, plan_.chips[c].programs[graph].steps[s]);
    }
    ir::RefMap results;
    for (size_t i = 0; i < outputs_.size(); ++i)
      results[signature.outputs[i].name] = to_tensor(signature.outputs[i].type, outputs_[i].data());
    return results;
  }

  const std::byte* parameter(size_t chip, size_t piece) {
    return memory(chips_[chip].parameters) + plan_.chips[chip].pieces[piece].memory_offset_bytes;
  }

 private:
  static constexpr std::byte kGarbage{0x7f};
  struct Chip {
    Bytes arena, parameters;
  };

  static std::byte* memory(Bytes& bytes) {
    const auto address = reinterpret_cast<uintptr_t>(bytes.data());
    return bytes.data() + (64 - address % 64) % 64;
  }

  void load(const ir::Module& module, const ir::RefMap& tensors, const pef::Piece& piece,
            std::byte* to) {
    const ir::LogicalTensor& logical = module.tensors[static_cast<size_t>(piece.tensor)];
    const ops::RefTensor whole =
        tensors.contains(logical.name) ? tensors.at(logical.name) : ir::to_ref(logical.view());
    ops::RefTensor part(TensorType{logical.type.dtype, piece.shape});
    std::vector<int64_t> index(piece.shape.size(), 0);
    for (double& element : part.data) {
      int64_t at = piece.offset;
      for (size_t d = 0; d < index.size(); ++d) at += index[d] * piece.strides[d];
      element = whole.data.at(static_cast<size_t>(at));
      for (size_t d = index.size(); d-- > 0 && ++index[d] == piece.shape[d];) index[d] = 0;
    }
    const Bytes bytes = to_bytes(part);
    if (piece.layout == ops::Layout::kStrided) {
      CHECK(static_cast<int64_t>(bytes.size()) == piece.memory_bytes);
      std::copy(bytes.begin(), bytes.end(), to);
      return;
    }
    team_.run([&](Member& member) {
      kernels::pack_panels(member, {.n = piece.shape[0],
                                    .k = piece.shape[1],
                                    .w = bytes.data(),
                                    .w_dtype = logical.type.dtype,
                                    .stride_n = piece.shape[1],
                                    .stride_k = 1,
                                    .panels = to,
                                    .panels_dtype = kernels::panel_dtype(logical.type.dtype)});
    });
  }

  std::byte* address(size_t chip, const pef::Buffer& buffer) {
    const auto index = static_cast<size_t>(buffer.index);
    switch (buffer.space) {
      case pef::Space::kNone:
        return nullptr;
      case pef::Space::kArena:
        return memory(chips_[chip].arena) + buffer.offset_bytes;
      case pef::Space::kParameter:
        return memory(chips_[chip].parameters) +
               plan_.chips[chip].pieces[index].memory_offset_bytes + buffer.offset_bytes;
      case pef::Space::kInput:
        return inputs_[index].data() + buffer.offset_bytes;
      case pef::Space::kStepScratch:
        return memory(scratch_[index]) + buffer.offset_bytes;
      case pef::Space::kOutput:
        return outputs_[index].data() + buffer.offset_bytes;
      default:
        CHECK(false, "only parts of a fused step lie there");
    }
  }

  void run_step(size_t chip, const pef::Step& step) {
    if (step.is_fused())
      run_parts(chip, step);
    else
      run_operator(chip, step);
  }

  // One part after another, over whole scratch values.
  void run_parts(size_t chip, const pef::Step& step) {
    scratch_.clear();
    for (int64_t bytes : step.scratch_bytes)
      scratch_.emplace_back(static_cast<size_t>(bytes) + 64, kGarbage);
    for (const pef::Step& part : step.parts) {
      pef::Step alone = part;
      for (auto* buffers : {&alone.operands, &alone.results})
        for (pef::Buffer& buffer : *buffers) buffer = outside(step, buffer);
      run_operator(chip, alone);
    }
  }

  static pef::Buffer outside(const pef::Step& step, pef::Buffer buffer) {
    const auto index = static_cast<size_t>(buffer.index);
    if (buffer.space != pef::Space::kStepOperand && buffer.space != pef::Space::kStepResult)
      return buffer;
    const pef::Buffer& whole =
        buffer.space == pef::Space::kStepOperand ? step.operands.at(index) : step.results.at(index);
    buffer.space = whole.space;
    buffer.index = whole.index;
    buffer.offset_bytes += whole.offset_bytes;
    return buffer;
  }

  void run_operator(size_t chip, const pef::Step& step) {
    ops::KernelSpec spec{.op = ops::find_op(step.op),
                         .attrs = &step.attrs,
                         .operands = {},
                         .results = {},
                         .begins = step.begins};
    std::vector<const void*> operands;
    std::vector<void*> results;
    const auto describe = [&](const pef::Buffer& buffer) {
      ops::OperandSpec operand{.present = buffer.space != pef::Space::kNone,
                               .type = buffer.type,
                               .strides = buffer.strides};
      if (buffer.space == pef::Space::kParameter)
        operand.layout = plan_.chips[chip].pieces[static_cast<size_t>(buffer.index)].layout;
      return operand;
    };
    bool empty = true;
    for (const pef::Buffer& buffer : step.operands) {
      spec.operands.push_back(describe(buffer));
      operands.push_back(address(chip, buffer));
    }
    for (const pef::Buffer& buffer : step.results) {
      spec.results.push_back(describe(buffer));
      results.push_back(address(chip, buffer));
      empty &= buffer.type.count() == 0;
    }
    if (empty) return;
    const auto kernel = spec.op->make_kernel(spec);
    Bytes scratch(static_cast<size_t>(kernel->scratch_bytes()) + 64);
    team_.run([&](Member& member) {
      kernel->run(member, operands.data(), results.data(), memory(scratch));
    });
  }

  void exchange(size_t graph, size_t s) {
    std::vector<ops::RefTensor> sources;
    std::vector<const ops::RefTensor*> pointers;
    for (size_t c = 0; c < chips_.size(); ++c) {
      const pef::Buffer& source = plan_.chips[c].programs[graph].steps[s].operands[0];
      sources.push_back(to_tensor(source.type, address(c, source)));
    }
    for (const ops::RefTensor& source : sources) pointers.push_back(&source);
    const auto description = ops::exchange_of(plan_.chips[0].programs[graph].steps[s].attrs);
    const auto targets = ops::run_exchange(description, pointers, "test");
    for (size_t c = 0; c < chips_.size(); ++c) {
      const Bytes bytes = to_bytes(targets[c]);
      std::copy(bytes.begin(), bytes.end(),
                address(c, plan_.chips[c].programs[graph].steps[s].results[0]));
    }
  }

  const pef::Plan& plan_;
  std::vector<Chip> chips_;
  std::vector<Bytes> inputs_, outputs_, scratch_;
  Team team_{1};
};

}  // namespace shardwright::plan
