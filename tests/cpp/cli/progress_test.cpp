// Progress: a line a stage, a bar on a terminal, and never silence for long.
#include <gtest/gtest.h>

#include <unistd.h>

#include <cstdio>
#include <regex>
#include <string>

#include "cli/print.h"

namespace shardwright::cli {
namespace {

class ProgressTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    in_ = fdopen(ends[0], "r");
    out_ = fdopen(ends[1], "w");
  }
  void TearDown() override {
    std::fclose(in_);
    if (out_ != nullptr) std::fclose(out_);
  }
  std::string line() {  // waits for it
    char text[256] = "";
    EXPECT_NE(std::fgets(text, sizeof(text), in_), nullptr);
    return text;
  }
  std::string all() {
    std::fclose(out_);
    out_ = nullptr;
    std::string text;
    for (int c = std::fgetc(in_); c != EOF; c = std::fgetc(in_)) text += static_cast<char>(c);
    return text;
  }

  Globals globals_;
  std::FILE* in_ = nullptr;
  std::FILE* out_ = nullptr;
};

TEST_F(ProgressTest, ALineAStage) {
  {
    Progress progress(globals_, {.file = out_});
    progress.stage("read", 0, 0);
    for (int i = 0; i < 10; ++i) progress.stage("write", i, 10);
    progress.stage("solve", 0, 0);
  }
  EXPECT_EQ(all(), "read ...\nwrite ...\nsolve ...\n");
}

TEST_F(ProgressTest, IsNotSilentWhileAStageIsLong) {
  Progress progress(globals_, {.file = out_, .silence = std::chrono::milliseconds(1)});
  progress.stage("solve", 1, 4);
  EXPECT_EQ(line(), "solve ... 25 %\n");
  for (int i = 0; i < 3; ++i)  // nobody calls stage any more
    EXPECT_TRUE(std::regex_match(line(), std::regex("solve \\.\\.\\. 25 %( \\d+ s)?\n")));
  progress.end();
}

TEST_F(ProgressTest, ABarOnATerminal) {
  {
    Progress progress(globals_, {.file = out_, .terminal = true, .silence = std::chrono::hours(1)});
    progress.stage("write", 1, 2);
  }
  EXPECT_EQ(all(), "\r\x1b[Kwrite [============            ] 50 %\r\x1b[K");
}

TEST_F(ProgressTest, LogLevelErrorIsQuiet) {
  globals_.log_level = "error";
  {
    Progress progress(globals_, {.file = out_, .silence = std::chrono::milliseconds(1)});
    progress.stage("read", 0, 0);
  }
  EXPECT_EQ(all(), "");
}

}  // namespace
}  // namespace shardwright::cli
