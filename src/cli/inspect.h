// What a PEF holds, as text and as JSON.
#pragma once

#include <string>

#include "pef/program.h"

namespace shardwright::cli {

// Per plan: bytes a chip, how each weight is split (layers folded), the exchanges (folded), notes.
std::string plans_text(const pef::Manifest& manifest, const std::string& report_json);
// The same as a JSON array.
std::string plans_json(const pef::Manifest& manifest, const std::string& report_json);

}  // namespace shardwright::cli
