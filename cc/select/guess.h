// Where the threshold probably is, from a sample of the data.
#ifndef KERAS_LTH_CC_SELECT_GUESS_H_
#define KERAS_LTH_CC_SELECT_GUESS_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "cc/select/kernels.h"
#include "cc/select/pass.h"
#include "cc/select/rank.h"
#include "cc/threads/for_each.h"

namespace keras_lth::select {

template <class T>
struct Bracket {
  T lo, hi;
  bool ends;  // few enough values are expected that those equal to lo and hi can be listed too
};

// Values that may be listed, with their positions: at most 2.4 % of the bytes of the data.
template <class T>
std::size_t Room(std::size_t size) {
  return std::max(kChunk, size / 125 * 3 / (sizeof(T) + sizeof(std::uint16_t)) * sizeof(T));
}

inline std::uint64_t Scramble(std::uint64_t x) {  // splitmix64
  x += 0x9E3779B97F4A7C15U;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
  return x ^ (x >> 31);
}

// The keys of `kBeside` neighbours, as far as they are eligible, from equal stretches of the data: one in `stride`. Two
// cost one wait for memory; more of them would say less in data that are sorted.
template <class T>
std::vector<T> Sample(const Data<T>& data, std::size_t stride) {
  constexpr std::size_t kBeside = 2;
  constexpr std::size_t kAhead = 64;  // positions that are fetched together: memory answers slowly, but many at once
  stride *= kBeside;
  std::vector<std::vector<T>> parts(data.chunks.size());
  threads::ForEach(data.threads, data.chunks.size(), [&](unsigned, std::size_t i) {
    const Chunk<T>& chunk = data.chunks[i];
    const Flags& eligible = chunk.values.eligible;
    const std::size_t end = chunk.start + chunk.values.size;
    // Not in place: the sizes of neighbouring parts share a line of the cache, which two threads would write in turn.
    std::vector<T> keys;
    keys.reserve((chunk.values.size / stride + 2) * kBeside);
    std::size_t places[kAhead];
    for (std::size_t stretch = chunk.start / stride; stretch * stride < end;) {
      std::size_t n = 0;
      for (; n < kAhead && stretch * stride < end; ++stretch) {
        // The high half of a product is below the stride, as a remainder is, but costs no division.
        const std::uint64_t offset = (Scramble(stretch) >> 32) * stride >> 32;
        places[n] = stretch * stride + offset - chunk.start;
        // Before the chunk, where it wraps round, or after it.
        if (places[n] >= chunk.values.size) continue;
        places[n] -= places[n] % kBeside;
        __builtin_prefetch(chunk.values.data + places[n]);
        if (eligible.data != nullptr) __builtin_prefetch(eligible.data + places[n] / (eligible.packed ? 8 : 1));
        ++n;
      }
      for (std::size_t j = 0; j < n; ++j) {
        const std::size_t beyond = std::min(places[j] + kBeside, chunk.values.size);
        for (std::size_t at = places[j]; at < beyond; ++at) {
          if (eligible.data != nullptr) {
            const int open = eligible.packed ? eligible.data[at / 8] >> (7 - at % 8) & 1 : eligible.data[at];
            if (open == 0) continue;
          }
          keys.push_back(KeyOf(chunk.values.data[at], data.everything.order));
        }
      }
    }
    parts[i] = std::move(keys);
  });
  std::vector<T> sample;
  for (const std::vector<T>& part : parts) sample.insert(sample.end(), part.begin(), part.end());
  return sample;
}

// The first-th and the last-th largest keys, first <= last, ranks from 1.
template <class T>
std::pair<T, T> AtRanks(const std::vector<T>& keys, const Range<T>& all, std::size_t first, std::size_t last) {
  using Wide = std::uint64_t;
  // NaNs may be beyond all keys; the pass will find them.
  const auto clamped = [&](T key) { return std::clamp(key, all.lo, all.hi); };
  const Wide lo = static_cast<Wide>(all.lo), span = static_cast<Wide>(all.hi) - lo;
  int shift = 0;
  while ((span >> shift) >= kBins) ++shift;
  const auto bin_of = [&](T key) { return static_cast<std::size_t>((static_cast<Wide>(clamped(key)) - lo) >> shift); };
  std::vector<std::size_t> bins(kBins, 0);
  for (const T key : keys) ++bins[bin_of(key)];
  std::size_t high = kBins - 1, above = 0;
  for (; above + bins[high] < first; --high) above += bins[high];
  std::size_t low = high, reached = above;
  for (; reached + bins[low] < last; --low) reached += bins[low];
  std::vector<T> middle;
  for (const T key : keys) {
    if (low <= bin_of(key) && bin_of(key) <= high) middle.push_back(clamped(key));
  }
  const auto larger = [](T a, T b) { return a > b; };
  const auto from = middle.begin() + static_cast<std::ptrdiff_t>(first - above - 1);
  const auto to = middle.begin() + static_cast<std::ptrdiff_t>(last - above - 1);
  std::nth_element(middle.begin(), to, middle.end(), larger);
  const T lowest = *to;
  std::nth_element(middle.begin(), from, to, larger);
  return {*from, lowest};
}

// The bracket from the first-th to the last-th largest of the sample. A rank outside the sample stands for the end of
// all keys.
template <class T>
Bracket<T> Around(const Data<T>& data, const std::vector<T>& sample, double first, double last, std::size_t eligible) {
  const Range<T>& all = data.everything;
  Bracket<T> bracket{all.lo, all.hi, true};
  const auto n = static_cast<double>(sample.size());
  const double inner_first = std::clamp(first, 1.0, n), inner_last = std::clamp(last, 1.0, n);
  if (!sample.empty()) {
    const auto [hi, lo] = AtRanks(sample, all, static_cast<std::size_t>(inner_first),
                                  static_cast<std::size_t>(inner_last));
    if (first >= 1.0) bracket.hi = hi;
    if (last <= n) bracket.lo = lo;
  }
  const auto inside = std::count_if(sample.begin(), sample.end(),
                                    [&](T key) { return bracket.lo <= key && key <= bracket.hi; });
  const double expected = static_cast<double>(inside) / std::max(n, 1.0) * static_cast<double>(eligible);
  bracket.ends = bracket.lo < bracket.hi && expected < 0.9 * static_cast<double>(Room<T>(data.size));
  return bracket;
}

// About n^(2/3) samples give an interval that holds the threshold almost surely and 1 % of 25 million values.
template <class T>
Bracket<T> Guess(const Data<T>& data, std::size_t k, std::size_t eligible) {
  constexpr double kDeviations = 3.5;  // half width of the bracket, in standard deviations of a sample's rank
  const auto stride = static_cast<std::size_t>(std::cbrt(static_cast<double>(data.size)));
  const std::vector<T> sample = Sample(data, stride);
  const double share = static_cast<double>(k) / static_cast<double>(eligible);
  const auto n = static_cast<double>(sample.size());
  const double reach = kDeviations * std::sqrt(n * share * (1.0 - share)) + 2.0;
  return Around(data, sample, std::floor(n * share - reach), std::ceil(n * share + reach), eligible);
}

// About 1 % of the values around `near`, by a small sample; nothing if the sample says that the threshold is elsewhere.
template <class T>
std::optional<Bracket<T>> GuessNear(const Data<T>& data, T near, std::size_t k, std::size_t eligible) {
  constexpr std::size_t kSample = 4096;
  constexpr double kDeviations = 4.0, kHalf = 0.005;
  if (near < data.everything.lo || near > data.everything.hi) return std::nullopt;
  const std::vector<T> sample = Sample(data, std::max<std::size_t>(1, data.size / kSample));
  const auto n = static_cast<double>(sample.size());
  const double share = static_cast<double>(k) / static_cast<double>(eligible), wide = kHalf * n;
  const auto above = static_cast<double>(std::count_if(sample.begin(), sample.end(), [&](T x) { return x > near; }));
  const auto equal = static_cast<double>(std::count(sample.begin(), sample.end(), near));
  const double reach = kDeviations * std::sqrt(n * share * (1.0 - share)) + wide;
  if (share * n < above - reach || share * n > above + equal + reach) return std::nullopt;
  if (equal > 2.0 * wide) return Bracket<T>{near, near, false};
  Bracket<T> bracket = Around(data, sample, std::floor(above - wide), std::ceil(above + equal + wide), eligible);
  bracket.lo = std::min(bracket.lo, near);
  bracket.hi = std::max(bracket.hi, near);
  return bracket;
}

}  // namespace keras_lth::select

#endif  // KERAS_LTH_CC_SELECT_GUESS_H_
