// generate: text from a PEF that was compiled with --generate, as it comes.
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <memory>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/units.h"
#include "cli/commands.h"
#include "cli/generation_stats.h"
#include "cli/options.h"
#include "cli/pef_options.h"
#include "cli/print.h"
#include "cli/text_process.h"
#include "runtime/generator.h"

namespace shardwright::cli {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

struct Options {
  PefOptions pef;
  std::vector<std::string> prompts;
  std::vector<std::string> tokens;
  bool chat = false;
  int64_t max_new_tokens = 256;
  runtime::Sampling sampling;
  bool ignore_stop = false;
  bool stats = false;
};

std::vector<int64_t> parse_tokens(const std::string& text) {
  std::vector<int64_t> tokens;
  const char* at = text.data();
  const char* end = at + text.size();
  while (true) {
    int64_t token = 0;
    const auto [stop, error] = std::from_chars(at, end, token);
    if (error != std::errc() || (stop != end && *stop != ','))
      throw Error(ErrorCode::kUsage,
                  fmt::format("--prompt-tokens {}: give token numbers, as in 504,3575,282", text));
    tokens.push_back(token);
    if (stop == end) return tokens;
    at = stop + 1;
  }
}

std::vector<int64_t> stop_tokens_of(const pef::File& file) {
  const auto& files = file.files();
  if (std::find(files.begin(), files.end(), "generation.json") == files.end()) return {};
  return Json::parse(file.file("generation.json")).value("stop_tokens", std::vector<int64_t>());
}

// One prompt and what became of it.
struct Answer {
  std::vector<int64_t> prompt;
  std::vector<int64_t> tokens;
  std::string text;
  std::string ended;  // "stop", "length" (as many as asked for) or "full" (the cache is)
};

class Writer {
 public:
  Writer(const Options& o, const Globals& globals, TextProcess* text, size_t count)
      : text_(text), stream_(!globals.json && count == 1), ignore_stop_(o.ignore_stop) {}

  // Without a tokenizer the tokens' numbers are the text.
  void add(Answer& answer, size_t row, int64_t token, bool is_stop) {
    answer.tokens.push_back(token);
    if (is_stop && !ignore_stop_) return;
    put(answer, text_ ? text_->add(row, token)
                      : fmt::format("{}{}", answer.tokens.size() > 1 ? "," : "", token));
  }
  void end(Answer& answer, size_t row) {
    if (text_) put(answer, text_->end(row));
    if (stream_) fmt::print("\n");
  }

 private:
  void put(Answer& answer, const std::string& text) {
    answer.text += text;
    if (!stream_) return;
    fmt::print("{}", text);
    std::fflush(stdout);
  }

  TextProcess* text_;
  bool stream_;
  bool ignore_stop_;
};

std::vector<Answer> read_prompts(const Options& o, TextProcess* text) {
  std::vector<Answer> answers;
  for (const std::string& prompt : o.prompts)
    answers.push_back(
        {.prompt = text->encode(prompt, o.chat), .tokens = {}, .text = "", .ended = ""});
  for (const std::string& tokens : o.tokens)
    answers.push_back({.prompt = parse_tokens(tokens), .tokens = {}, .text = "", .ended = ""});
  return answers;
}

// Runs until all have ended; seconds to the first token.
double run(const Options& o, const std::vector<int64_t>& stop, runtime::Generator& generator,
           Writer& writer, std::vector<Answer>& answers) {
  const auto start = Clock::now();
  double first = 0;
  for (size_t row = 0; row < answers.size(); ++row) {
    runtime::Sampling sampling = o.sampling;
    sampling.seed += row;
    generator.start(static_cast<int>(row), answers[row].prompt, sampling);
  }
  for (size_t left = answers.size(); left > 0;) {
    for (const auto& [slot, token, full] : generator.step()) {
      if (first == 0) first = std::chrono::duration<double>(Clock::now() - start).count();
      const auto row = static_cast<size_t>(slot);
      Answer& answer = answers[row];
      const bool is_stop = std::find(stop.begin(), stop.end(), token) != stop.end();
      writer.add(answer, row, token, is_stop);
      if (is_stop && !o.ignore_stop)
        answer.ended = "stop";
      else if (std::ssize(answer.tokens) == o.max_new_tokens)
        answer.ended = "length";
      else if (full)
        answer.ended = "full";
      else
        continue;
      generator.stop(slot);
      writer.end(answer, row);
      --left;
    }
  }
  return first;
}

void check(const Options& o) {
  if (o.prompts.empty() && o.tokens.empty())
    throw Error(ErrorCode::kUsage,
                "there is no prompt: give --prompt TEXT, or --prompt-tokens 1,2,3");
  if (o.chat && o.prompts.empty())
    throw Error(ErrorCode::kUsage, "--chat makes a message of --prompt TEXT; give one");
  runtime::check(o.sampling);
}

int generate(const Options& o, const Globals& globals) {
  check(o);
  const std::string path = pef_of(o.pef.pef);
  // It starts while the weights are loaded; what is no PEF is said before it complains, too.
  std::unique_ptr<TextProcess> text;
  if (!o.prompts.empty()) {
    (void)pef::File::open(path, pef::kNoPlan);
    text = std::make_unique<TextProcess>(path);
  }
  Progress progress(globals);
  progress.stage("load", 0, 0);
  const auto session = load_session(o.pef);
  runtime::Generator generator(*session);
  std::vector<Answer> answers = read_prompts(o, text.get());
  if (std::ssize(answers) > generator.slots())
    throw Error(
        ErrorCode::kUsage,
        fmt::format("{}, but this PEF was compiled for {} side by side; give fewer, or "
                    "compile with -b {}",
                    count_text(std::ssize(answers), "prompt"), generator.slots(), answers.size()));
  progress.end();
  Writer writer(o, globals, text.get(), answers.size());
  const double first = run(o, stop_tokens_of(session->file()), generator, writer, answers);
  const Json stats = o.stats ? generation_stats(*session, generator, first) : Json();
  if (globals.json) {
    Json json = {{"schema_version", 1}, {"answers", Json::array()}};
    for (const Answer& answer : answers)
      json["answers"].push_back({{"prompt_tokens", answer.prompt.size()},
                                 {"tokens", answer.tokens},
                                 {"text", answer.text},
                                 {"ended", answer.ended}});
    if (o.stats) json["stats"] = stats;
    emit_json(globals, json.dump());
    return 0;
  }
  if (answers.size() > 1)
    for (size_t i = 0; i < answers.size(); ++i)
      fmt::print("{}[{}] {}\n", i > 0 ? "\n" : "", i + 1, answers[i].text);
  for (const Answer& answer : answers)
    if (answer.ended == "full")
      log(globals, LogLevel::kWarning,
          fmt::format("the text ends because the KV cache of {} is full; compile with a larger "
                      "--seq for more",
                      count_text(generator.length(), "token")));
  if (o.stats) fmt::print("\n{}", stats_text(stats));
  return 0;
}

}  // namespace

void add_generate(CLI::App& app, const Globals& globals, Action& action) {
  auto o = std::make_shared<Options>();
  CLI::App* c = app.add_subcommand("generate", "Write text, token by token");
  c->footer(
      fmt::format("Example:\n  {} generate out/demo/demo.pef --prompt \"The capital of "
                  "France is\" --max-new-tokens 16",
                  globals.command_line()));
  add_pef_options(*c, o->pef, globals);
  c->remove_option(c->get_option("--graph"));
  c->add_option("--prompt", o->prompts, "May be repeated, up to the batch size of the PEF")
      ->type_name("TEXT")
      ->allow_extra_args(false);
  c->add_option("--prompt-tokens", o->tokens, "The same as token numbers; the answer is, too")
      ->type_name("N,N")
      ->allow_extra_args(false);
  c->add_flag("--chat", o->chat, "The prompt is a message: put it into the model's chat template");
  whole_number(
      c->add_option("--max-new-tokens", o->max_new_tokens, "At most so many (default 256)"), 1);
  c->add_option("--temperature", o->sampling.temperature,
                "0 (default): always the likeliest token; higher: more variety");
  c->add_option("--top-k", o->sampling.top_k, "Only the K likeliest tokens (default 0: all)");
  c->add_option("--top-p", o->sampling.top_p,
                "Only the likeliest tokens of this probability together (default 1: all)");
  c->add_option("--repetition-penalty", o->sampling.repetition_penalty,
                "Above 1: tokens that were there before are less likely (default 1)");
  whole_number(
      c->add_option("--seed", o->sampling.seed, "The same seed, the same text (default 0)"), 0);
  c->add_flag("--ignore-stop", o->ignore_stop, "Go on behind the token that ends a text");
  c->add_flag("--stats", o->stats,
              "Tokens a second, and what limits them: memory, multiply-adds, transfers");
  c->callback([o, &globals, &action] { action = [o, &globals] { return generate(*o, globals); }; });
}

}  // namespace shardwright::cli
