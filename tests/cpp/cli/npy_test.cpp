// .npy files: what NumPy writes is read; damaged headers are the user's error, with the file's
// name.
#include "cli/npy.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/error.h"

namespace shardwright::cli {
namespace {

class Npy : public ::testing::Test {
 protected:
  // A version 1.0 file of this header and no data, read.
  NpyArray read(std::string header, const std::string& data = "") {
    header.insert(
        0, {'\x93', 'N', 'U', 'M', 'P', 'Y', '\1', '\0', static_cast<char>(header.size()), '\0'});
    std::ofstream(path_, std::ios::binary) << header << data;
    return read_npy(path_);
  }
  std::string message_of(const std::string& header) {
    try {
      (void)read(header);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
  void TearDown() override { std::filesystem::remove(path_); }

  const std::string path_ = ::testing::TempDir() + "npy_test.npy";
};

TEST_F(Npy, WritesWhatItReads) {
  const float elements[6] = {0, 1, 2, 3, 4, 5};
  const TensorType type{DType::kF32, {2, 3}};
  write_npy(path_, type, reinterpret_cast<const std::byte*>(elements));
  const NpyArray array = read_npy(path_);
  EXPECT_EQ(array.type, type);
  EXPECT_EQ(std::memcmp(array.bytes.data, elements, sizeof(elements)), 0);
}

TEST_F(Npy, DamagedHeadersAreErrors) {
  const std::string start = "{'descr': '<f4', 'fortran_order': ";
  EXPECT_EQ(read(start + "False, 'shape': (), }", "1234").type, (TensorType{DType::kF32, {}}));
  EXPECT_EQ(message_of(start + "False, 'shape':"),
            path_ +
                ": its shape is no tuple; write it with numpy.save of a C-ordered float or "
                "integer array");
  EXPECT_NE(message_of(start + "True, 'shape': (1,), }").find("Fortran order"), std::string::npos);
  EXPECT_NE(message_of(start + "False, 'shape': (1,), }").find("cut short"), std::string::npos);
  EXPECT_NE(message_of(start + "False, 'shape': (9223372036854775807, 9), }"), "");
  EXPECT_NE(message_of("{'fortran_order': False, 'shape': (1,), }").find("has no 'descr'"),
            std::string::npos);
}

}  // namespace
}  // namespace shardwright::cli
