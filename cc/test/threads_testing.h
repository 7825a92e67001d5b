// What the tests of the thread pool share.
#ifndef KERAS_LTH_CC_TEST_THREADS_TESTING_H_
#define KERAS_LTH_CC_TEST_THREADS_TESTING_H_

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <vector>

#include "cc/threads/for_each.h"

namespace keras_lth::threads {

inline std::atomic<int> failures{0};

inline void Expect(bool ok, const std::string& what) {
  if (ok) return;
  ++failures;
  std::printf("FAILED: %s\n", what.c_str());
}

// Lets `wanted` threads go when all of them have come, or after ten seconds.
class Meeting {
 public:
  explicit Meeting(unsigned wanted) : wanted_(wanted) {}

  bool Come() {
    std::unique_lock<std::mutex> lock(mutex_);
    ++here_;
    all_.notify_all();
    return all_.wait_for(lock, std::chrono::seconds(10), [this] { return here_ >= wanted_; });
  }

 private:
  const unsigned wanted_;
  unsigned here_ = 0;
  std::mutex mutex_;
  std::condition_variable all_;
};

// Whether `workers` threads run at the same time, each under a number of its own.
inline bool Together(unsigned workers) {
  Meeting meeting(workers);
  std::atomic<unsigned> met{0};
  std::vector<std::atomic<unsigned>> calls(workers);
  ForEach(workers, workers, [&](unsigned worker, std::size_t) {
    if (worker < workers) ++calls[worker];
    if (meeting.Come()) ++met;
  });
  return met == workers && std::all_of(calls.begin(), calls.end(), [](const auto& n) { return n == 1; });
}

inline std::size_t ThreadsOfProcess() {
  std::size_t count = 0;
  if (std::FILE* status = std::fopen("/proc/self/status", "r")) {
    char line[256];
    while (std::fgets(line, sizeof(line), status) != nullptr) {
      if (std::string(line).rfind("Threads:", 0) == 0) count = std::strtoul(line + 8, nullptr, 10);
    }
    std::fclose(status);
  }
  return count;
}

// For main: how long it took, and what it returns.
inline int Report(std::chrono::steady_clock::time_point begin) {
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  std::printf("%.1f s\n%d failures\n", seconds.count(), failures.load());
  return failures == 0 ? 0 : 1;
}

}  // namespace keras_lth::threads

#endif  // KERAS_LTH_CC_TEST_THREADS_TESTING_H_
