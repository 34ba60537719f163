// .npy files (NumPy format 1.0 to 3.0): arrays on disk.
#pragma once

#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace shardwright::cli {

struct NpyArray {
  TensorType type;
  SharedBytes bytes;
};

// C order, little-endian, of a dtype that we have; uint16 are the bits of bf16. Throws
// Error(kUsage) with the file's name.
NpyArray read_npy(const std::string& path);
// bf16 is written as float32 (NumPy has no bf16). Throws Error(kUsage).
void write_npy(const std::string& path, const TensorType& type, const std::byte* data);

}  // namespace shardwright::cli
