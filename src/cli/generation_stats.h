// What limits generation: the bytes and flops of a graph, against what the machine can do.
#pragma once

#include <nlohmann/json.hpp>

#include "runtime/generator.h"

namespace shardwright::cli {

// {"prompt": ..., "decode": ..., "weights_bytes_per_token", "cache_bytes_per_token",
//  "bytes_per_second", "read_bytes_per_second", "prompt_flops_per_second", "peak_flops_per_second",
//  "transfer_percent", "waiting_percent"}: measures the machine's limits now, and profiles decode.
nlohmann::ordered_json generation_stats(runtime::Session& session,
                                        const runtime::Generator& generator,
                                        double first_token_seconds);
// The same for people.
std::string stats_text(const nlohmann::ordered_json& stats);

}  // namespace shardwright::cli
