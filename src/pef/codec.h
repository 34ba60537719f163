// Manifest, chip plans and programs to FlatBuffers and back.
#pragma once

#include <span>
#include <string>

#include "pef/program.h"

namespace shardwright::pef {

// The manifest alone: of its plans, how many chips, mode and notes. Tensor::offset_bytes as it is.
std::string encode_manifest(const Manifest& manifest);
std::string encode_chip(const ChipPlan& chip);  // without its programs
std::string encode_program(const Program& program);

// The inverse. Throw Error(kBrokenFile), naming `what`, where the bytes are not a valid FlatBuffer
// or hold an enum out of range. What they decode to is no larger than the bytes, times a constant.
Manifest decode_manifest(std::span<const std::byte> bytes, const std::string& what);
ChipPlan decode_chip(std::span<const std::byte> bytes, const std::string& what);
Program decode_program(std::span<const std::byte> bytes, const std::string& what);

}  // namespace shardwright::pef
