// Quantities for people.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace shardwright {

std::string bytes_text(int64_t bytes);                         // "538.1 MB"
std::string seconds_text(double seconds);                      // "1.23 s", "4.56 ms", "7.8 us"
std::string count_text(int64_t count, std::string_view noun);  // "1 chip", "2 chips", "2 matches"

}  // namespace shardwright
