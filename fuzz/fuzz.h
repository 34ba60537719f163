// What the fuzz targets share. Wrong input may only end in an Error, and never in one of our own
// bugs: anything else that is thrown, a failed CHECK included, leaves the target and ends the run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "base/error.h"
#include "tensor/tensor.h"

namespace shardwright::fuzz {

// What is left of a target's input; takes parts from its front.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : text_(reinterpret_cast<const char*>(data), size) {}

  bool empty() const { return text_.empty(); }
  std::string_view rest() const { return text_; }
  std::string_view take(size_t count) {
    const std::string_view taken = text_.substr(0, count);
    text_.remove_prefix(taken.size());
    return taken;
  }
  // A part behind its length, a u32. A length beyond the end gives all that is there.
  std::string_view take_part() {
    uint32_t size = 0;
    const std::string_view head = take(sizeof(size));
    std::memcpy(&size, head.data(), head.size());
    return take(size);
  }

 private:
  std::string_view text_;
};

// A copy of exactly that size on the heap, so that a read past the end is found.
inline SharedBytes copy_of(std::string_view text) {
  const std::shared_ptr<std::byte[]> owner(new std::byte[text.size()]);
  std::memcpy(owner.get(), text.data(), text.size());
  return {owner, owner.get(), static_cast<int64_t>(text.size())};
}

template <typename F>
void expect_error_at_most(F body) {
  try {
    body();
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kBug) throw;
  }
}

}  // namespace shardwright::fuzz
