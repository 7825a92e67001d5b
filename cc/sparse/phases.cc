#include "cc/sparse/phases.h"

#include <atomic>
#include <cstddef>
#include <deque>
#include <thread>

#include "cc/threads/for_each.h"

namespace keras_lth::sparse {

namespace {

// The tasks of a phase, cut into as many shares as there are threads.
struct Progress {
  Progress(std::int64_t all, unsigned threads) : tasks(all), next(threads) {
    for (unsigned share = 0; share < threads; ++share) next[share].value = Begin(share);
  }

  std::int64_t Begin(std::size_t share) const {
    return tasks * static_cast<std::int64_t>(share) / static_cast<std::int64_t>(next.size());
  }

  // Calls body(task) for what is left of the thread's own share, then of the others'; returns how many.
  template <class Body>
  std::int64_t Take(std::size_t thread, Body body) {
    std::int64_t taken = 0;
    for (std::size_t i = 0; i < next.size(); ++i) {
      const std::size_t share = (thread + i) % next.size();
      for (;; ++taken) {
        const std::int64_t task = next[share].value.fetch_add(1, std::memory_order_relaxed);
        if (task >= Begin(share + 1)) break;
        body(task);
      }
    }
    return taken;
  }

  const std::int64_t tasks;
  std::vector<threads::Own<std::atomic<std::int64_t>>> next;
  std::atomic<std::int64_t> done{0};
};

// Whoever waits does so for tasks that running threads have taken, a few microseconds as a rule.
void Wait(const Progress& progress, const std::atomic<bool>& failed) {
  for (int turn = 0; progress.done.load(std::memory_order_acquire) < progress.tasks; ++turn) {
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
  std::deque<Progress> progress;
  for (const Phase& phase : phases) progress.emplace_back(phase.tasks, threads);
  std::atomic<bool> failed{false};
  // Every thread goes through all phases and takes what is left of each, so it does not matter how many threads come.
  threads::ForEach(threads, threads, [&](unsigned, std::size_t thread) {
    for (std::size_t p = 0; p < phases.size(); ++p) {
      if (failed.load(std::memory_order_acquire)) return;
      try {
        const std::int64_t taken = progress[p].Take(thread, [&](std::int64_t task) {
          if (!failed.load(std::memory_order_relaxed)) phases[p].body(task);
        });
        progress[p].done.fetch_add(taken, std::memory_order_acq_rel);
      } catch (...) {
        failed.store(true, std::memory_order_release);
        throw;
      }
      Wait(progress[p], failed);
    }
  });
}

}  // namespace keras_lth::sparse
