// Opening a PEF from the command line.
#pragma once

#include <memory>

#include "cli/commands.h"
#include "runtime/session.h"

namespace shardwright::cli {

// Throws Error(kUsage) naming the option that contradicts what the PEF was compiled for
// (requirement C5), wherever the option came from.
void check_contradictions(const PefOptions& options, const pef::Manifest& manifest);
// The file that was named, or the newest below out/ (the door of a model script).
std::string pef_of(const std::string& pef);
std::unique_ptr<runtime::Session> load_session(const PefOptions& options);

}  // namespace shardwright::cli
