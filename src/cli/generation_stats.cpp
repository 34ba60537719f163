// Bytes and flops come from the steps of the chips' programs.
#include "cli/generation_stats.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "base/units.h"
#include "cli/arrays.h"
#include "kernels/cpu/gemm.h"

namespace shardwright::cli {
namespace {

using Json = nlohmann::ordered_json;

struct Work {
  int64_t weight_bytes = 0;  // of weights that are read whole
  double flops = 0;          // of products with weights
  DType dtype = DType::kF32;
};

void add_step(const pef::Step& step, const pef::Step& whole, std::set<int>* pieces, Work* work) {
  for (const pef::Step& part : step.parts) add_step(part, whole, pieces, work);
  if (!step.op.starts_with("linear")) return;
  const pef::Buffer& weight = step.operands[1];
  const double rows = static_cast<double>(step.operands[0].type.count()) /
                      static_cast<double>(std::max<int64_t>(weight.type.shape[1], 1));
  work->flops += 2 * rows * static_cast<double>(weight.type.count());
  work->dtype = step.operands[0].type.dtype;
  const pef::Buffer& held = weight.space == pef::Space::kStepOperand
                                ? whole.operands[static_cast<size_t>(weight.index)]
                                : weight;
  if (held.space == pef::Space::kParameter) pieces->insert(held.index);
}

Work work_of(const runtime::Session& session, int graph) {
  Work work;
  for (const pef::ChipPlan& chip : session.plan().chips) {
    std::set<int> pieces;
    for (const pef::Step& step : chip.programs[static_cast<size_t>(graph)].steps)
      add_step(step, step, &pieces, &work);
    for (const int piece : pieces)
      work.weight_bytes += chip.pieces[static_cast<size_t>(piece)].memory_bytes;
  }
  return work;
}

// Of all chips, for one token of one sequence.
double cache_bytes_per_token(const runtime::Session& session, const runtime::Generator& generator) {
  double bytes = 0;
  for (const pef::ChipPlan& chip : session.plan().chips)
    for (const pef::Piece& piece : chip.pieces)
      if (session.manifest().tensors[static_cast<size_t>(piece.tensor)].repeated)
        bytes += static_cast<double>(piece.memory_bytes);
  return bytes / static_cast<double>(generator.length() * generator.slots());
}

struct Shares {
  double transfer = 0, waiting = 0;
};
// Of a decode step of sequences in the middle of the cache.
Shares profile_decode(runtime::Session& session, int graph) {
  const pef::GraphSignature& signature = session.manifest().graphs[static_cast<size_t>(graph)];
  RunArrays arrays = make_arrays(signature, session.report_json(), {}, 0);
  double total = 0;
  Shares shares;
  for (const auto& chip : session.profile(graph, arrays.inputs, arrays.outputs, 3))
    for (const runtime::StepProfile& step : chip) {
      total += step.seconds;
      shares.waiting += step.waited_seconds;
      if (step.op == "exchange") shares.transfer += step.seconds - step.waited_seconds;
    }
  total = std::max(total, 1e-12) / 100;
  return {shares.transfer / total, shares.waiting / total};
}

double per_second(double amount, double seconds) { return seconds > 0 ? amount / seconds : 0; }

}  // namespace

Json generation_stats(runtime::Session& session, const runtime::Generator& generator,
                      double first_token_seconds) {
  const runtime::Generator::Stats stats = generator.stats();
  const Work decode = work_of(session, generator.graph_of(1));
  const double cache = cache_bytes_per_token(session, generator);
  const double runs = static_cast<double>(std::max<int64_t>(stats.decode_runs, 1));
  // Each token reads what its sequence holds by then.
  const double cache_per_run = cache * static_cast<double>(stats.decode_keys) / runs;
  const double bytes = static_cast<double>(decode.weight_bytes) + cache_per_run;
  const Shares shares = profile_decode(session, generator.graph_of(1));
  const int threads = session.threads_per_chip() * session.plan().n_chips;
  return Json{
      {"first_token_seconds", first_token_seconds},
      {"prompt_tokens", stats.prompt_tokens},
      {"prompt_seconds", stats.prompt_seconds},
      {"prompt_tokens_per_second",
       per_second(static_cast<double>(stats.prompt_tokens), stats.prompt_seconds)},
      {"decode_tokens", stats.decode_tokens},
      {"decode_seconds", stats.decode_seconds},
      {"decode_tokens_per_second",
       per_second(static_cast<double>(stats.decode_tokens), stats.decode_seconds)},
      {"seconds_per_run", stats.decode_seconds / runs},
      {"weight_bytes_per_run", decode.weight_bytes},
      {"cache_bytes_per_run", cache_per_run},
      {"bytes_per_second", per_second(bytes * runs, stats.decode_seconds)},
      {"read_bytes_per_second", session.read_bytes_per_s()},
      {"prompt_flops_per_second",
       per_second(generator.prompt_work([&](int graph) { return work_of(session, graph).flops; }),
                  stats.prompt_seconds)},
      {"peak_flops_per_second", kernels::tile_flops_per_s(decode.dtype) * threads},
      {"transfer_percent", shares.transfer},
      {"waiting_percent", shares.waiting}};
}

std::string stats_text(const Json& s) {
  const auto number = [&](const char* name) { return s.at(name).get<double>(); };
  const auto percent = [&](const char* part, const char* whole) {
    return 100 * number(part) / std::max(number(whole), 1e-12);
  };
  std::string text =
      fmt::format("first token after {}\n", seconds_text(number("first_token_seconds")));
  if (number("prompt_seconds") > 0)
    text += fmt::format(
        "prompt     {} in {}: {:.1f} tokens/s; {:.1f} GF/s, {:.0f} % of the {:.0f} GF/s of the "
        "kernel alone\n",
        count_text(s.at("prompt_tokens"), "token"), seconds_text(number("prompt_seconds")),
        number("prompt_tokens_per_second"), number("prompt_flops_per_second") * 1e-9,
        percent("prompt_flops_per_second", "peak_flops_per_second"),
        number("peak_flops_per_second") * 1e-9);
  if (number("decode_seconds") == 0) return text;
  text += fmt::format(
      "decode     {}: {:.1f} tokens/s, {} a run\n"
      "memory     {} of weights and {} of cache a run: {:.1f} GB/s, {:.0f} % of the {:.1f} GB/s "
      "at which the chips read their weights alone\n"
      "transfers  {:.1f} % of a decode run, and {:.1f} % waiting for other chips\n",
      count_text(s.at("decode_tokens"), "token"), number("decode_tokens_per_second"),
      seconds_text(number("seconds_per_run")), bytes_text(s.at("weight_bytes_per_run")),
      bytes_text(static_cast<int64_t>(number("cache_bytes_per_run"))),
      number("bytes_per_second") * 1e-9, percent("bytes_per_second", "read_bytes_per_second"),
      number("read_bytes_per_second") * 1e-9, number("transfer_percent"),
      number("waiting_percent"));
  return text;
}

}  // namespace shardwright::cli
