// Files: mapping, atomic writing, a full disk.
#include "base/file.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/bytes.h"
#include "base/error.h"

namespace shardwright {
namespace {

namespace fs = std::filesystem;

class FileTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) / ("file_test_" + std::to_string(getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  size_t file_count() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(folder_), {}));
  }
  static std::string content(const std::string& path) {
    const auto file = MappedFile::open(path);
    return {reinterpret_cast<const char*>(file->data()), static_cast<size_t>(file->size())};
  }

  fs::path folder_;
};

TEST_F(FileTest, CommitReplacesWhatWasThere) {
  std::ofstream(path("a")) << "old content";
  AtomicFile file(path("a"));
  file.write_at(4, "new");
  file.write_at(0, "the ");
  EXPECT_EQ(content(path("a")), "old content");
  file.commit();
  EXPECT_EQ(content(path("a")), "the new");
  EXPECT_EQ(file_count(), 1U);
}

TEST_F(FileTest, WithoutCommitNothingIsLeft) {
  {
    AtomicFile file(path("a"));
    file.write_at(0, "half");
    EXPECT_EQ(file_count(), 1U);
  }
  EXPECT_EQ(file_count(), 0U);
}

TEST_F(FileTest, EmptyFileMaps) {
  std::ofstream(path("empty")).flush();
  const auto file = MappedFile::open(path("empty"));
  EXPECT_EQ(file->size(), 0);
  EXPECT_EQ(file->data(), nullptr);
}

TEST_F(FileTest, MissingFilesAndFoldersAreUsageErrors) {
  for (const auto& bad : {path("missing"), folder_.string()}) {
    try {
      MappedFile::open(bad);
      FAIL() << bad;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage);
      EXPECT_NE(std::string(error.what()).find(bad), std::string::npos) << error.what();
    }
  }
  EXPECT_THROW(AtomicFile(path("no/such/folder/a")), Error);
}

TEST_F(FileTest, FullDiskSaysHowMuchIsNeededAndLeavesNothing) {
  // A limit on file sizes stands for a full disk.
  struct rlimit before {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  const rlimit small{4096, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  std::string message;
  try {
    AtomicFile file(path("a"));
    file.reserve(123456);
    file.write_at(0, std::string(123456, 'x'));
  } catch (const Error& error) {
    message = error.what();
  }
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, handler);
  EXPECT_NE(message.find("no space for " + path("a") + ": 123456 bytes are needed"),
            std::string::npos)
      << message;
  EXPECT_EQ(file_count(), 0U);
}

TEST(ByteReaderTest, ReadsAndStopsAtTheEnd) {
  std::string bytes;
  append_number<uint32_t>(bytes, 7);
  append_number<uint16_t>(bytes, 9);
  ByteReader reader(std::as_bytes(std::span(bytes)), "the header");
  EXPECT_EQ(reader.number<uint32_t>(), 7U);
  EXPECT_EQ(reader.number<uint16_t>(), 9U);
  try {
    reader.number<uint8_t>();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBrokenFile);
    EXPECT_STREQ(error.what(), "the header ends after 6 bytes; 1 more are needed");
  }
}

TEST(MappedFile, WhatWasForgottenIsReadAgain) {
  const std::string path = testing::TempDir() + "/forget_" + std::to_string(getpid());
  const std::string content(100'000, 'x');
  {
    AtomicFile file(path);
    file.write_at(0, content);
    file.commit();
  }
  const auto mapped = MappedFile::open(path);
  mapped->forget(mapped->data() + 5000, 90'000);
  mapped->forget(mapped->data() + 10, 20);  // no whole page
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(mapped->data()), 100'000), content);
  std::remove(path.c_str());
}

}  // namespace
}  // namespace shardwright
