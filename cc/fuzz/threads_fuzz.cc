// ForEach: callers side by side, calls in calls, exceptions.
#include <atomic>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "cc/fuzz/fuzz.h"
#include "cc/threads/for_each.h"

namespace keras_lth::fuzz {

namespace {

struct Call {
  unsigned workers;
  std::size_t items, inner_items;
  std::size_t bad, inner_bad;  // the items that throw; at or above `items`: none
};

struct Thrown : std::runtime_error {
  using std::runtime_error::runtime_error;
};

void Make(const Call& call) {
  const unsigned bound = call.workers == 0 ? threads::Size() : call.workers;
  std::vector<std::atomic<int>> calls(call.items), inner(call.items * call.inner_items);
  std::atomic<bool> in_range{true};
  bool thrown = false;
  try {
    threads::ForEach(call.workers, call.items, [&](unsigned worker, std::size_t item) {
      if (worker >= bound || item >= call.items) {
        in_range = false;
        return;
      }
      ++calls[item];
      if (item == call.bad) throw Thrown("outer");
      const auto self = std::this_thread::get_id();
      threads::ForEach(call.workers, call.inner_items, [&](unsigned deeper, std::size_t at) {
        if (deeper != 0 || std::this_thread::get_id() != self) in_range = false;
        ++inner[item * call.inner_items + at];
        if (at == call.inner_bad && item % 3 == 1) throw Thrown("inner");
      });
    });
  } catch (const Thrown&) {
    thrown = true;
  }
  const bool inner_throws = call.inner_bad < call.inner_items && call.items > 1;
  Expect(in_range, "threads: a number out of range, or a call inside that is not alone");
  Expect(thrown == (call.bad < call.items || inner_throws), thrown ? "threads: thrown" : "threads: nothing thrown");
  for (const std::atomic<int>& n : calls) Expect(thrown ? n <= 1 : n == 1, "threads: an item not once");
  for (const std::atomic<int>& n : inner) Expect(thrown ? n <= 1 : n == 1, "threads: an inner item not once");
}

}  // namespace

Outcome Threads(Bytes* bytes) {
  if (bytes->Chance(60)) threads::SetSize(static_cast<unsigned>(bytes->OneOf({0, 1, 2, 3, 7})));
  std::vector<Call> calls(static_cast<std::size_t>(bytes->Between(1, 3)));
  for (Call& call : calls) {
    call.workers = Workers(bytes);
    call.items = static_cast<std::size_t>(bytes->Between(0, 63));
    call.inner_items = bytes->Chance(128) ? static_cast<std::size_t>(bytes->Between(0, 9)) : 0;
    call.bad = bytes->Chance(40) ? static_cast<std::size_t>(bytes->Between(0, 63)) : call.items;
    call.inner_bad = bytes->Chance(40) ? static_cast<std::size_t>(bytes->Between(0, 9)) : call.inner_items;
  }
  std::vector<std::thread> others;
  for (std::size_t i = 1; i < calls.size(); ++i) others.emplace_back(Make, calls[i]);
  Make(calls[0]);
  for (std::thread& other : others) other.join();
  return Outcome::kDone;
}

}  // namespace keras_lth::fuzz
