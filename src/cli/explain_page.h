// explain.html, as it stands; made a string when the program is built.
#pragma once

#include <string_view>

namespace shardwright::cli {

// kDataMark stands once in it, where the explanation goes.
std::string_view explain_page();
inline constexpr std::string_view kDataMark = "\"EXPLANATION\"";

}  // namespace shardwright::cli
