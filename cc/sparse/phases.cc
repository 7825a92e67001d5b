#include "cc/sparse/phases.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <deque>
#include <thread>

#include "cc/threads/for_each.h"
#include "cc/threads/shares.h"

namespace keras_lth::sparse {

namespace {

constexpr double kWorthAThread = 1e6;  // multiplications: 20 to 50 microseconds

struct Progress {
  Progress(std::size_t tasks, unsigned threads) : shares(tasks, threads) {}

  threads::Shares shares;
  std::atomic<std::size_t> done{0};
};

// Whoever waits does so for tasks that running threads have taken, a few microseconds as a rule.
void Wait(const Progress& progress, const std::atomic<bool>& failed) {
  for (int turn = 0; progress.done.load(std::memory_order_acquire) < progress.shares.items(); ++turn) {
    if (failed.load(std::memory_order_acquire)) return;
    if (turn > 1000) std::this_thread::yield();
  }
}

}  // namespace

unsigned ThreadsFor(const Run& run, double multiplications) {
  if (run.threads != 0) return run.threads;
  if (multiplications < 2 * kWorthAThread) return 1;
  return static_cast<unsigned>(std::min<double>(multiplications / kWorthAThread, threads::Size()));
}

void RunPhases(unsigned threads, const std::vector<Phase>& phases) {
  if (threads <= 1) {
    for (const Phase& phase : phases) {
      for (std::int64_t task = 0; task < phase.tasks; ++task) phase.body(task);
    }
    return;
  }
  std::deque<Progress> progress;
  for (const Phase& phase : phases) progress.emplace_back(static_cast<std::size_t>(phase.tasks), threads);
  std::atomic<bool> failed{false};
  // Every thread goes through all phases and takes what is left of each, so it does not matter how many threads come.
  threads::ForEach(threads, threads, [&](unsigned, std::size_t thread) {
    for (std::size_t p = 0; p < phases.size(); ++p) {
      if (failed.load(std::memory_order_acquire)) return;
      try {
        const std::size_t taken = progress[p].shares.Take(thread, [&](std::size_t task) {
          if (!failed.load(std::memory_order_relaxed)) phases[p].body(static_cast<std::int64_t>(task));
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
