// One pass over the data: marks what is above a bracket of keys and counts, or lists, what is inside it.
#ifndef KERAS_LTH_CC_SELECT_PASS_H_
#define KERAS_LTH_CC_SELECT_PASS_H_

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "cc/select/kernels.h"
#include "cc/select/rank.h"
#include "cc/select/select.h"
#include "cc/threads/for_each.h"
#include "cc/threads/shares.h"

namespace keras_lth::select {

// The data and how to go over it.
template <class T>
struct Data {
  Data(const std::vector<Array>& all, T infinity, Order order, const Kernels& table, unsigned workers)
      : arrays(all), chunks(Split<T>(all)), everything(Everything(infinity, order)), kernels(table) {
    constexpr std::size_t kChunksPerThread = 16;  // below this waking a thread costs more than it saves
    for (const Chunk<T>& chunk : chunks) size += chunk.values.size;
    const std::size_t useful = std::max<std::size_t>(1, chunks.size() / kChunksPerThread);
    threads = workers != 0 ? workers : static_cast<unsigned>(std::min<std::size_t>(threads::Size(), useful));
    if (size <= kChunk) threads = 1;  // such a list is complete: two threads would leave gaps in its room
  }

  Range<T> Between(T lo, T hi) const { return {lo, hi, everything.infinity, everything.order}; }

  // Calls body(worker, i) for every chunk.
  template <class Body>
  void ForEachChunk(Body body) const {
    threads::ForEach(threads, chunks.size(), body);
  }

  std::vector<Values<T>> Pieces() const {
    std::vector<Values<T>> pieces;
    for (const Chunk<T>& chunk : chunks) pieces.push_back(chunk.values);
    return pieces;
  }

  const std::vector<Array>& arrays;
  const std::vector<Chunk<T>> chunks;
  const Range<T> everything;
  const Kernels& kernels;
  std::size_t size = 0;
  unsigned threads = 1;
};

// Values whose list is on the stack: a chunk is passed over in parts.
inline constexpr std::size_t kPart = 4096;

struct Segment {
  std::size_t begin = 0;
  std::size_t size = 0;
};

// What a pass found in a chunk, and which of the listed values are of each of its parts.
struct Found {
  Counts counts;
  Segment parts[kChunk / kPart];
};

// The listed values of all chunks, in any order; positions are in their parts.
template <class T>
struct Passed {
  std::vector<Found> chunks;
  Counts total;
  std::unique_ptr<T[]> values;
  std::unique_ptr<std::uint16_t[]> positions;
  std::vector<Segment> stretches;  // of the values, without the gaps

  bool Complete() const {
    std::size_t listed = 0;
    for (const Segment& stretch : stretches) listed += stretch.size;
    return listed == total.between;
  }
};

// Where one thread lists values: stretches of the room that are its own. If two threads wrote one line of the cache in
// turn, that would take longer than all their work where their cores do not share a cache.
class Lister {
 public:
  // Place for `count` values. Nothing if the room is used up.
  std::optional<std::size_t> Take(std::size_t count, std::size_t step, std::size_t room,
                                  std::atomic<std::size_t>* taken) {
    if (stretches_.empty() || At() + count > end_) {
      const std::size_t more = (std::max(step, count) + kLine - 1) / kLine * kLine, begin = taken->fetch_add(more);
      if (stretches_.empty() || begin != end_) stretches_.push_back({begin, 0});
      if (At() + count > room) return std::nullopt;
      end_ = std::min(begin + more, room);
    }
    const std::size_t at = At();
    stretches_.back().size += count;
    return at;
  }

  const std::vector<Segment>& stretches() const { return stretches_; }

 private:
  static constexpr std::size_t kLine = 64;  // values in whole lines of the cache, whatever their width

  std::size_t At() const { return stretches_.back().begin + stretches_.back().size; }

  std::vector<Segment> stretches_;
  std::size_t end_ = 0;  // of the last stretch with what it may still take
};

template <class T>
Chunk<T> Part(const Chunk<T>& chunk, std::size_t from, std::size_t size) {
  Chunk<T> part = chunk;
  part.values.data += from;
  part.values.eligible.data = From(chunk.values.eligible, from);
  part.values.size = size;
  part.selected.data += chunk.selected.packed ? from / 8 : from;
  part.start += from;
  return part;
}

inline void Add(const Counts& part, Counts* total) {
  total->above += part.above;
  total->within += part.within;
  total->between += part.between;
  total->at_hi += part.at_hi;
  total->nan = total->nan || part.nan;
}

// Marks what is above `mark`, a key of `range`. Lists what is inside, with or without the ends, while there is room.
template <class T>
Passed<T> Pass(const Data<T>& data, const Range<T>& range, T mark, bool ends, std::size_t room) {
  constexpr std::size_t kStretches = 8;  // of a thread: what it leaves of the last one is not used
  Passed<T> passed;
  passed.chunks.resize(data.chunks.size());
  room = std::min(room, data.size);
  // Not initialised: memory that no value comes to is never touched.
  passed.values.reset(new T[room]);
  passed.positions.reset(new std::uint16_t[room]);
  std::vector<threads::Own<Lister>> listers(data.threads);
  std::atomic<std::size_t> taken{0};
  std::atomic<bool> full{room == 0};
  data.ForEachChunk([&](unsigned worker, std::size_t i) {
    const Chunk<T>& chunk = data.chunks[i];
    T values[kPart + kSlack];
    std::uint16_t positions[kPart + kSlack];
    Found found;
    bool fits = !full.load(std::memory_order_relaxed);
    for (std::size_t from = 0; from < chunk.values.size; from += kPart) {
      const Chunk<T> part = Part(chunk, from, std::min(kPart, chunk.values.size - from));
      const List<T> list{fits ? values : nullptr, positions, ends};
      const Counts counts = Of<T>(data.kernels).partition(part.values, range, mark, part.selected, list);
      Add(counts, &found.counts);
      if (!fits) continue;
      const auto begin = listers[worker].value.Take(counts.between, room / (kStretches * data.threads), room, &taken);
      if (!begin) {
        fits = false;
        full.store(true, std::memory_order_relaxed);
        continue;
      }
      std::copy(values, values + counts.between, passed.values.get() + *begin);
      std::copy(positions, positions + counts.between, passed.positions.get() + *begin);
      found.parts[from / kPart] = {*begin, counts.between};
    }
    passed.chunks[i] = found;
  });
  for (const Found& found : passed.chunks) Add(found.counts, &passed.total);
  for (const auto& [lister] : listers) {
    passed.stretches.insert(passed.stretches.end(), lister.stretches().begin(), lister.stretches().end());
  }
  return passed;
}

template <class Of>
std::vector<std::size_t> InChunks(const std::vector<Found>& chunks, Of of) {
  std::vector<std::size_t> numbers;
  for (const Found& found : chunks) numbers.push_back(of(found.counts));
  return numbers;
}

// The first `left` of all ties, as many in each chunk; ties[i] are in chunk i.
inline std::vector<std::size_t> Quotas(std::vector<std::size_t> ties, std::size_t left) {
  for (std::size_t& n : ties) {
    n = std::min(n, left);
    left -= n;
  }
  return ties;
}

// After a pass with a bracket that ends at `hi` and holds `threshold`: marks what is above the threshold and the first
// `left` that are equal to it.
template <class T>
void MarkTies(const Data<T>& data, const std::vector<Found>& found, T hi, T threshold,
              const std::vector<std::size_t>& ties, std::size_t left) {
  const std::vector<std::size_t> quotas = Quotas(ties, left);
  const Range<T> range = data.Between(threshold, threshold);
  data.ForEachChunk([&](unsigned, std::size_t i) {
    const bool marked = found[i].counts.within == 0 || (threshold == hi && quotas[i] == 0);
    if (!marked) Of<T>(data.kernels).mark(data.chunks[i].values, range, data.chunks[i].selected, quotas[i]);
  });
}

// Marks the keys above the threshold and, if there are `above` of them, the first left(above) that are equal to it.
template <class T, class Left>
void SelectAbove(const Data<T>& data, T threshold, Left left) {
  const Passed<T> passed = Pass(data, data.Between(threshold, threshold), threshold, false, 0);
  const auto ties = InChunks(passed.chunks, [](const Counts& counts) { return counts.at_hi; });
  MarkTies(data, passed.chunks, threshold, threshold, ties, left(passed.total.above));
}

}  // namespace keras_lth::select

#endif  // KERAS_LTH_CC_SELECT_PASS_H_
