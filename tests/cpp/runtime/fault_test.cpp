// A chip that throws or stalls ends the run with one message that names it; the next run works or
// says why not.
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "compiler/compile.h"
#include "frontend/pt2.h"
#include "runtime/session.h"

namespace shardwright::runtime {
namespace {

class FaultTest : public ::testing::TestWithParam<int> {  // threads a chip
 protected:
  void SetUp() override {
    path_ = (std::filesystem::temp_directory_path() /
             ("fault_" + std::to_string(GetParam()) + "_" + std::to_string(getpid()) + ".pef"))
                .string();
    compiler::CompileOptions options;
    options.output_path = path_;
    options.mode = shard::Mode::kWeight;
    options.n_chips = {3};
    (void)compiler::compile(frontend::read_pt2(SHARDWRIGHT_TEST_DATA "/data/mlp.pt2"), options);
    SessionOptions session;
    session.threads_per_chip = GetParam();
    session.deadline_ms = 300;
    session_ = Session::load(path_, session);
    steps_ = static_cast<int>(session_->plan().chips[1].programs[0].steps.size());
  }
  void TearDown() override { std::filesystem::remove(path_); }

  std::string failure() {
    try {
      run();
      return "";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kPeerFailed);
      return error.what();
    }
  }
  void run() {
    session_->run(0, {{{DType::kF32, {2, 24}}, input_.data()}},
                  {{{DType::kF32, {2, 10}}, output_.data()}});
  }

  std::string path_;
  std::unique_ptr<Session> session_;
  int steps_ = 0;
  std::vector<float> input_ = std::vector<float>(48, 0.5F), output_ = std::vector<float>(20);
};

TEST_P(FaultTest, AChipThatThrowsIsNamedAndTheNextRunWorks) {
  run();
  const std::vector<float> want = output_;
  for (int at = 0; at < steps_; ++at) {
    session_->set_fault([at](int chip, int step) {
      if (chip == 1 && step == at) throw Error(ErrorCode::kBug, "out of ideas");
    });
    EXPECT_EQ(failure(), "chip 1 failed at step " + std::to_string(at) + ": out of ideas");
  }
  session_->set_fault(nullptr);
  std::fill(output_.begin(), output_.end(), 0.0F);
  EXPECT_EQ(failure(), "");
  EXPECT_EQ(output_, want);
}

TEST_P(FaultTest, AChipThatStallsIsNamedWithinTheDeadline) {
  std::mutex mutex;
  std::condition_variable released;
  bool go = false;
  session_->set_fault([&](int chip, int step) {
    std::unique_lock lock(mutex);
    if (chip == 2 && step == 1) released.wait(lock, [&] { return go; });
  });
  std::string message;
  std::thread runner([&] { message = failure(); });
  runner.join();
  EXPECT_NE(message.find("chip 2 "), std::string::npos) << message;
  EXPECT_NE(message.find("load the PEF again"), std::string::npos) << message;
  EXPECT_EQ(failure(), "a chip of this session hangs: load the PEF again");
  {
    const std::lock_guard lock(mutex);
    go = true;
  }
  released.notify_all();
  session_.reset();  // joins the chip that came back; the leak checker sees that nothing is left
}

INSTANTIATE_TEST_SUITE_P(Threads, FaultTest, ::testing::Values(1, 2));

}  // namespace
}  // namespace shardwright::runtime
