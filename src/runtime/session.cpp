// Session: loading a PEF on n chips, running graphs, watching that every chip goes on.
#include "runtime/session.h"

#include <algorithm>
#include <exception>
#include <mutex>

#include <fmt/format.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/patience.h"
#include "comm/threads.h"
#include "runtime/chip.h"

namespace shardwright::runtime {
namespace {

// How often the caller looks whether the chips go on; more often for a short deadline.
constexpr int64_t kWatchEvery_ns = 50'000'000;
// After a failure, for the other chips to leave; the deadline if that is shorter.
constexpr int64_t kGrace_ns = 2'000'000'000;

void check_array(const std::string& graph, const char* kind, const pef::Signature& want,
                 const TensorType& got) {
  if (got == want.type) return;
  throw Error(ErrorCode::kUsage,
              fmt::format("{} '{}' of graph '{}' is {}, but this PEF was compiled for {}{}", kind,
                          want.name, graph, to_string(got), to_string(want.type),
                          got.dtype == want.type.dtype
                              ? ": compile again with this shape, or pad or cut the array"
                              : ": convert the array to that dtype"));
}

}  // namespace

struct Session::State {
  std::shared_ptr<pef::File> file;
  SessionOptions options;
  const pef::Plan* plan = nullptr;
  int threads = 1;
  std::unique_ptr<comm::ThreadWorld> world;
  std::vector<std::unique_ptr<Chip>> chips;
  std::mutex running;
  bool broken = false;  // a chip never came back: nothing can run any more

  void start_all(const std::function<void(size_t chip, Member&)>& job) {
    for (size_t i = 0; i < chips.size(); ++i)
      chips[i]->team().start([job, i](Member& member) { job(i, member); });
  }
  void verify_weights();
  void watch(int graph);
  int64_t grace_end_ns() const {
    return now_ns() + std::min(kGrace_ns, options.deadline_ms * 1'000'000);
  }
  void finish_failed(const comm::Failure& failure);
};

// Each thread of each chip hashes some of the chip's tensors; a tensor of several chips is hashed
// once. What goes wrong is thrown: the first chip's error.
void Session::State::verify_weights() {
  std::vector<std::exception_ptr> errors(chips.size());
  std::mutex writing;
  start_all([&](size_t chip, Member& member) {
    const auto& pieces = plan->chips[chip].pieces;
    try {
      for (auto i = static_cast<size_t>(member.thread()); i < pieces.size();
           i += static_cast<size_t>(member.n_threads())) {
        const TensorView whole = file->tensor(pieces[i].tensor);
        const pef::Tensor& tensor = file->manifest().tensors[static_cast<size_t>(pieces[i].tensor)];
        file->forget(whole.data, pef::stored_bytes(tensor));  // else all of it is here at once
      }
    } catch (...) {
      const std::lock_guard lock(writing);
      errors[chip] = std::current_exception();
    }
  });
  for (auto& chip : chips) chip->team().wait();
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
}

// Waits for all chips. A chip that stays at one step (and does not wait for another) beyond the
// deadline ends the run.
void Session::State::watch(int graph) {
  std::vector<int64_t> at(chips.size(), -1);
  const int64_t deadline_ns = options.deadline_ms * 1'000'000;
  const int64_t every_ns = std::min(kWatchEvery_ns, deadline_ns / 8);
  const auto fresh = [&] { return Patience(deadline_ns, now_ns()); };
  std::vector<Patience> patience(chips.size(), fresh());
  for (size_t chip = 0; chip < chips.size();) {
    if (chips[chip]->team().wait(now_ns() + every_ns)) {
      ++chip;
      continue;
    }
    if (const auto failure = world->failure()) return finish_failed(*failure);
    for (size_t i = 0; i < chips.size(); ++i) {
      const int64_t position = chips[i]->position();
      if (position != at[i] || chips[i]->in_exchange()) {
        at[i] = position;
        patience[i] = fresh();
      } else if (patience[i].is_spent(now_ns()) && !chips[i]->team().wait(0)) {
        const comm::Failure failure{
            static_cast<int>(i),
            fmt::format("chip {} made no progress for {} ms at {}", i, options.deadline_ms,
                        chips[i]->describe_position(graph))};
        world->abort(failure);
        return finish_failed(failure);
      }
    }
  }
  if (const auto failure = world->failure()) finish_failed(*failure);
}

void Session::State::finish_failed(const comm::Failure& failure) {
  const int64_t until = grace_end_ns();
  for (auto& chip : chips)
    if (!chip->team().wait(until)) broken = true;
  if (!broken) world->reset();
  throw Error(
      ErrorCode::kPeerFailed,
      failure.text + (broken ? "; the session can't be used any more: load the PEF again" : ""));
}

Session::Session() : state_(std::make_unique<State>()) {}

Session::~Session() {
  if (!state_->broken) return;
  // A chip that came back meanwhile can be joined. One that still hangs can't: its memory is left
  // to it rather than freed under it.
  const int64_t until = state_->grace_end_ns();
  for (auto& chip : state_->chips) {
    if (chip->team().wait(until)) continue;
    (void)state_.release();
    return;
  }
}

std::unique_ptr<Session> Session::load(const std::string& path, const SessionOptions& options) {
  std::unique_ptr<Session> session(new Session());
  State& s = *session->state_;
  s.options = options;
  s.file = pef::File::open(path, options.n_chips > 0 ? options.n_chips : pef::kFirstPlan);
  const auto& plans = s.file->manifest().plans;
  const auto found = std::find_if(plans.begin(), plans.end(), [&](const pef::Plan& plan) {
    return options.n_chips == 0 || plan.n_chips == options.n_chips;
  });
  CHECK(found != plans.end(), "File::open checks that the plan is there");
  s.plan = &*found;
  const int n = s.plan->n_chips;
  const std::vector<int> cpus = allowed_cpus();
  const int n_cpus = static_cast<int>(cpus.size());
  s.threads = options.threads_per_chip > 0 ? options.threads_per_chip : std::max(1, n_cpus / n);
  s.world = std::make_unique<comm::ThreadWorld>(n, options.deadline_ms);
  const bool pin = options.pin && n * s.threads <= n_cpus;
  for (int chip = 0; chip < n; ++chip) {
    std::vector<int> mine;
    for (int t = 0; pin && t < s.threads; ++t)
      mine.push_back(cpus[static_cast<size_t>(chip * s.threads + t)]);
    s.chips.push_back(
        std::make_unique<Chip>(chip, *s.file, s.plan->chips[static_cast<size_t>(chip)],
                               s.world->communicator(chip), s.threads, std::move(mine)));
    s.chips.back()->set_fault(options.fault);
  }
  // Hash what will be read before any chip believes it.
  if (options.verify != SessionOptions::Verify::kNone) s.verify_weights();
  s.start_all([&](size_t chip, Member& member) { s.chips[chip]->load(member); });
  for (auto& chip : s.chips) chip->team().wait();
  for (auto& chip : s.chips) chip->check_loaded(path);
  return session;
}

const pef::File& Session::file() const { return *state_->file; }
const pef::Manifest& Session::manifest() const { return state_->file->manifest(); }
const std::string& Session::report_json() const { return state_->file->report_json(); }
const std::string& Session::digest() const { return state_->file->digest(); }
const pef::Plan& Session::plan() const { return *state_->plan; }
int Session::threads_per_chip() const { return state_->threads; }

std::vector<MemoryUse> Session::memory() const {
  std::vector<MemoryUse> use;
  for (size_t i = 0; i < state_->chips.size(); ++i) {
    const pef::ChipPlan& plan = state_->plan->chips[i];
    use.push_back({plan.parameter_bytes, plan.arena_bytes, plan.transfer_bytes,
                   state_->chips[i]->scratch_bytes()});
  }
  return use;
}

void Session::run_steps(int graph, const std::vector<ConstArray>& inputs,
                        const std::vector<Array>& outputs,
                        std::vector<std::vector<StepTime>>* times) {
  State& s = *state_;
  const std::lock_guard lock(s.running);
  if (s.broken)
    throw Error(ErrorCode::kPeerFailed, "a chip of this session hangs: load the PEF again");
  const auto& graphs = s.file->manifest().graphs;
  CHECK(graph >= 0 && graph < static_cast<int>(graphs.size()));
  const pef::GraphSignature& signature = graphs[static_cast<size_t>(graph)];
  CHECK(inputs.size() == signature.inputs.size() && outputs.size() == signature.outputs.size());
  Binding binding;
  for (size_t i = 0; i < inputs.size(); ++i) {
    check_array(signature.name, "input", signature.inputs[i], inputs[i].type);
    binding.inputs.push_back(inputs[i].data);
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    check_array(signature.name, "output", signature.outputs[i], outputs[i].type);
    binding.outputs.push_back(outputs[i].data);
  }
  for (auto& chip : s.chips) chip->bind(graph, binding);
  s.start_all([&](size_t chip, Member& member) {
    s.chips[chip]->walk(member, graph, times ? &(*times)[chip] : nullptr);
  });
  s.watch(graph);
}

void Session::run(int graph, const std::vector<ConstArray>& inputs,
                  const std::vector<Array>& outputs) {
  run_steps(graph, inputs, outputs, nullptr);
}

std::vector<std::vector<StepProfile>> Session::profile(int graph,
                                                       const std::vector<ConstArray>& inputs,
                                                       const std::vector<Array>& outputs,
                                                       int runs) {
  std::vector<std::vector<StepTime>> times;
  for (const pef::ChipPlan& chip : state_->plan->chips)
    times.emplace_back(chip.programs[static_cast<size_t>(graph)].steps.size());
  for (int i = 0; i < runs; ++i) run_steps(graph, inputs, outputs, &times);
  std::vector<std::vector<StepProfile>> profiles;
  for (size_t chip = 0; chip < times.size(); ++chip) {
    auto& profile = profiles.emplace_back();
    const auto& steps = state_->plan->chips[chip].programs[static_cast<size_t>(graph)].steps;
    for (size_t i = 0; i < steps.size(); ++i)
      profile.push_back(
          {steps[i].op, steps[i].source, static_cast<double>(times[chip][i].total_ns) * 1e-9,
           static_cast<double>(times[chip][i].waited_ns) * 1e-9, times[chip][i].received_bytes});
  }
  return profiles;
}

double Session::read_bytes_per_s() {
  State& s = *state_;
  const std::lock_guard lock(s.running);
  int64_t bytes = 0;
  for (const pef::ChipPlan& chip : s.plan->chips)
    for (const pef::Piece& piece : chip.pieces)
      if (!manifest().tensors[static_cast<size_t>(piece.tensor)].repeated)
        bytes += piece.memory_bytes;
  int64_t best_ns = INT64_MAX;
  for (int pass = 0; pass < 4; ++pass) {
    const int64_t start = now_ns();
    s.start_all([&](size_t chip, Member& member) { s.chips[chip]->read_parameters(member); });
    for (auto& chip : s.chips) chip->team().wait();
    best_ns = std::min(best_ns, now_ns() - start);
  }
  return static_cast<double>(bytes) / static_cast<double>(std::max<int64_t>(best_ns, 1)) * 1e9;
}

SharedBytes Session::parameter(int index) const {
  const pef::Tensor& tensor = manifest().tensors[static_cast<size_t>(index)];
  std::byte* whole = nullptr;
  SharedBytes bytes = SharedBytes::allocate(tensor.type.bytes(), &whole);
  // Start from the file: parts that no chip needs (a tensor without users) are as they were
  // compiled.
  const TensorView view = state_->file->tensor(index);
  if (!tensor.repeated) {
    std::copy_n(view.data, tensor.type.bytes(), whole);
  } else {
    const int64_t size = dtype_bytes(tensor.type.dtype);
    for (int64_t i = 0; i < tensor.type.bytes(); i += size) std::copy_n(view.data, size, whole + i);
  }
  for (size_t chip = 0; chip < state_->chips.size(); ++chip) {
    const auto& pieces = state_->plan->chips[chip].pieces;
    for (size_t i = 0; i < pieces.size(); ++i)
      if (pieces[i].tensor == index) state_->chips[chip]->read_piece(static_cast<int>(i), whole);
  }
  return bytes;
}

void Session::set_fault(const std::function<void(int, int)>& fault) {
  for (auto& chip : state_->chips) chip->set_fault(fault);
}

}  // namespace shardwright::runtime
