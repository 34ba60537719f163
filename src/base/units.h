// Quantities for people.
#pragma once

#include <cstdint>
#include <string>

namespace shardwright {

std::string bytes_text(int64_t bytes);     // "538.1 MB"
std::string seconds_text(double seconds);  // "1.23 s", "4.56 ms", "7.8 us"

}  // namespace shardwright
