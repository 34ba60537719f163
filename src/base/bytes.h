// Little-endian bytes: a bounded reader and an appender, for binary formats.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/checked.h"
#include "base/error.h"

namespace shardwright {

static_assert(std::endian::native == std::endian::little, "file formats are read as they lie");

// Reads from the front. Past the end it throws Error(kBrokenFile), naming `what`.
class ByteReader {
 public:
  ByteReader(std::span<const std::byte> bytes, std::string_view what)
      : bytes_(bytes), what_(what) {}

  size_t position() const { return position_; }
  size_t remaining() const { return bytes_.size() - position_; }

  std::span<const std::byte> take(size_t count) {
    if (count > remaining())
      throw Error(ErrorCode::kBrokenFile, what_ + " ends after " + std::to_string(bytes_.size()) +
                                              " bytes; " + std::to_string(count - remaining()) +
                                              " more are needed");
    const auto taken = bytes_.subspan(position_, count);
    position_ += count;
    return taken;
  }

  template <std::integral T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }

 private:
  std::span<const std::byte> bytes_;
  std::string what_;
  size_t position_ = 0;
};

template <std::integral T>
void append_number(std::string& out, std::type_identity_t<T> value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

}  // namespace shardwright
