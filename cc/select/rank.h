// Arrays cut into pieces that fit one kernel call, and exact ranks over such pieces.
#ifndef KERAS_LTH_CC_SELECT_RANK_H_
#define KERAS_LTH_CC_SELECT_RANK_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <utility>
#include <vector>

#include "cc/select/kernels.h"
#include "cc/select/select.h"
#include "cc/threads/for_each.h"
#include "cc/threads/shares.h"

namespace keras_lth::select {

template <class T>
const KernelsOf<T>& Of(const Kernels& kernels) {
  if constexpr (sizeof(T) == 2) return kernels.of16;
  if constexpr (sizeof(T) == 4) return kernels.of32;
  if constexpr (sizeof(T) == 8) return kernels.of64;
}

template <class T>
T KeyOf(T x, const Order& order) {
  const T magnitude = static_cast<T>(x & kMagnitude<T>);
  return ((order.by_value && x < 0) == order.largest) ? static_cast<T>(-magnitude) : magnitude;
}

// All keys of numbers are in it.
template <class T>
Range<T> Everything(T infinity, const Order& order) {
  const bool negative = order.by_value || !order.largest, positive = order.by_value || order.largest;
  return {negative ? static_cast<T>(-infinity) : T{0}, positive ? infinity : T{0}, infinity, order};
}

template <class T>
struct Chunk {
  Values<T> values;
  Output selected;
  std::size_t start;  // position of the first value when all arrays are put end to end
};

inline const std::uint8_t* From(const Flags& flags, std::size_t at) {
  return flags.data == nullptr ? nullptr : flags.data + (flags.packed ? at / 8 : at);
}

template <class T>
std::vector<Chunk<T>> Split(const std::vector<Array>& arrays) {
  std::vector<Chunk<T>> chunks;
  std::size_t start = 0;
  for (const Array& array : arrays) {
    const auto* values = static_cast<const T*>(array.values);
    for (std::size_t at = 0; at < array.size; at += kChunk) {
      const std::size_t size = std::min(kChunk, array.size - at);
      std::uint8_t* selected = array.selected.data;
      if (selected != nullptr) selected += array.selected.packed ? at / 8 : at;
      chunks.push_back({{values + at, {From(array.eligible, at), array.eligible.packed}, size},
                        {selected, array.selected.packed},
                        start + at});
    }
    start += array.size;
  }
  return chunks;
}

template <class T>
Position FirstNan(const std::vector<Array>& arrays, T infinity) {
  for (std::size_t array = 0; array < arrays.size(); ++array) {
    const auto* values = static_cast<const T*>(arrays[array].values);
    for (std::size_t i = 0; i < arrays[array].size; ++i) {
      if ((values[i] & kMagnitude<T>) > infinity) return {array, i};
    }
  }
  throw std::runtime_error("the values changed while they were read");
}

// Adds the bins of all pieces; true if there is a NaN.
template <class T>
bool CountBins(const Kernels& kernels, const std::vector<Values<T>>& pieces, const Range<T>& range, int shift,
               unsigned workers, std::vector<std::size_t>* bins) {
  constexpr std::size_t kMost = std::size_t{1} << 31;  // values counted in 32 bits
  struct Mine {
    std::vector<std::uint32_t> narrow;
    std::vector<std::size_t> wide;
    std::size_t counted = 0;
    bool nan = false;
    void Flush() {
      for (std::size_t bin = 0; bin < narrow.size(); ++bin) wide[bin] += std::exchange(narrow[bin], 0U);
      counted = 0;
    }
  };
  std::vector<threads::Own<Mine>> all(workers);
  threads::ForEach(workers, pieces.size(), [&](unsigned worker, std::size_t i) {
    Mine& mine = all[worker].value;
    mine.narrow.resize(kBins, 0);
    mine.wide.resize(kBins, 0);
    if (mine.counted + pieces[i].size > kMost) mine.Flush();
    mine.counted += pieces[i].size;
    mine.nan |= Of<T>(kernels).histogram(pieces[i], range, shift, mine.narrow.data());
  });
  bool nan = false;
  for (auto& [mine] : all) {
    mine.Flush();
    nan |= mine.nan;
    for (std::size_t bin = 0; bin < mine.wide.size(); ++bin) (*bins)[bin] += mine.wide[bin];
  }
  return nan;
}

// The rank-th largest eligible key among those in [range.lo, range.hi], rank from 1, by histograms of ever narrower
// bins.
template <class T>
T Kth(const Kernels& kernels, const std::vector<Values<T>>& pieces, Range<T> range, std::size_t rank,
      unsigned workers) {
  using Wide = std::uint64_t;
  while (range.lo < range.hi) {
    const Wide lo = static_cast<Wide>(range.lo), span = static_cast<Wide>(range.hi) - lo;
    int shift = 0;
    while ((span >> shift) >= kBins) ++shift;
    std::vector<std::size_t> bins(kBins, 0);
    CountBins(kernels, pieces, range, shift, workers, &bins);
    std::size_t bin = kBins - 1;
    for (; bin > 0 && rank > bins[bin]; --bin) rank -= bins[bin];
    const Wide first = static_cast<Wide>(bin) << shift;
    range.hi = static_cast<T>(lo + std::min(first + ((Wide{1} << shift) - 1), span));
    range.lo = static_cast<T>(lo + first);
  }
  return range.lo;
}

}  // namespace keras_lth::select

#endif  // KERAS_LTH_CC_SELECT_RANK_H_
