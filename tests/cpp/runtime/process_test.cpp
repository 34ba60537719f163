// Chips are threads, so a process is what dies: killed at any place it ends with a bad status and
// leaves nothing; stopped and continued it ends with the right answer.
#include <sys/resource.h>
#include <sys/wait.h>

#include <cerrno>
#include <csignal>
#include <set>

#include "runtime/faulty_llama.h"
#include "shard/chips.h"

namespace shardwright::runtime {
namespace {

constexpr int kRight = 0, kWrong = 1;  // exit statuses of a child; an Error's is its code

std::set<std::string> shared_memory() {
  std::set<std::string> names;
  std::error_code absent;
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm", absent))
    names.insert(entry.path().filename());
  return names;
}

class ProcessTest : public FaultyLlama {
 protected:
  // Starts a process, in a group of its own, in which `fault` happens to chip 1 at `place`.
  pid_t start(int place, const std::function<void()>& fault) const {
    const ir::RefMap want = ir::interpret(model_.module, model_.graph(), model_.inputs);
    const pid_t child = fork();
    if (child != 0) return child;
    setpgid(0, 0);
    const rlimit no_core{0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    for (const int number : {SIGSEGV, SIGABRT}) std::signal(number, SIG_DFL);  // not a sanitizer's
    int status = kWrong;
    try {
      const std::unique_ptr<Session> session = load([&](int chip, int step) {
        if (chip == 1 && step == place) fault();
      });
      const ir::RefMap got = run_session(*session, model_.inputs);
      if (shard::compare(got.at("logits"), want.at("logits"), 1e-4).empty()) status = kRight;
    } catch (const Error& error) {
      std::fprintf(stderr, "%s\n", error.what());
      status = static_cast<int>(error.code());
    }
    _exit(status);
  }
  static int wait_for(pid_t child, int options = 0) {
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, options), child);
    return status;
  }
  std::vector<int> places_and_load() const {
    std::vector<int> all = places();
    all.insert(all.begin(), -1);
    return all;
  }
};

TEST_P(ProcessTest, KilledAnywhereItLeavesNothing) {
  const std::set<std::string> before = shared_memory();
  for (const int number : {SIGKILL, SIGSEGV, SIGABRT})
    for (const int place : places_and_load()) {
      const pid_t child = start(place, [number] { raise(number); });
      const int status = wait_for(child);
      EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == number)
          << "signal " << number << " before step " << place << ": status " << status;
      EXPECT_EQ(kill(-child, 0), -1) << "a process of its group is alive";
      EXPECT_EQ(errno, ESRCH);
    }
  EXPECT_EQ(shared_memory(), before);
}

TEST_P(ProcessTest, ExitedAnywhereItHasThatStatus) {
  for (const int place : places_and_load()) {
    const int status = wait_for(start(place, [] { _exit(9); }));
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 9) << "before step " << place;
  }
}

TEST_P(ProcessTest, StoppedAndContinuedItGivesTheRightAnswer) {
  for (const int place : places_and_load()) {
    const pid_t child = start(place, [] { raise(SIGSTOP); });
    EXPECT_TRUE(WIFSTOPPED(wait_for(child, WUNTRACED))) << "before step " << place;
    EXPECT_EQ(kill(child, SIGCONT), 0);
    const int status = wait_for(child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == kRight)
        << "before step " << place << ": status " << status;
  }
}

INSTANTIATE_TEST_SUITE_P(Threads, ProcessTest, ::testing::Values(1, 2));

}  // namespace
}  // namespace shardwright::runtime
