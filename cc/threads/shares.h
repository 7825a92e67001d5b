// Items cut into as many shares of neighbours as there are workers.
#ifndef KERAS_LTH_CC_THREADS_SHARES_H_
#define KERAS_LTH_CC_THREADS_SHARES_H_

#include <atomic>
#include <cstddef>
#include <vector>

namespace keras_lth::threads {

// What one worker writes often, in lines of the cache of its own: a line that two write in turn travels between them.
template <class T>
struct alignas(128) Own {
  T value{};
};

// A worker begins with its own share and ends with what is left of the others'. Neighbours stay with one worker, so
// what the processor fetches ahead is its own, and hardly ever do two draw from one counter: both cost much where cores
// share no last-level cache.
class Shares {
 public:
  Shares(std::size_t items, std::size_t workers) : items_(items), next_(workers) {
    for (std::size_t share = 0; share < workers; ++share) next_[share].value = Begin(share);
  }

  std::size_t items() const { return items_; }

  // Calls body(item) for every item that no other worker has taken; returns how many. `worker` is below the number of
  // workers, and one thread at a time has it.
  template <class Body>
  std::size_t Take(std::size_t worker, Body body) {
    std::size_t taken = 0;
    for (std::size_t i = 0; i < next_.size(); ++i) {
      const std::size_t share = (worker + i) % next_.size(), end = Begin(share + 1);
      for (;; ++taken) {
        const std::size_t item = next_[share].value.fetch_add(1, std::memory_order_relaxed);
        if (item >= end) break;
        body(item);
      }
    }
    return taken;
  }

  // Nothing more is taken.
  void Stop() {
    for (auto& [next] : next_) next.store(items_, std::memory_order_relaxed);
  }

 private:
  std::size_t Begin(std::size_t share) const {
    const std::size_t workers = next_.size(), longer = items_ % workers;
    return items_ / workers * share + (share < longer ? share : longer);
  }

  const std::size_t items_;
  std::vector<Own<std::atomic<std::size_t>>> next_;
};

}  // namespace keras_lth::threads

#endif  // KERAS_LTH_CC_THREADS_SHARES_H_
