// What all FlatBuffers of a PEF share: limits of the verifier, bytes of a builder.
#pragma once

#include <flatbuffers/flatbuffers.h>

#include <span>
#include <string>

#include "base/error.h"

namespace shardwright::pef {

// The root of a buffer, once the verifier has accepted it. Throws Error(kBrokenFile).
template <typename Table>
const Table& verified_root(std::span<const std::byte> bytes, const std::string& what) {
  constexpr flatbuffers::uoffset_t kMaxDepth = 8;
  // No two references may share a table, so there is one at most every 4 bytes: this keeps what is
  // decoded in proportion to the file.
  const auto max_tables = static_cast<flatbuffers::uoffset_t>(bytes.size() / 4);
  const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
  if (bytes.size() < FLATBUFFERS_MAX_BUFFER_SIZE && bytes.size() >= 8) {
    flatbuffers::Verifier verifier(data, bytes.size(), kMaxDepth, max_tables);
    if (verifier.VerifyBuffer<Table>(nullptr)) return *flatbuffers::GetRoot<Table>(data);
  }
  throw Error(ErrorCode::kBrokenFile, what + " is not a valid FlatBuffer of its kind");
}

inline std::string bytes_of(const flatbuffers::FlatBufferBuilder& builder) {
  return {reinterpret_cast<const char*>(builder.GetBufferPointer()), builder.GetSize()};
}

}  // namespace shardwright::pef
