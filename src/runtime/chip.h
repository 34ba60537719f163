// One chip of a session: its memory, its prepared steps, its walk through a program.
#pragma once

#include <atomic>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/team.h"
#include "comm/communicator.h"
#include "ops/kernel.h"
#include "pef/read.h"

namespace shardwright::runtime {

// Zeroed pages, aligned to 4096 (huge pages asked for from 2 MiB up). Throws Error(kDoesNotFit).
class Memory {
 public:
  Memory() = default;
  explicit Memory(int64_t bytes);
  ~Memory();
  Memory(Memory&& other) noexcept { *this = std::move(other); }
  Memory& operator=(Memory&& other) noexcept;
  std::byte* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
};

// Where the user's arrays of one run are.
struct Binding {
  std::vector<const void*> inputs;
  std::vector<void*> outputs;
};

struct StepTime {
  int64_t total_ns = 0;
  int64_t waited_ns = 0;       // for other chips
  int64_t received_bytes = 0;  // from other chips
};

class Chip {
 public:
  Chip(int index, const pef::File& file, const pef::ChipPlan& plan,
       std::unique_ptr<comm::Communicator> communicator, int n_threads, std::vector<int> cpus);

  Team& team() { return team_; }
  // Fills the chip's memory and makes its kernels: called by all threads of the team. What goes
  // wrong is thrown by `check_loaded`, with the file's path in front of an Error.
  void load(Member& member);
  void check_loaded(const std::string& path) const;
  // Walks the program of `graph`: called by all threads of the team. A fault on this chip aborts
  // the run on all.
  void walk(Member& member, int graph, std::vector<StepTime>* times);
  // Points the program's operands at the user's arrays; before walk, when no thread is inside.
  void bind(int graph, const Binding& binding);

  // The step that thread 0 is at, and whether it waits there for other chips: what a watcher sees.
  int64_t position() const { return position_.load(std::memory_order_acquire); }
  bool in_exchange() const { return in_exchange_.load(std::memory_order_relaxed); }
  std::string describe_position(int graph) const;

  // Reads all of the parameters and keeps nothing: called by all threads of the team. Where pages
  // were never written (an unused cache) it reads zeros.
  void read_parameters(Member& member);

  // This chip's piece of parameter memory, and back to whole rows.
  void read_piece(int piece, std::byte* whole) const;
  int64_t scratch_bytes() const { return scratch_.bytes(); }
  void set_fault(std::function<void(int, int)> fault) { fault_ = std::move(fault); }

 private:
  struct ReadyStep {
    const pef::Step* step = nullptr;
    std::unique_ptr<ops::Kernel> kernel;  // or
    std::unique_ptr<comm::PreparedExchange> exchange;
    std::vector<comm::Transfer> transfers;  // of the first of exchanges that meet together: of all
    std::vector<const void*> operands;
    std::vector<void*> results;
    bool barrier = true;
  };
  struct Program {
    std::vector<ReadyStep> steps;
  };

  void make_program(const pef::Program& program, Program& ready);
  std::unique_ptr<ops::Kernel> make_kernel(const pef::Step& step) const;
  ops::OperandSpec spec_of(const pef::Buffer& buffer) const;
  std::byte* address_of(const pef::Buffer& buffer) const;
  void load_piece(Member& member, const pef::Piece& piece);
  void forget_piece(const pef::Piece& piece) const;
  bool run_step(Member& member, ReadyStep& step, StepTime* time);
  void before_step(size_t step);
  bool meet(Member& member, int meeting);

  int index_;
  const pef::File& file_;
  const pef::ChipPlan& plan_;
  std::unique_ptr<comm::Communicator> communicator_;
  Memory parameters_, arena_, scratch_;
  std::vector<Program> programs_;
  std::exception_ptr load_error_;
  std::atomic<uint64_t> read_sum_{0};  // so that reading is not optimised away
  std::function<void(int, int)> fault_;
  std::atomic<int64_t> position_{0};
  std::atomic<bool> in_exchange_{false};
  bool stop_[2] = {};  // written by thread 0 before a barrier, of even and odd meetings
  Team team_;          // last: its threads end before the memory goes
};

}  // namespace shardwright::runtime
