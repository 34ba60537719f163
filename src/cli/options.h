// Kinds of option values: what --help and the completions show, and what is refused.
#pragma once

#include <CLI/CLI.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace shardwright::cli {

// "--n-chips"; "MODEL" for what has no dashes.
std::string name_of(const CLI::Option& option);

// Each returns its option. A refused value throws Error(kUsage): "--seq 0: give a whole number, 1
// or more".
CLI::Option* whole_number(CLI::Option* option, int64_t least);
CLI::Option* one_of(CLI::Option* option, const std::vector<std::string>& choices);

// The choices of an option ("f32|bf16" in --help); empty if it has none.
std::vector<std::string> choices_of(const CLI::Option& option);

// Values that are paths: shells complete them.
inline constexpr const char* kFile = "FILE";
inline constexpr const char* kFolder = "DIR";

}  // namespace shardwright::cli
