// One chip: loading its pieces, making its kernels, walking its steps.
#include "runtime/chip.h"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/error.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/rows.h"
#include "ops/op.h"
#include "pef/fused.h"

namespace shardwright::runtime {
namespace {

bool is_exchange(const pef::Step& step) { return step.op == ops::exchange.name; }

}  // namespace

Chip::Chip(int index, const pef::File& file, const pef::ChipPlan& plan,
           std::unique_ptr<comm::Communicator> communicator, int n_threads, std::vector<int> cpus)
    : index_(index),
      file_(file),
      plan_(plan),
      communicator_(std::move(communicator)),
      parameters_(plan.parameter_bytes),
      arena_(plan.arena_bytes),
      programs_(plan.programs.size()),
      team_(n_threads, std::move(cpus)) {}

void Chip::load(Member& member) {
  // The largest first: while a piece is loaded, its part of the file is in memory as well.
  std::vector<const pef::Piece*> order;
  for (const pef::Piece& piece : plan_.pieces) order.push_back(&piece);
  std::stable_sort(order.begin(), order.end(), [](const pef::Piece* a, const pef::Piece* b) {
    return a->memory_bytes > b->memory_bytes;
  });
  for (const pef::Piece* piece : order) {
    load_piece(member, *piece);
    member.barrier();
    if (member.thread() == 0) forget_piece(*piece);
  }
  if (member.thread() != 0) return;
  try {
    if (fault_) fault_(index_, -1);
    int64_t scratch = 0;
    for (size_t g = 0; g < programs_.size(); ++g) {
      make_program(plan_.programs[g], programs_[g]);
      for (const ReadyStep& step : programs_[g].steps)
        if (step.kernel) scratch = std::max(scratch, step.kernel->scratch_bytes());
    }
    scratch_ = Memory(scratch);
  } catch (...) {
    load_error_ = std::current_exception();
  }
}

void Chip::check_loaded(const std::string& path) const {
  if (!load_error_) return;
  try {
    std::rethrow_exception(load_error_);
  } catch (const Error& error) {
    throw error.within(path);
  }
}

void Chip::load_piece(Member& member, const pef::Piece& piece) {
  const pef::Tensor& tensor = file_.manifest().tensors[static_cast<size_t>(piece.tensor)];
  const int64_t element_bytes = dtype_bytes(tensor.type.dtype);
  const std::byte* from =
      file_.tensor(piece.tensor, false).data;  // what was hashed, or need not be
  std::byte* to = parameters_.data() + piece.memory_offset_bytes;
  if (element_count(piece.shape) == 0) return;
  Strides strides = piece.strides;
  if (!tensor.repeated) {
    from += piece.offset * element_bytes;
  } else {
    // The memory is zero already, and its pages need not be there before they are used.
    if (std::all_of(from, from + element_bytes, [](std::byte b) { return b == std::byte{}; }))
      return;
    std::fill(strides.begin(), strides.end(), 0);
  }
  if (piece.layout == ops::Layout::kPanels) {
    kernels::pack_panels(member, {.n = piece.shape[0],
                                  .k = piece.shape[1],
                                  .w = from,
                                  .w_dtype = tensor.type.dtype,
                                  .stride_n = strides[0],
                                  .stride_k = strides[1],
                                  .panels = to,
                                  .panels_dtype = kernels::panel_dtype(tensor.type.dtype)});
    return;
  }
  const kernels::StridedCopy copy(element_bytes, piece.shape, strides,
                                  contiguous_strides(piece.shape));
  copy.run(member, from, to);
}

// The chip has its own copy now: of the file nothing need stay in this process's memory.
void Chip::forget_piece(const pef::Piece& piece) const {
  const pef::Tensor& tensor = file_.manifest().tensors[static_cast<size_t>(piece.tensor)];
  if (tensor.repeated || element_count(piece.shape) == 0) return;
  int64_t elements = 1;
  for (size_t d = 0; d < piece.shape.size(); ++d)
    elements += (piece.shape[d] - 1) * piece.strides[d];
  const int64_t size = dtype_bytes(tensor.type.dtype);
  file_.forget(file_.tensor(piece.tensor, false).data + piece.offset * size, elements * size);
}

void Chip::read_parameters(Member& member) {
  constexpr int64_t kStep = 64;
  uint64_t sums[8] = {};
  for (const pef::Piece& piece : plan_.pieces) {
    if (file_.manifest().tensors[static_cast<size_t>(piece.tensor)].repeated) continue;
    const std::byte* data = parameters_.data() + piece.memory_offset_bytes;
    const Range steps = member.share(piece.memory_bytes / kStep);
    for (int64_t step = steps.begin; step < steps.end; ++step) {
      uint64_t words[8];
      std::memcpy(words, data + step * kStep, kStep);
      for (int i = 0; i < 8; ++i) sums[i] += words[i];
    }
  }
  for (const uint64_t sum : sums) read_sum_.fetch_add(sum, std::memory_order_relaxed);
}

void Chip::read_piece(int index, std::byte* whole) const {
  const pef::Piece& piece = plan_.pieces[static_cast<size_t>(index)];
  const DType dtype = file_.manifest().tensors[static_cast<size_t>(piece.tensor)].type.dtype;
  if (element_count(piece.shape) == 0) return;
  const std::byte* from = parameters_.data() + piece.memory_offset_bytes;
  std::vector<std::byte> rows;
  // One helper thread of its own: the chip's team may be anywhere.
  Team team(1);
  if (piece.layout == ops::Layout::kPanels) {
    rows.resize(static_cast<size_t>(element_count(piece.shape) * dtype_bytes(dtype)));
    team.run([&](Member& member) {
      kernels::unpack_panels(member, kernels::panel_dtype(dtype), from, piece.shape[0],
                             piece.shape[1], rows.data(), dtype);
    });
    from = rows.data();
  }
  const kernels::StridedCopy copy(dtype_bytes(dtype), piece.shape, contiguous_strides(piece.shape),
                                  piece.strides);
  team.run(
      [&](Member& member) { copy.run(member, from, whole + piece.offset * dtype_bytes(dtype)); });
}

ops::OperandSpec Chip::spec_of(const pef::Buffer& buffer) const {
  ops::OperandSpec spec;
  spec.present = buffer.space != pef::Space::kNone;
  spec.type = buffer.type;
  spec.strides = buffer.strides;
  if (buffer.space == pef::Space::kParameter)
    spec.layout = plan_.pieces[static_cast<size_t>(buffer.index)].layout;
  return spec;
}

std::byte* Chip::address_of(const pef::Buffer& buffer) const {
  switch (buffer.space) {
    case pef::Space::kArena:
      return arena_.data() + buffer.offset_bytes;
    case pef::Space::kParameter:
      return parameters_.data() +
             plan_.pieces[static_cast<size_t>(buffer.index)].memory_offset_bytes +
             buffer.offset_bytes;
    default:
      return nullptr;  // absent, or bound at each run
  }
}

// Null where there is nothing to compute: a chip whose piece is empty.
std::unique_ptr<ops::Kernel> Chip::make_kernel(const pef::Step& step) const {
  if (step.is_fused()) {
    const ops::FusedSpec spec = pef::fused_spec(step, plan_.pieces, team_.n_threads());
    return spec.parts.empty() ? nullptr : ops::make_fused_kernel(spec);
  }
  const ops::OpDef* op = ops::find_op(step.op);
  if (op == nullptr || op->make_kernel == nullptr)
    throw Error(
        ErrorCode::kBrokenFile,
        fmt::format("{} needs operator '{}', which this version can't run", step.source, step.op));
  ops::KernelSpec spec;
  spec.op = op;
  spec.attrs = &step.attrs;
  spec.begins = step.begins;
  spec.n_threads = team_.n_threads();
  for (const pef::Buffer& buffer : step.operands) spec.operands.push_back(spec_of(buffer));
  for (const pef::Buffer& buffer : step.results) spec.results.push_back(spec_of(buffer));
  bool empty = true;
  for (const pef::Buffer& buffer : step.results) empty = empty && buffer.type.count() == 0;
  return empty ? nullptr : op->make_kernel(spec);
}

void Chip::make_program(const pef::Program& program, Program& ready) {
  ready.steps.resize(program.steps.size());
  bool scratch_used = false;  // since the last barrier
  size_t first_exchange = 0;  // of those that meet together
  for (size_t i = 0; i < program.steps.size(); ++i) {
    const pef::Step& step = program.steps[i];
    ReadyStep& out = ready.steps[i];
    out.step = &step;
    out.barrier = step.barrier_before;
    for (const pef::Buffer& buffer : step.operands) out.operands.push_back(address_of(buffer));
    for (const pef::Buffer& buffer : step.results) out.results.push_back(address_of(buffer));
    if (is_exchange(step)) {
      const ops::Exchange exchange = ops::exchange_of(step.attrs);
      out.exchange = communicator_->prepare(exchange, step.operands[0].type.dtype, step.source);
      first_exchange = exchange.with_previous ? first_exchange : i;
      out.barrier = first_exchange == i;
      ready.steps[first_exchange].transfers.emplace_back();  // bind() fills it
      continue;
    }
    out.kernel = make_kernel(step);
    // The team's scratch is one: two steps that use it need a barrier between them.
    const bool uses = out.kernel && out.kernel->scratch_bytes() > 0;
    if (uses && scratch_used) out.barrier = true;
    scratch_used = uses || (scratch_used && !out.barrier);
  }
}

void Chip::bind(int graph, const Binding& binding) {
  const auto at = [&](const pef::Buffer& buffer, auto*& slot) {
    const auto index = static_cast<size_t>(buffer.index);
    const void* base = nullptr;
    if (buffer.space == pef::Space::kInput)
      base = binding.inputs[index];
    else if (buffer.space == pef::Space::kOutput)
      base = binding.outputs[index];
    else
      return;
    slot = const_cast<std::byte*>(static_cast<const std::byte*>(base)) + buffer.offset_bytes;
  };
  comm::Transfer* transfer = nullptr;  // of this exchange
  for (ReadyStep& step : programs_[static_cast<size_t>(graph)].steps) {
    for (size_t i = 0; i < step.operands.size(); ++i) at(step.step->operands[i], step.operands[i]);
    for (size_t i = 0; i < step.results.size(); ++i) at(step.step->results[i], step.results[i]);
    if (!step.transfers.empty()) transfer = step.transfers.data();
    if (step.exchange) *transfer++ = {step.exchange.get(), step.operands[0], step.results[0]};
  }
}

std::string Chip::describe_position(int graph) const {
  const auto& steps = programs_[static_cast<size_t>(graph)].steps;
  const auto step = static_cast<size_t>(position());
  if (step >= steps.size()) return "the end of the program";
  return fmt::format("step {} of {} ({} of {})", step, steps.size(), steps[step].step->op,
                     steps[step].step->source);
}

// Thread 0 alone: says where the chip is, and runs the test's fault.
void Chip::before_step(size_t step) {
  // Releases what the team did before: who gives the run up at this position has seen all of it.
  position_.store(static_cast<int64_t>(step), std::memory_order_release);
  if (!fault_) return;
  try {
    fault_(index_, static_cast<int>(step));
  } catch (const std::exception& error) {
    communicator_->abort(
        {index_, fmt::format("chip {} failed at step {}: {}", index_, step, error.what())});
  }
}

// The team meets. False, on all threads alike, if the run has been aborted: a chip that comes back
// late must not go on to write into the user's arrays.
bool Chip::meet(Member& member, int meeting) {
  bool& stop = stop_[meeting % 2];  // a slow thread may still read the one of the meeting before
  if (member.thread() == 0) stop = communicator_->aborted();
  member.barrier();
  return !stop;
}

bool Chip::run_step(Member& member, ReadyStep& step, StepTime* time) {
  const int64_t start = time ? now_ns() : 0;
  bool go_on = true;
  int64_t waited_ns = 0;
  if (!step.transfers.empty()) {
    if (member.thread() == 0) in_exchange_.store(true, std::memory_order_relaxed);
    go_on = communicator_->run(member, step.transfers, waited_ns);
    if (member.thread() == 0) in_exchange_.store(false, std::memory_order_relaxed);
  } else if (step.kernel) {
    step.kernel->run(member, step.operands.data(), step.results.data(), scratch_.data());
  }
  if (time) {
    member.barrier();
    if (member.thread() == 0) {
      time->total_ns += now_ns() - start;
      time->waited_ns += waited_ns;
      if (step.exchange) time->received_bytes += step.exchange->received_bytes;
    }
  }
  return go_on;
}

void Chip::walk(Member& member, int graph, std::vector<StepTime>* times) {
  auto& steps = programs_[static_cast<size_t>(graph)].steps;
  int meetings = 0;
  if (!meet(member, meetings++)) return;
  for (size_t i = 0; i < steps.size(); ++i) {
    if (member.thread() == 0) before_step(i);
    if ((steps[i].barrier || fault_) && !meet(member, meetings++)) return;
    if (!run_step(member, steps[i], times ? &(*times)[i] : nullptr)) return;
  }
  if (member.thread() == 0)
    position_.store(static_cast<int64_t>(steps.size()), std::memory_order_relaxed);
}

}  // namespace shardwright::runtime
