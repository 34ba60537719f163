// serve: becomes the Python package's server, which speaks OpenAI's HTTP interface.
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/pef_options.h"
#include "cli/python.h"
#include "pef/read.h"

namespace shardwright::cli {
namespace {

struct ServeOptions {
  PefOptions pef;
  std::string host = "127.0.0.1";
  int64_t port = 8000;
  int64_t max_queue = 256;
  int64_t drain_seconds = 30;
  std::string api_key;
};

constexpr int64_t kPorts = 65536;

std::string level_name(LogLevel level) {
  constexpr const char* kNames[] = {"error", "warning", "info", "debug"};
  return kNames[static_cast<size_t>(level)];
}

// The options as python/shardwright/server/process.py takes them.
std::string server_options(const ServeOptions& o, const Globals& globals) {
  nlohmann::ordered_json json = {{"pef", o.pef.pef},
                                 {"host", o.host},
                                 {"port", o.port},
                                 {"max_queue", o.max_queue},
                                 {"drain_seconds", o.drain_seconds},
                                 {"deadline_ms", o.pef.deadline_ms},
                                 {"log_level", level_name(globals.level())},
                                 {"json", globals.json}};
  if (o.pef.n_chips > 0) json["n_chips"] = o.pef.n_chips;
  if (o.pef.threads > 0) json["threads"] = o.pef.threads;
  return json.dump();
}

// Does not return but to throw: this process becomes the server.
int serve(const ServeOptions& o, const Globals& globals) {
  if (o.port >= kPorts)
    throw Error(ErrorCode::kUsage, fmt::format("--port {}: give a port up to {}, or 0 for any free "
                                               "one",
                                               o.port, kPorts - 1));
  check_contradictions(o.pef, pef::File::open(o.pef.pef, pef::kNoPlan)->manifest());
  const std::string python = python_program();
  const std::string has_package =
      shell_quoted(python) +
      " -c 'import importlib.util as u, sys; sys.exit(u.find_spec(\"shardwright\") is None)'";
  if (std::system(has_package.c_str()) != 0)
    throw Error(ErrorCode::kUsage, fmt::format("serve {}; {} has none", kNeedsPackage, python));
  // Not an argument: those are there for everyone to see.
  if (o.api_key.empty())
    unsetenv("SHARDWRIGHT_API_KEY");
  else
    setenv("SHARDWRIGHT_API_KEY", o.api_key.c_str(), 1);
  std::fflush(nullptr);
  execlp(python.c_str(), python.c_str(), "-m", "shardwright.server",
         server_options(o, globals).c_str(), nullptr);
  throw Error(ErrorCode::kUsage,
              fmt::format("SHARDWRIGHT_PYTHON={}: {}", python, std::strerror(errno)));
}

}  // namespace

void add_serve(CLI::App& app, const Globals& globals, Action& action) {
  auto o = std::make_shared<ServeOptions>();
  CLI::App* c = app.add_subcommand("serve", "Serve text by OpenAI's HTTP interface");
  c->footer(
      fmt::format("Needs the Python package: pip install 'shardwright[serve]'. SIGTERM ends it "
                  "when its work is "
                  "done, a second one at once.\nExample:\n  {} serve out/demo/demo.pef --port 8000",
                  globals.command_line()));
  add_pef_options(*c, o->pef, globals);
  c->remove_option(c->get_option("--graph"));  // it uses all of them
  c->add_option("--host", o->host, "Address to listen at (default: 127.0.0.1, this machine alone)")
      ->type_name("ADDRESS");
  whole_number(c->add_option("--port", o->port, "Port; 0: any free one (default: 8000)"), 0);
  c->add_option("--api-key", o->api_key,
                "What clients must send; better in SHARDWRIGHT_API_KEY (default: nothing)")
      ->type_name("KEY");
  whole_number(c->add_option("--max-queue", o->max_queue,
                             "How many requests may wait for a slot (default: 256)"),
               0);
  whole_number(c->add_option("--drain-seconds", o->drain_seconds,
                             "How long requests may go on after SIGTERM (default: 30)"),
               0);
  c->callback([o, &globals, &action] { action = [o, &globals] { return serve(*o, globals); }; });
}

}  // namespace shardwright::cli
