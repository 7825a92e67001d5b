// The thread pool in its process: forks, threads that cannot be started, sizes, sleep. Prints what fails and returns 1,
// or 0 when nothing does.
#include "cc/threads/for_each.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "cc/test/threads_testing.h"

namespace keras_lth::threads {

namespace {

#if defined(__SANITIZE_THREAD__)
// This sanitizer loses its way in threads that are started after a fork.
void Forked(const std::string&, const std::function<bool()>&) {}
#else
// Forks, and expects `child` to return true within twenty seconds.
void Forked(const std::string& name, const std::function<bool()>& child) {
  std::fflush(stdout);
  const pid_t pid = fork();
  if (pid == 0) {
    alarm(20);
    failures = 0;
    bool ok = false;
    try {
      ok = child();
    } catch (const std::exception& error) {
      std::printf("%s\n", error.what());
    }
    std::fflush(stdout);
    _exit(ok && failures == 0 ? 0 : 1);
  }
  int status = 0;
  Expect(pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0,
         name + (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? " hangs" : " fails"));
}
#endif

// Children of a process that has a pool use pools of their own.
void CheckFork() {
  Forked("a child", [] { return Together(3); });
  Forked("a grandchild", [] {
    const bool ok = Together(2);
    Forked("the child of a child", [] { return Together(3); });
    return ok && Together(4);
  });
}

#if defined(__SANITIZE_ADDRESS__)
// This sanitizer's allocator keeps, in a child, the locks that the parent's other threads held at the fork.
void CheckForkOfBusy() {}
#else
// The same while the parent's pool is at work, which goes on.
void CheckForkOfBusy() {
  std::atomic<bool> stop{false};
  std::atomic<std::size_t> rounds{0}, wrong{0};
  std::vector<std::thread> busy;
  for (int caller = 0; caller < 2; ++caller) {
    busy.emplace_back([&] {
      while (!stop) {
        std::atomic<std::size_t> sum{0};
        ForEach(4, 50, [&](unsigned, std::size_t item) { sum += item; });
        wrong += sum != 49 * 25;
        ++rounds;
      }
    });
  }
  for (int child = 0; child < 15; ++child) {
    const std::size_t before = rounds;
    while (rounds == before) std::this_thread::yield();
    Forked("the child of a busy parent", [] {
      std::atomic<std::size_t> sum{0};
      ForEach(4, 50, [&](unsigned, std::size_t item) { sum += item; });
      return sum == 49 * 25 && Together(3);
    });
  }
  const std::size_t before = rounds;
  while (rounds < before + 10) std::this_thread::yield();
  stop = true;
  for (std::thread& caller : busy) caller.join();
  Expect(wrong == 0, "a parent's calls go wrong beside forks");
}
#endif

// Where no thread can be started, the caller does all the items itself.
void CheckNoThreads() {
  Forked("a process that may not start threads", [] {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    // More than the address space: every start fails.
    const bool set = pthread_attr_setstacksize(&attributes, std::size_t{1} << 47) == 0 &&
                     pthread_setattr_default_np(&attributes) == 0;
    pthread_attr_destroy(&attributes);
    bool refused = false;
    try {
      std::thread([] {}).join();
    } catch (const std::system_error&) {
      refused = true;
    }
    std::size_t sum = 0;
    bool alone = true;
    ForEach(4, 50, [&](unsigned worker, std::size_t item) {
      alone = alone && worker == 0;
      sum += item;
    });
    return set && refused && alone && sum == 49 * 25;
  });
}

bool Refused(const char* text) {
  setenv("KERAS_LTH_THREADS", text, 1);
  try {
    Size();
  } catch (const std::invalid_argument& error) {
    return std::string(error.what()).find("'" + std::string(text) + "'") != std::string::npos;
  }
  return false;
}

void CheckSize() {
  unsetenv("KERAS_LTH_THREADS");
  Expect(Available() >= 1, "no processor");
  Expect(Size() == Available(), "Size() is not Available()");
  setenv("KERAS_LTH_THREADS", "", 1);
  Expect(Size() == Available(), "an empty KERAS_LTH_THREADS counts");
  for (const unsigned size : {1U, 3U, 1024U}) {
    setenv("KERAS_LTH_THREADS", std::to_string(size).c_str(), 1);
    Expect(Size() == size, "KERAS_LTH_THREADS=" + std::to_string(size));
  }
  for (const char* text : {"0", "-1", "1025", "two", "2x", "2 ", "1.5", "0x2", "99999999999999999999"}) {
    Expect(Refused(text), "KERAS_LTH_THREADS='" + std::string(text) + "' is not refused by name");
  }
  SetSize(3);
  Expect(Size() == 3, "SetSize does not come first");
  std::set<unsigned> workers;
  std::mutex mutex;
  Meeting meeting(3);
  ForEach(0, 3, [&](unsigned worker, std::size_t) {
    Expect(meeting.Come(), "0 workers do not mean Size()");
    const std::lock_guard<std::mutex> lock(mutex);
    workers.insert(worker);
  });
  Expect(workers == std::set<unsigned>{0, 1, 2}, "0 workers: other numbers");
  SetSize(0);
  setenv("KERAS_LTH_THREADS", "2", 1);
  Expect(Size() == 2, "SetSize(0) does not go back to the environment");
  unsetenv("KERAS_LTH_THREADS");
  Forked("a process bound to one processor", [] {
    cpu_set_t all, one;
    if (sched_getaffinity(0, sizeof(all), &all) != 0) return false;
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++cpu) {
      if (CPU_ISSET(cpu, &all)) CPU_SET(cpu, &one);
    }
    return sched_setaffinity(0, sizeof(one), &one) == 0 && Available() == 1 && Size() == 1;
  });
}

double ProcessorSeconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

void CheckAsleep() {
  Expect(Together(8), "8 workers before the sleep");
  // The least of five, for the machine has other work; a thread that spins takes all of each.
  double least = 1.0;
  for (int round = 0; round < 5; ++round) {
    const double before = ProcessorSeconds();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    least = std::min(least, ProcessorSeconds() - before);
  }
  Expect(least < 0.01, "an idle pool takes " + std::to_string(10 * least) + " of a processor");
  std::printf("idle: %.2f ms of processor time in 100 ms\n", 1000 * least);
}

}  // namespace

}  // namespace keras_lth::threads

int main() {
  const auto begin = std::chrono::steady_clock::now();
  keras_lth::threads::CheckFork();
  keras_lth::threads::CheckForkOfBusy();
  keras_lth::threads::CheckNoThreads();
  keras_lth::threads::CheckSize();
  keras_lth::threads::CheckAsleep();
  return keras_lth::threads::Report(begin);
}
