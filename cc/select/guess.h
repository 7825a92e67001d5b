// Where the threshold probably is, from a sample of the data.
#ifndef KERAS_LTH_CC_SELECT_GUESS_H_
#define KERAS_LTH_CC_SELECT_GUESS_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "cc/select/kernels.h"
#include "cc/select/pass.h"
#include "cc/select/rank.h"
#include "cc/threads/shares.h"

namespace keras_lth::select {

template <class T>
struct Bracket {
  T lo, hi;   // lo <= hi
  bool ends;  // few enough values are expected that those equal to lo and hi can be listed too

  // Above it values are marked at first: a mark that turns out right need not be fetched again.
  T Mark() const {
    using Wide = std::uint64_t;
    return ends ? static_cast<T>(static_cast<Wide>(lo) + (static_cast<Wide>(hi) - static_cast<Wide>(lo)) / 2) : hi;
  }
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

// Values, as far as they are eligible, `kBeside` neighbours from each of equal stretches of the data: one in `stride`.
// Two cost one wait for memory; more of them would say less in data that are sorted.
template <class T>
class Sample {
 public:
  Sample(const Data<T>& data, std::size_t stride) : data_(data), parts_(data.threads) {
    data.ForEachChunk([&](unsigned worker, std::size_t i) {
      Draw(data.chunks[i], kBeside * stride, &parts_[worker].value);
    });
    for (const auto& [part] : parts_) {
      size_ += part.size();
      for (std::size_t at = 0; at < part.size(); at += kChunk) {
        pieces_.push_back({part.data() + at, {}, std::min(kChunk, part.size() - at)});
      }
    }
  }

  std::size_t size() const { return size_; }

  // The rank-th largest key, from 1. One thread: waking another would take as long.
  T At(double rank) const {
    return Kth(data_.kernels, pieces_, data_.everything, static_cast<std::size_t>(rank), 1);
  }

  // Keys above and within.
  Counts Count(T lo, T hi) const {
    std::uint8_t marks[kChunk / 8];
    Counts counts;
    for (const Values<T>& piece : pieces_) {
      Add(Of<T>(data_.kernels).partition(piece, data_.Between(lo, hi), hi, {marks, true}, {}), &counts);
    }
    return counts;
  }

 private:
  static constexpr std::size_t kBeside = 2;

  static void Draw(const Chunk<T>& chunk, std::size_t stride, std::vector<T>* sampled) {
    constexpr std::size_t kAhead = 64;  // positions that are fetched together: memory answers slowly, but many at once
    const Flags& eligible = chunk.values.eligible;
    const std::size_t end = chunk.start + chunk.values.size;
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
          sampled->push_back(chunk.values.data[at]);
        }
      }
    }
  }

  const Data<T>& data_;
  std::vector<threads::Own<std::vector<T>>> parts_;
  std::vector<Values<T>> pieces_;
  std::size_t size_ = 0;
};

// The bracket from the first-th to the last-th largest of the sample. A rank outside the sample stands for the end of
// all keys.
template <class T>
Bracket<T> Around(const Data<T>& data, const Sample<T>& sample, double first, double last, std::size_t eligible) {
  Bracket<T> bracket{data.everything.lo, data.everything.hi, true};
  const auto n = static_cast<double>(sample.size());
  if (first >= 1.0 && first <= n) bracket.hi = sample.At(first);
  if (last >= 1.0 && last <= n) bracket.lo = sample.At(last);
  const auto inside = static_cast<double>(sample.Count(bracket.lo, bracket.hi).within);
  const double expected = inside / std::max(n, 1.0) * static_cast<double>(eligible);
  bracket.ends = bracket.lo < bracket.hi && expected < 0.9 * static_cast<double>(Room<T>(data.size));
  return bracket;
}

// About n^(2/3) samples give an interval that holds the threshold almost surely and 1 % of 25 million values.
template <class T>
std::size_t Stride(const Data<T>& data) {
  return std::max<std::size_t>(1, static_cast<std::size_t>(std::cbrt(static_cast<double>(data.size))));
}

template <class T>
Bracket<T> Guess(const Data<T>& data, std::size_t k, std::size_t eligible) {
  constexpr double kDeviations = 3.5;  // half width of the bracket, in standard deviations of a sample's rank
  const Sample<T> sample(data, Stride(data));
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
  const Sample<T> sample(data, std::max<std::size_t>(1, data.size / kSample));
  const auto n = static_cast<double>(sample.size());
  const double share = static_cast<double>(k) / static_cast<double>(eligible), wide = kHalf * n;
  const Counts counts = sample.Count(near, near);
  const auto above = static_cast<double>(counts.above), equal = static_cast<double>(counts.within);
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
