// Arrays cut into pieces that fit one kernel call, and exact ranks over such pieces.
#ifndef KERAS_LTH_CC_SELECT_RANK_H_
#define KERAS_LTH_CC_SELECT_RANK_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "cc/select/kernels.h"
#include "cc/select/select.h"
#include "cc/threads/for_each.h"

namespace keras_lth::select {

template <class T>
const KernelsOf<T>& Of(const Kernels& kernels) {
  if constexpr (sizeof(T) == 2) return kernels.of16;
  if constexpr (sizeof(T) == 4) return kernels.of32;
  if constexpr (sizeof(T) == 8) return kernels.of64;
}

template <class T>
struct Chunk {
  const T* values;
  const std::uint8_t* eligible;
  std::uint8_t* selected;
  std::size_t size;
  std::size_t start;  // position of the first value when all arrays are put end to end
};

template <class T>
std::vector<Chunk<T>> Split(const std::vector<Array>& arrays) {
  std::vector<Chunk<T>> chunks;
  std::size_t start = 0;
  for (const Array& array : arrays) {
    const auto* values = static_cast<const T*>(array.values);
    for (std::size_t at = 0; at < array.size; at += kChunk) {
      const std::size_t size = std::min(kChunk, array.size - at);
      chunks.push_back({values + at, array.eligible == nullptr ? nullptr : array.eligible + at, array.selected + at,
                        size, start + at});
    }
    start += array.size;
  }
  return chunks;
}

template <class T>
void CountBins(const Kernels& kernels, const std::vector<Chunk<T>>& chunks, T lo, T hi, int shift, unsigned workers,
               std::vector<std::size_t>* bins) {
  std::vector<std::vector<std::size_t>> wide(workers);
  threads::ForEach(workers, chunks.size(), [&](unsigned worker, std::size_t i) {
    std::vector<std::size_t>& mine = wide[worker];
    if (mine.empty()) mine.resize(kBins, 0);
    std::uint32_t narrow[kBins] = {};
    Of<T>(kernels).histogram(chunks[i].values, chunks[i].eligible, chunks[i].size, lo, hi, shift, narrow);
    for (std::size_t bin = 0; bin < kBins; ++bin) mine[bin] += narrow[bin];
  });
  for (const std::vector<std::size_t>& part : wide) {
    for (std::size_t bin = 0; bin < part.size(); ++bin) (*bins)[bin] += part[bin];
  }
}

// The rank-th largest eligible magnitude among those in [lo, hi], rank from 1, by histograms of ever narrower bins.
template <class T>
T Kth(const Kernels& kernels, const std::vector<Chunk<T>>& chunks, T lo, T hi, std::size_t rank, unsigned workers) {
  using Wide = std::uint64_t;
  while (lo < hi) {
    int shift = 0;
    while (((static_cast<Wide>(hi) - static_cast<Wide>(lo)) >> shift) >= kBins) ++shift;
    std::vector<std::size_t> bins(kBins, 0);
    CountBins(kernels, chunks, lo, hi, shift, workers, &bins);
    std::size_t bin = kBins - 1;
    for (; bin > 0 && rank > bins[bin]; --bin) rank -= bins[bin];
    const Wide first = static_cast<Wide>(lo) + (static_cast<Wide>(bin) << shift);
    const Wide last = first + ((Wide{1} << shift) - 1);
    lo = static_cast<T>(first);
    hi = static_cast<T>(std::min(last, static_cast<Wide>(hi)));
  }
  return lo;
}

}  // namespace keras_lth::select

#endif  // KERAS_LTH_CC_SELECT_RANK_H_
