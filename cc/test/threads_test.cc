// The thread pool: every item once, nesting, exceptions, callers side by side. Prints what fails and returns 1, or 0
// when nothing does.
#include "cc/threads/for_each.h"

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "cc/test/threads_testing.h"

namespace keras_lth::threads {

namespace {

void CheckEveryItemOnce() {
  for (const unsigned workers : {0U, 1U, 2U, 3U, 8U, 5000U}) {
    for (const std::size_t items : {0U, 1U, 2U, 7U, 1000U}) {
      const unsigned bound = workers == 0 ? Size() : workers;
      const std::string name = std::to_string(workers) + " workers, " + std::to_string(items) + " items: ";
      std::vector<std::atomic<int>> calls(items);
      std::vector<std::atomic<int>> busy(bound);
      std::atomic<bool> in_range{true}, alone{true};
      ForEach(workers, items, [&](unsigned worker, std::size_t item) {
        if (worker >= bound || item >= items) {
          in_range = false;
          return;
        }
        if (++busy[worker] != 1) alone = false;
        ++calls[item];
        --busy[worker];
      });
      Expect(in_range, name + "a number out of range");
      Expect(alone, name + "two threads under one number");
      Expect(std::all_of(calls.begin(), calls.end(), [](const auto& n) { return n == 1; }), name + "not once each");
    }
  }
}

// What a body writes without any lock is there for the caller, and for the next call's bodies.
void CheckMemory() {
  std::vector<std::size_t> values(513, 0);
  for (std::size_t round = 1; round <= 200; ++round) {
    ForEach(4, values.size(), [&](unsigned, std::size_t item) { values[item] += values[item] + item; });
    if (round % 50 == 0) std::fill(values.begin(), values.end(), round);
  }
  Expect(std::all_of(values.begin(), values.end(), [](std::size_t v) { return v == 200; }), "writes get lost");
}

void CheckTogether() {
  for (const unsigned workers : {2U, 3U, 16U, 2U}) {
    Expect(Together(workers), std::to_string(workers) + " workers do not run at the same time");
  }
  const std::size_t before = ThreadsOfProcess();
  for (int round = 0; round < 100; ++round) ForEach(16, 64, [](unsigned, std::size_t) {});
  Expect(ThreadsOfProcess() == before, "threads are started again and again");
}

// A call wakes as many threads as it can use, not all that there are.
void CheckWakes() {
  ForEach(1000, 1000, [](unsigned, std::size_t) {});
  const std::size_t all = ThreadsOfProcess();
  rusage before, after;
  getrusage(RUSAGE_SELF, &before);
  for (int round = 0; round < 100; ++round) ForEach(2, 2, [](unsigned, std::size_t) {});
  getrusage(RUSAGE_SELF, &after);
  const long wakes = after.ru_nvcsw - before.ru_nvcsw;
  Expect(all > 500 && wakes < 2000, std::to_string(wakes) + " wakes in 100 calls for one of " + std::to_string(all));
}

// Inside a body a call runs on the thread that made it, whatever the outer call's size.
void CheckNested() {
  for (const unsigned outer : {1U, 4U}) {
    for (const std::size_t items : {1U, 20U}) {
      const std::string name = "nested in " + std::to_string(outer) + " workers, " + std::to_string(items) + " items: ";
      std::atomic<std::size_t> inner_items{0};
      std::atomic<bool> alone{true};
      ForEach(outer, items, [&](unsigned, std::size_t) {
        const auto self = std::this_thread::get_id();
        ForEach(4, 10, [&](unsigned worker, std::size_t) {
          ForEach(4, 3, [&](unsigned deeper, std::size_t) {
            if (deeper != 0 || worker != 0 || std::this_thread::get_id() != self) alone = false;
            ++inner_items;
          });
        });
      });
      Expect(alone, name + "another thread, or another number than 0");
      Expect(inner_items == items * 30, name + "not every item");
    }
  }
  Expect(Together(3), "after nested calls a call is no longer parallel");
}

void CheckExceptions() {
  for (const unsigned workers : {1U, 4U}) {
    for (const std::size_t bad : {0U, 50U, 99U}) {
      try {
        ForEach(workers, 100, [bad](unsigned, std::size_t item) {
          if (item == bad) throw std::runtime_error("item " + std::to_string(item));
        });
        Expect(false, "an exception is lost");
      } catch (const std::runtime_error& error) {
        Expect(error.what() == "item " + std::to_string(bad), "another exception");
      }
    }
    try {
      ForEach(workers, 100, [](unsigned, std::size_t) { throw 7; });
      Expect(false, "an exception of another type is lost");
    } catch (int number) {
      Expect(number == 7, "another number");
    }
    // From the inner call through the outer one.
    try {
      ForEach(workers, 8, [workers](unsigned, std::size_t) {
        ForEach(workers, 8, [](unsigned, std::size_t item) {
          if (item == 5) throw std::out_of_range("inner");
        });
      });
      Expect(false, "a nested exception is lost");
    } catch (const std::out_of_range& error) {
      Expect(std::string(error.what()) == "inner", "another nested exception");
    }
  }
  // Nobody takes new items after an exception: of many, those that were under way.
  std::atomic<std::size_t> calls{0};
  try {
    ForEach(4, 1000000, [&](unsigned, std::size_t) {
      ++calls;
      throw std::runtime_error("all");
    });
  } catch (const std::runtime_error&) {
  }
  Expect(calls <= 4, "items are begun after an exception");
  Expect(Together(4), "after exceptions a call is no longer parallel");
}

void CheckConcurrentCallers() {
  std::vector<std::thread> callers;
  for (std::size_t caller = 0; caller < 6; ++caller) {
    callers.emplace_back([caller] {
      for (std::size_t round = 0; round < 100; ++round) {
        const std::size_t items = 1 + (caller * 31 + round) % 40;
        std::vector<std::size_t> squares(items, 0);
        bool thrown = false;
        try {
          ForEach(static_cast<unsigned>(1 + round % 5), items, [&](unsigned, std::size_t item) {
            squares[item] = item * item;
            if (round % 10 == 9 && item == items - 1) throw std::runtime_error("last");
          });
        } catch (const std::runtime_error&) {
          thrown = true;
        }
        Expect(thrown == (round % 10 == 9), "concurrent callers: the exception of another");
        if (thrown) continue;
        for (std::size_t item = 0; item < items; ++item) {
          if (squares[item] != item * item) Expect(false, "concurrent callers: an item is missing");
        }
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
}

}  // namespace

}  // namespace keras_lth::threads

int main() {
  const auto begin = std::chrono::steady_clock::now();
  keras_lth::threads::CheckEveryItemOnce();
  keras_lth::threads::CheckMemory();
  keras_lth::threads::CheckTogether();
  keras_lth::threads::CheckWakes();
  keras_lth::threads::CheckNested();
  keras_lth::threads::CheckExceptions();
  keras_lth::threads::CheckConcurrentCallers();
  return keras_lth::threads::Report(begin);
}
