#include "cc/sparse/phases.h"

#include <atomic>
#include <cstddef>
#include <thread>

#include "cc/threads/for_each.h"

namespace keras_lth::sparse {

namespace {

struct Progress {
  std::atomic<std::int64_t> next{0};
  std::atomic<std::int64_t> done{0};
};

// Whoever waits does so for tasks that running threads have taken, a few microseconds as a rule.
void Wait(const Progress& progress, std::int64_t tasks, const std::atomic<bool>& failed) {
  for (int turn = 0; progress.done.load(std::memory_order_acquire) < tasks; ++turn) {
    if (failed.load(std::memory_order_acquire)) return;
    if (turn > 1000) std::this_thread::yield();
  }
}

}  // namespace

void RunPhases(unsigned threads, const std::vector<Phase>& phases) {
  if (threads <= 1) {
    for (const Phase& phase : phases) {
      for (std::int64_t task = 0; task < phase.tasks; ++task) phase.body(task);
    }
    return;
  }
  std::vector<Progress> progress(phases.size());
  std::atomic<bool> failed{false};
  // Every thread goes through all phases and takes what is left of each, so it does not matter how many threads come.
  threads::ForEach(threads, threads, [&](unsigned, std::size_t) {
    for (std::size_t p = 0; p < phases.size(); ++p) {
      for (;;) {
        if (failed.load(std::memory_order_acquire)) return;
        const std::int64_t task = progress[p].next.fetch_add(1, std::memory_order_relaxed);
        if (task >= phases[p].tasks) break;
        try {
          phases[p].body(task);
        } catch (...) {
          failed.store(true, std::memory_order_release);
          throw;
        }
        progress[p].done.fetch_add(1, std::memory_order_acq_rel);
      }
      Wait(progress[p], phases[p].tasks, failed);
    }
  });
}

}  // namespace keras_lth::sparse
