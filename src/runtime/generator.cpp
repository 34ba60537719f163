// Which graph runs next, with which tokens, and what is made of its logits.
#include "runtime/generator.h"

#include <algorithm>
#include <chrono>

#include <fmt/format.h>

#include "base/check.h"
#include "base/error.h"

namespace shardwright::runtime {
namespace {

[[noreturn]] void fail(const std::string& message) { throw Error(ErrorCode::kUsage, message); }

[[noreturn]] void no_graphs(const Session& session) {
  fail(
      fmt::format("'{}' was not compiled for generation; compile the model again with --generate "
                  "--seq TOKENS",
                  session.manifest().model_name));
}

bool has_input(const pef::GraphSignature& graph, const char* name, const TensorType& type) {
  return std::any_of(graph.inputs.begin(), graph.inputs.end(), [&](const pef::Signature& input) {
    return input.name == name && input.type == type;
  });
}

}  // namespace

Generator::Generator(Session& session) : session_(session) {
  const pef::Manifest& manifest = session.manifest();
  for (size_t g = 0; g < manifest.graphs.size(); ++g) {
    const pef::GraphSignature& graph = manifest.graphs[g];
    const bool decode = graph.name == "decode";
    if (!decode && !graph.name.starts_with("prompt_")) continue;
    if (graph.inputs.empty() || graph.inputs[0].type.ndim() != 2 || graph.outputs.size() != 1)
      no_graphs(session);
    const TensorType ids = graph.inputs[0].type;
    const TensorType& logits = graph.outputs[0].type;
    if (!has_input(graph, "input_ids", ids) || !has_input(graph, "position", ids) ||
        (!decode && !has_input(graph, "last", {DType::kI64, {ids.shape[0]}})) ||
        graph.inputs.size() != (decode ? 2U : 3U) || ids.dtype != DType::kI64 ||
        logits.ndim() != 3 || logits.shape[0] != ids.shape[0] || logits.shape[1] != 1)
      no_graphs(session);
    slots_ = static_cast<int>(ids.shape[0]);
    vocabulary_ = logits.shape[2];
    logits_dtype_ = logits.dtype;
    graphs_.push_back({static_cast<int>(g), ids.shape[1]});
  }
  std::sort(graphs_.begin(), graphs_.end(),
            [](const GraphShape& a, const GraphShape& b) { return a.tokens < b.tokens; });
  const auto found = manifest.options.find("seq");
  if (graphs_.empty() || graphs_[0].tokens != 1 || found == manifest.options.end())
    no_graphs(session);
  length_ = std::stoll(found->second);
  sequences_.resize(static_cast<size_t>(slots_));
  logits_.resize(static_cast<size_t>(slots_ * vocabulary_ * dtype_bytes(logits_dtype_)));
}

const Generator::Sequence& Generator::sequence(int slot) const {
  if (slot < 0 || slot >= slots_)
    fail(
        fmt::format("slot {}: this PEF has slots 0 to {}; compile with a larger --batch-size for "
                    "more",
                    slot, slots_ - 1));
  return sequences_[static_cast<size_t>(slot)];
}
Generator::Sequence& Generator::sequence(int slot) {
  return const_cast<Sequence&>(std::as_const(*this).sequence(slot));
}

void Generator::start(int slot, std::vector<int64_t> tokens, const Sampling& sampling) {
  Sequence& s = sequence(slot);
  check(sampling);
  if (tokens.empty()) fail("the prompt has no tokens; give at least one");
  if (std::ssize(tokens) > length_)
    fail(
        fmt::format("the prompt has {} tokens, but the KV cache holds {}: give a shorter one, or "
                    "compile with a larger --seq",
                    tokens.size(), length_));
  for (const int64_t token : tokens)
    if (token < 0 || token >= vocabulary_)
      fail(fmt::format("token {} is outside the vocabulary of {}", token, vocabulary_));
  s.sampler.emplace(sampling);
  for (const int64_t token : tokens) s.sampler->saw(token);
  s.pending = std::move(tokens);
  s.used = 0;
  s.active = true;
}

void Generator::stop(int slot) { sequence(slot).active = false; }

double Generator::prompt_work(const std::function<double(int graph)>& work) const {
  double sum = 0;
  for (const GraphShape& shape : graphs_)
    if (shape.tokens > 1 && shape.runs > 0)
      sum += work(shape.graph) * static_cast<double>(shape.runs);
  return sum;
}

const Generator::GraphShape& Generator::graph_for(int64_t tokens) const {
  size_t i = 0;
  while (i + 1 < graphs_.size() && graphs_[i].tokens < tokens) ++i;
  if (i > 0 && graphs_[i].tokens > 2 * tokens && graphs_[i - 1].tokens > 1) --i;
  return graphs_[i];
}

std::vector<Generator::Token> Generator::step() {
  int64_t most = 0;
  for (const Sequence& s : sequences_)
    if (s.active) most = std::max<int64_t>(most, std::ssize(s.pending));
  if (most == 0) return {};
  const GraphShape& shape = graph_for(most);
  const auto rows = static_cast<size_t>(slots_ * shape.tokens);
  ids_.assign(rows, 0);
  positions_.assign(rows, -1);
  last_.assign(static_cast<size_t>(slots_), 0);
  int64_t n_tokens = 0;
  for (int slot = 0; slot < slots_; ++slot) {
    const Sequence& s = sequence(slot);
    if (!s.active) continue;
    const int64_t n = std::min<int64_t>(std::ssize(s.pending), shape.tokens);
    const auto row = static_cast<size_t>(slot * shape.tokens);
    for (int64_t i = 0; i < n; ++i) {
      ids_[row + static_cast<size_t>(i)] = s.pending[static_cast<size_t>(i)];
      positions_[row + static_cast<size_t>(i)] = s.used + i;
    }
    last_[static_cast<size_t>(slot)] = n - 1;
    n_tokens += n;
  }
  const auto start = std::chrono::steady_clock::now();
  run(shape);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  if (shape.tokens == 1) {
    ++stats_.decode_runs;
    stats_.decode_tokens += n_tokens;
    for (const Sequence& s : sequences_)
      if (s.active) stats_.decode_keys += s.used + 1;
    stats_.decode_seconds += seconds.count();
  } else {
    stats_.prompt_tokens += n_tokens;
    stats_.prompt_seconds += seconds.count();
  }

  std::vector<Token> tokens;
  const int64_t row_bytes = vocabulary_ * dtype_bytes(logits_dtype_);
  for (int slot = 0; slot < slots_; ++slot) {
    Sequence& s = sequence(slot);
    if (!s.active) continue;
    const int64_t n = last_[static_cast<size_t>(slot)] + 1;
    s.pending.erase(s.pending.begin(), s.pending.begin() + n);
    s.used += n;
    if (!s.pending.empty()) continue;
    const int64_t token =
        s.sampler->next(logits_dtype_, logits_.data() + slot * row_bytes, vocabulary_);
    s.pending.push_back(token);
    s.active = s.used < length_;
    tokens.push_back({slot, token, !s.active});
  }
  return tokens;
}

void Generator::run(const GraphShape& shape) {
  const pef::GraphSignature& graph = session_.manifest().graphs[static_cast<size_t>(shape.graph)];
  std::vector<ConstArray> inputs;
  for (const pef::Signature& input : graph.inputs)
    inputs.push_back({input.type, input.name == "input_ids"  ? ids_.data()
                                  : input.name == "position" ? positions_.data()
                                                             : last_.data()});
  ++graphs_[static_cast<size_t>(&shape - graphs_.data())].runs;
  session_.run(shape.graph, inputs, {{graph.outputs[0].type, logits_.data()}});
}

}  // namespace shardwright::runtime
