// Session: a loaded PEF on n chips. Owns parameters and buffers; runs graphs.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "pef/read.h"
#include "tensor/tensor.h"

namespace shardwright::runtime {

struct StepTime;

struct SessionOptions {
  int n_chips = 0;           // one of the PEF's plans; 0: the first
  int threads_per_chip = 0;  // 0: allowed CPUs / n_chips, at least 1
  int64_t deadline_ms = 30'000;
  bool pin = true;  // where threads <= allowed CPUs
  enum class Verify : uint8_t { kLazy, kEager, kNone } verify = Verify::kLazy;
  // For tests: called by each chip in `load` with step -1 and before each step; may throw or block.
  std::function<void(int chip, int step)> fault = {};
};

// A user's whole, contiguous array.
struct ConstArray {
  TensorType type;
  const void* data = nullptr;
};
struct Array {
  TensorType type;
  void* data = nullptr;
};

// One step of one chip's program, summed over runs.
struct StepProfile {
  std::string op;
  std::string source;
  double seconds = 0;
  double waited_seconds = 0;   // of these, for other chips
  int64_t received_bytes = 0;  // from other chips
};

struct MemoryUse {  // bytes allocated for one chip
  int64_t parameters = 0, arena = 0, transfer = 0, scratch = 0;
};

class Session {
 public:
  static std::unique_ptr<Session> load(const std::string& path, const SessionOptions& options = {});
  ~Session();

  const pef::File& file() const;
  const pef::Manifest& manifest() const;
  const std::string& report_json() const;
  const std::string& digest() const;  // of the PEF
  const pef::Plan& plan() const;
  int threads_per_chip() const;
  std::vector<MemoryUse> memory() const;

  // Runs graph `graph` (index). Inputs and outputs by the order of its signature. Throws
  // Error(kUsage): wrong count, dtype or shape; Error(kPeerFailed): a chip failed or missed a
  // deadline: names it. Where it hangs ("load the PEF again") it may still come back and end the
  // kernel that it was in: leave the arrays to it.
  void run(int graph, const std::vector<ConstArray>& inputs, const std::vector<Array>& outputs);
  // The same `runs` times, timing every step (with a barrier after each): [chip][step].
  std::vector<std::vector<StepProfile>> profile(int graph, const std::vector<ConstArray>& inputs,
                                                const std::vector<Array>& outputs, int runs);
  // Bytes a second at which all threads of all chips together read the chips' parameters and do
  // nothing else: what decoding can reach at best. Takes a few passes over them.
  double read_bytes_per_s();
  // A whole parameter, gathered from the chips, in row-major order. `index` into
  // manifest().tensors.
  SharedBytes parameter(int index) const;

  // For tests: SessionOptions::fault from now on.
  void set_fault(const std::function<void(int chip, int step)>& fault);

 private:
  Session();
  void run_steps(int graph, const std::vector<ConstArray>& inputs,
                 const std::vector<Array>& outputs, std::vector<std::vector<StepTime>>* times);
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace shardwright::runtime
