#include "cc/threads/for_each.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

namespace keras_lth::threads {

unsigned Available() {
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  // Unlike hardware_concurrency, this respects taskset and cpusets.
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    return static_cast<unsigned>(std::max(1, CPU_COUNT(&set)));
  }
#endif
  return std::max(1U, std::thread::hardware_concurrency());
}

void ForEach(unsigned workers, std::size_t items, const std::function<void(unsigned, std::size_t)>& body) {
  std::atomic<std::size_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_mutex;
  const auto work = [&](unsigned worker) {
    try {
      for (std::size_t item = next.fetch_add(1); item < items; item = next.fetch_add(1)) body(worker, item);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(failure_mutex);
      if (!failure) failure = std::current_exception();
      next.store(items);
    }
  };
  std::vector<std::thread> helpers;
  if (workers > 1 && items > 1) {
    const std::size_t wanted = std::min<std::size_t>(workers, items) - 1;
    helpers.reserve(wanted);
    try {
      for (std::size_t i = 0; i < wanted; ++i) helpers.emplace_back(work, static_cast<unsigned>(i + 1));
    } catch (const std::exception&) {
      // No more threads or memory to be had: those that started and the caller do all the items.
    }
  }
  work(0);
  for (std::thread& helper : helpers) helper.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace keras_lth::threads
