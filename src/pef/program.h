// What a PEF holds, in memory: the manifest, the plans, and each chip's programs. Both sides,
// writer and reader, speak these types.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/team.h"
#include "ops/attrs.h"
#include "ops/exchange.h"
#include "ops/kernel.h"
#include "tensor/tensor.h"

namespace shardwright::pef {

inline constexpr int kMajor = 1;
// 1: fused steps, who wrote each operand; 2: repeated tensors
inline constexpr int kMinor = 2;
inline constexpr int kOldestMinor = 1;  // that is still read

// Bits of the header that a reader must know.
inline constexpr uint64_t kFusedSteps = 1;       // some program has fused steps
inline constexpr uint64_t kRepeatedTensors = 2;  // some tensor is one element, many times
inline constexpr uint64_t kFiles = 4;            // files go along with the model
inline constexpr uint64_t kKnownFeatures = kFusedSteps | kRepeatedTensors | kFiles;

// A logical tensor: stored whole, once, row-major.
struct Tensor {
  std::string name;
  std::vector<std::string> other_names;
  TensorType type;
  bool trainable = false;
  bool constant =
      false;  // made by the compiler or lifted by torch.export: not a parameter of the user
  int64_t offset_bytes = -1;  // in the weights segment; set by the writer; -1: the file does not
                              // hold its bytes
  bool repeated = false;  // all elements are equal: the file holds one of them (an empty KV cache)
};

// Bytes of a tensor in the file.
int64_t stored_bytes(const Tensor& tensor);

struct Signature {  // of a user input or output
  std::string name;
  TensorType type;  // whole
};

// Part of a logical tensor on one chip: element (i...) of the piece is element offset + sum i_k
// strides_k of the whole.
struct Piece {
  int tensor = 0;
  int64_t offset = 0;  // elements
  Strides strides;
  Shape shape;
  ops::Layout layout = ops::Layout::kStrided;  // as it lies in the chip's memory: contiguous, or
                                               // panels (shape is [N, K])
  int64_t memory_offset_bytes = 0;             // in the chip's parameter memory; 256-byte aligned
  int64_t memory_bytes = 0;
};

enum class Space : uint8_t {
  kNone,       // an absent optional operand
  kArena,      // offset_bytes into the chip's arena
  kParameter,  // index: into ChipPlan::pieces
  kInput,      // index: user input; offset_bytes into the user's whole, contiguous array
  kOutput,     // index: user output; the same
  // In the parts of a fused step, and nowhere else:
  kStepOperand,  // index: into the step's operands; offset_bytes from that operand's first element
  kStepResult,   // index: into its results; the same
  kStepScratch,  // index: into Step::scratch_bytes; offset_bytes into that scratch value
};

// Where a step finds an operand or puts a result. `strides` in elements.
struct Buffer {
  Space space = Space::kNone;
  int index = -1;
  int64_t offset_bytes = 0;
  TensorType type;  // local
  Strides strides;
  // Of an operand: the step that made what is read here; -1: it was there before the first step.
  int written_by = -1;
};

// The bytes of `type`. Throws Error(kBrokenFile) for a negative size, more than kMaxDims
// dimensions, or more bytes than 64 bits count.
int64_t checked_bytes(const TensorType& type);
// From the first byte of the buffer to behind its last, in its space (of a parameter: in the
// piece's memory); empty if it is absent or has no elements. Throws Error(kBrokenFile) for strides
// that don't fit the shape, are negative, or lead beyond 64 bits.
Range byte_range(const Buffer& buffer);

// `op` of a fused step: several operators that run as one (ops/fused.h). Its operands and results
// are what the parts read and write outside of it, each buffer once; what only the parts see lies
// in scratch. Parts are in the order in which they could run one by one; they write each byte once.
inline constexpr std::string_view kFused = "fused";

struct Step {
  std::string op;
  ops::Attrs attrs;
  std::vector<Buffer> operands;
  std::vector<Buffer> results;
  std::vector<std::pair<std::string, int64_t>> begins;
  std::string source;  // "model.layers.0.mlp.up_proj model.py:41", for messages and profiles
  bool barrier_before =
      true;  // false: needs nothing that the step before wrote, and frees nothing that it reads
  std::vector<Step> parts = {};             // of a fused step
  std::vector<int64_t> scratch_bytes = {};  // of its scratch values
  bool is_fused() const { return op == kFused; }
};

struct Program {  // of one graph on one chip
  std::vector<Step> steps;
  int64_t arena_bytes = 0;
};

// What the steps of a run read and write in memory, each operand and result of a step counted once
// (elements that lie apart without what is between them). A fused step's scratch is not in it.
struct Traffic {
  int64_t weights_bytes = 0;      // whole tables where rows are looked up
  int64_t activations_bytes = 0;  // in the arena, the inputs and the outputs
};
Traffic traffic_of(const Program& program);

struct ChipPlan {
  std::vector<Piece> pieces;
  std::vector<Program> programs;  // one a graph
  int64_t parameter_bytes = 0;
  int64_t arena_bytes = 0;     // the largest of its programs
  int64_t transfer_bytes = 0;  // of the arena: buffers that exchanges read or write, at their peak
};

struct Plan {
  int n_chips = 1;
  std::string mode;  // "none", "batch", "weight", "auto"
  std::vector<ChipPlan> chips;
  std::vector<std::string> notes;
};

struct GraphSignature {
  std::string name;
  std::vector<Signature> inputs;
  std::vector<Signature> outputs;
};

struct Manifest {
  std::string model_name;
  std::string producer;  // "shardwright 0.1.0"
  std::map<std::string, std::string>
      options;  // as the user gave them: "tensor-parallel" -> "weight"; no paths
  std::vector<GraphSignature> graphs;
  std::vector<Tensor> tensors;
  std::vector<Plan> plans;
};

// The bits that the header of a file with these programs has.
uint64_t features_of(const Manifest& manifest);

}  // namespace shardwright::pef
