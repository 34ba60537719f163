// A chip that throws or stalls ends the run with one message that names it; the next run works or
// says why not.
#include <condition_variable>
#include <mutex>

#include "runtime/faulty_llama.h"

namespace shardwright::runtime {
namespace {

class FaultTest : public FaultyLlama {
 protected:
  std::string failure(Session& session) const {
    try {
      (void)run_session(session, model_.inputs);
      return "";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kPeerFailed);
      return error.what();
    }
  }
};

TEST_P(FaultTest, AChipThatThrowsIsNamedAndTheNextRunWorks) {
  const std::unique_ptr<Session> session = load();
  const std::vector<double> want = run_session(*session, model_.inputs).at("logits").data;
  for (int at = 0; at <= last_step_; ++at) {
    session->set_fault([at](int chip, int step) {
      if (chip == 1 && step == at) throw Error(ErrorCode::kBug, "out of ideas");
    });
    EXPECT_EQ(failure(*session), "chip 1 failed at step " + std::to_string(at) + ": out of ideas");
  }
  session->set_fault(nullptr);
  EXPECT_EQ(run_session(*session, model_.inputs).at("logits").data, want);
}

TEST_P(FaultTest, AChipThatThrowsWhileLoadingEndsTheLoad) {
  try {
    (void)load([](int chip, int step) {
      if (chip == 1 && step == -1) throw Error(ErrorCode::kDoesNotFit, "no room");
    });
    FAIL() << "loaded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kDoesNotFit);
    EXPECT_EQ(error.what(), path_ + ": no room");
  }
}

// Blocks `chip` before `step` until it is let go.
class Stall {
 public:
  Stall(int chip, int step) : chip_(chip), step_(step) {}
  void operator()(int chip, int step) {
    std::unique_lock lock(mutex_);
    if (chip == chip_ && step == step_) changed_.wait(lock, [&] { return let_go_; });
  }
  void let_go() {
    {
      const std::lock_guard lock(mutex_);
      let_go_ = true;
    }
    changed_.notify_all();
  }

 private:
  const int chip_, step_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool let_go_ = false;
};

// The others wait for it: they name the exchange that it did not reach.
TEST_P(FaultTest, AChipThatStallsIsNamedWithinTheDeadline) {
  for (const int place : places()) {
    Stall stall(2, place);
    std::unique_ptr<Session> session = load([&](int chip, int step) { stall(chip, step); });
    const std::string message = failure(*session);
    EXPECT_TRUE(message.starts_with("chip 2 ")) << message;
    EXPECT_NE(message.find("; the session can't be used any more: load the PEF again"),
              std::string::npos)
        << message;
    EXPECT_EQ(failure(*session), "a chip of this session hangs: load the PEF again");
    stall.let_go();
    session.reset();  // joins the chip that came back; the leak checker sees that nothing is left
  }
}

// Nobody waits for it and the others have ended: the watcher names it, not them.
TEST_P(FaultTest, AChipThatStallsAtTheEndIsNamed) {
  Stall stall(0, last_step_);
  std::unique_ptr<Session> session = load([&](int chip, int step) { stall(chip, step); });
  const std::string message = failure(*session);
  EXPECT_TRUE(message.starts_with("chip 0 made no progress for 300 ms at step " +
                                  std::to_string(last_step_) + " of "))
      << message;
  stall.let_go();
  session.reset();
}

INSTANTIATE_TEST_SUITE_P(Threads, FaultTest, ::testing::Values(1, 2));

}  // namespace
}  // namespace shardwright::runtime
