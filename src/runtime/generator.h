// Generator: text, token by token, from the graphs of a PEF that was compiled with --generate.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "runtime/sampling.h"
#include "runtime/session.h"

namespace shardwright::runtime {

// Such a PEF has graphs prompt_<S> and decode (S = 1) with the inputs
//   input_ids i64 [B, S]; position i64 [B, S], where each token stands, -1: padding; and, but for
//   decode, last i64 [B], the token of each row whose logits are wanted,
// and the output logits [B, 1, V]. B sequences ("slots") of at most `length` tokens each have their
// keys and values in the session's cache; each goes on by itself, so that one may start, or end,
// while others are under way.
class Generator {
 public:
  // Throws Error(kUsage) if the PEF has no such graphs.
  explicit Generator(Session& session);

  int slots() const { return slots_; }
  int64_t length() const { return length_; }
  int64_t vocabulary() const { return vocabulary_; }

  // A new sequence in a slot; what was there is forgotten. `tokens`: the prompt. Throws
  // Error(kUsage): no tokens, more than `length`, one outside the vocabulary, odd sampling.
  void start(int slot, std::vector<int64_t> tokens, const Sampling& sampling = {});
  void stop(int slot);
  bool is_active(int slot) const { return sequence(slot).active; }
  // Tokens of the sequence that the cache holds.
  int64_t used(int slot) const { return sequence(slot).used; }

  struct Token {
    int slot = 0;
    int64_t token = 0;
    bool last = false;  // the cache is full: the sequence has ended
  };
  // Runs one graph: a piece of the prompts that wait, if any does, and one token of each other
  // active sequence. Gives the tokens that are new: one for each sequence whose prompt is done.
  // With nothing active, nothing.
  std::vector<Token> step();

  // Runs of the graphs since the generator was made.
  struct Stats {
    int64_t prompt_tokens = 0;  // in runs that held a piece of a prompt
    double prompt_seconds = 0;
    int64_t decode_runs = 0;
    int64_t decode_tokens = 0;
    int64_t decode_keys = 0;  // tokens that these saw in the cache, together
    double decode_seconds = 0;
  };
  const Stats& stats() const { return stats_; }
  // The graph (of the manifest) for prompts of `tokens` tokens, or pieces of them: the smallest
  // that holds all, unless it would be more than half empty and a smaller one is there.
  int graph_of(int64_t tokens) const { return graph_for(tokens).graph; }
  // The sum of `work` (of a graph) over the runs that held a piece of a prompt.
  double prompt_work(const std::function<double(int graph)>& work) const;

 private:
  struct GraphShape {
    int graph = 0;
    int64_t tokens = 1;
    int64_t runs = 0;
  };
  struct Sequence {
    bool active = false;
    std::vector<int64_t> pending;  // tokens that no graph has seen yet
    int64_t used = 0;
    std::optional<Sampler> sampler;
  };
  const Sequence& sequence(int slot) const;
  Sequence& sequence(int slot);
  const GraphShape& graph_for(int64_t tokens) const;
  void run(const GraphShape& shape);

  Session& session_;
  std::vector<GraphShape> graphs_;  // by tokens, decode first
  int slots_ = 1;
  int64_t length_ = 0;
  int64_t vocabulary_ = 0;
  DType logits_dtype_ = DType::kF32;
  std::vector<Sequence> sequences_;
  std::vector<int64_t> ids_, positions_, last_;
  std::vector<std::byte> logits_;
  Stats stats_;
};

}  // namespace shardwright::runtime
