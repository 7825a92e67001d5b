// One pass over the data: marks what is above a bracket of keys and counts, or lists, what is inside it.
#ifndef KERAS_LTH_CC_SELECT_PASS_H_
#define KERAS_LTH_CC_SELECT_PASS_H_

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "cc/select/kernels.h"
#include "cc/select/rank.h"
#include "cc/select/select.h"
#include "cc/threads/for_each.h"

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
  }

  Range<T> Between(T lo, T hi) const { return {lo, hi, everything.infinity, everything.order}; }

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

// What a pass found in a chunk; the lists are empty where there was no room for them.
template <class T>
struct Found {
  Counts counts;
  std::vector<T> values;
  std::vector<std::uint16_t> positions;
};

// Marks what is above `range` and lists what is inside, with or without the ends, until there are more than `room`.
template <class T>
std::vector<Found<T>> Pass(const Data<T>& data, const Range<T>& range, bool ends, std::size_t room) {
  std::vector<Found<T>> found(data.chunks.size());
  std::vector<std::vector<T>> values(data.threads);
  std::vector<std::vector<std::uint16_t>> positions(data.threads);
  std::atomic<std::size_t> listed{0};
  threads::ForEach(data.threads, data.chunks.size(), [&](unsigned worker, std::size_t i) {
    const Chunk<T>& chunk = data.chunks[i];
    List<T> list;
    list.ends = ends;
    const bool fits = room > 0 && listed.load() <= room;
    if (fits) {
      values[worker].resize(std::min(kChunk, data.size));
      positions[worker].resize(std::min(kChunk, data.size));
      list.values = values[worker].data();
      list.positions = positions[worker].data();
    }
    Counts& counts = found[i].counts;
    counts = Of<T>(data.kernels).partition(chunk.values, range, chunk.selected, list);
    if (!fits || listed.fetch_add(counts.between) + counts.between > room) return;
    found[i].values.assign(list.values, list.values + counts.between);
    found[i].positions.assign(list.positions, list.positions + counts.between);
  });
  return found;
}

template <class T>
Counts Sum(const std::vector<Found<T>>& found) {
  Counts total;
  for (const Found<T>& part : found) {
    total.above += part.counts.above;
    total.within += part.counts.within;
    total.between += part.counts.between;
    total.at_hi += part.counts.at_hi;
    total.nan = total.nan || part.counts.nan;
  }
  return total;
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
void MarkTies(const Data<T>& data, const std::vector<Found<T>>& found, T hi, T threshold,
              const std::vector<std::size_t>& ties, std::size_t left) {
  const std::vector<std::size_t> quotas = Quotas(ties, left);
  const Range<T> range = data.Between(threshold, threshold);
  threads::ForEach(data.threads, data.chunks.size(), [&](unsigned, std::size_t i) {
    const bool marked = found[i].counts.within == 0 || (threshold == hi && quotas[i] == 0);
    if (!marked) Of<T>(data.kernels).mark(data.chunks[i].values, range, data.chunks[i].selected, quotas[i]);
  });
}

// The same from the data alone, in two passes.
template <class T>
void SelectAbove(const Data<T>& data, T threshold, std::size_t ties) {
  const std::vector<Found<T>> found = Pass(data, data.Between(threshold, threshold), false, 0);
  std::vector<std::size_t> equal;
  for (const Found<T>& part : found) equal.push_back(part.counts.at_hi);
  MarkTies(data, found, threshold, threshold, equal, ties);
}

}  // namespace keras_lth::select

#endif  // KERAS_LTH_CC_SELECT_PASS_H_
