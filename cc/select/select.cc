// Selection by a bracket of keys that holds the threshold almost surely. One pass marks what is above its middle and
// lists the few values inside; the threshold is found among those. When the bracket missed, or holds too many values,
// histograms of the whole data find the threshold exactly.
#include "cc/select/select.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <iterator>
#include <limits>
#include <stdexcept>
#include <string>

#include "cc/select/guess.h"
#include "cc/select/pass.h"
#include "cc/select/rank.h"
#include "cc/threads/for_each.h"

namespace keras_lth::select {

namespace {

template <class T>
std::uint64_t BitsOf(T key, const Order& order) {
  const T value = order.largest ? key : static_cast<T>(-key);
  const T bits = value >= 0 ? value : static_cast<T>(static_cast<T>(-value) | std::numeric_limits<T>::min());
  return static_cast<std::make_unsigned_t<T>>(bits);
}

template <class T>
std::size_t CountEligible(const Data<T>& data) {
  const auto open = [](const Array& array) { return array.eligible.data == nullptr; };
  if (std::all_of(data.arrays.begin(), data.arrays.end(), open)) return data.size;
  std::atomic<std::size_t> total{0};
  data.ForEachChunk([&](unsigned, std::size_t i) {
    total += data.kernels.count(data.chunks[i].values.eligible, data.chunks[i].values.size);
  });
  return total;
}

// The rank-th largest of the listed keys.
template <class T>
T KthListed(const Data<T>& data, const Passed<T>& passed, const Range<T>& range, std::size_t rank) {
  constexpr std::size_t kFew = 4096;
  const std::size_t listed = passed.total.between;
  if (listed <= kFew) {
    std::vector<T> keys;
    for (const Segment& stretch : passed.stretches) {
      const T* values = passed.values.get() + stretch.begin;
      std::transform(values, values + stretch.size, std::back_inserter(keys),
                     [&](T x) { return KeyOf(x, range.order); });
    }
    const auto place = keys.begin() + static_cast<std::ptrdiff_t>(rank) - 1;
    std::nth_element(keys.begin(), place, keys.end(), std::greater<T>());
    return *place;
  }
  std::vector<Values<T>> pieces;
  for (const Segment& stretch : passed.stretches) {
    for (std::size_t at = 0; at < stretch.size; at += kChunk) {
      pieces.push_back({passed.values.get() + stretch.begin + at, {}, std::min(kChunk, stretch.size - at)});
    }
  }
  return Kth(data.kernels, pieces, range, rank, data.threads);
}

// Of the listed values: how many are equal to the threshold in each chunk, and how many are above it in all.
struct Ranked {
  std::vector<std::size_t> ties;
  std::size_t larger;
};

template <class T>
Ranked RankListed(const Data<T>& data, const Passed<T>& passed, T threshold) {
  Ranked ranked{std::vector<std::size_t>(passed.chunks.size(), 0), 0};
  std::atomic<std::size_t> larger{0};
  data.ForEachChunk([&](unsigned, std::size_t i) {
    std::size_t above = 0, equal = 0;
    for (const Segment& part : passed.chunks[i].parts) {
      for (std::size_t j = part.begin; j < part.begin + part.size; ++j) {
        const T key = KeyOf(passed.values[j], data.everything.order);
        above += key > threshold;
        equal += key == threshold;
      }
    }
    ranked.ties[i] = equal;
    larger += above;
  });
  ranked.larger = larger;
  return ranked;
}

// Of the listed values, marks those above the threshold and the first `left` that are equal to it; the pass marked those
// above `mark`.
template <class T>
void MarkListed(const Data<T>& data, const Passed<T>& passed, T mark, T threshold,
                const std::vector<std::size_t>& ties, std::size_t left) {
  const std::vector<std::size_t> quotas = Quotas(ties, left);
  const std::uint16_t* positions = passed.positions.get();
  data.ForEachChunk([&](unsigned, std::size_t i) {
    const Output& out = data.chunks[i].selected;
    const unsigned bits = out.packed ? 3 : 0;
    std::uint16_t wrong[kChunk];
    std::size_t quota = quotas[i], from = 0, n = 0;
    for (const Segment& part : passed.chunks[i].parts) {
      for (std::size_t j = part.begin; j < part.begin + part.size; ++j) {
        const T key = KeyOf(passed.values[j], data.everything.order);
        const bool tie = key == threshold && quota > 0;
        quota -= tie;
        wrong[n] = static_cast<std::uint16_t>(from + positions[j]);
        n += (key > mark) != (tie || key > threshold);
      }
      from += kPart;
    }
    for (std::size_t j = 0; j < n; ++j) __builtin_prefetch(out.data + (wrong[j] >> bits), 1);
    for (std::size_t j = 0; j < n; ++j) {
      std::uint8_t& byte = out.data[wrong[j] >> bits];
      byte = static_cast<std::uint8_t>(byte ^ (out.packed ? 128U >> wrong[j] % 8 : 1U));
    }
  });
}

// What one bracket led to: the selection is made, or the threshold is the rank-th key of `side`.
template <class T>
struct Outcome {
  bool made;
  std::optional<T> threshold;  // of a selection that is made; missing if the selection did not need it
  Range<T> side;
  std::size_t rank;
  bool nan = false;
};

template <class T>
Outcome<T> Try(const Data<T>& data, const Bracket<T>& bracket, std::size_t k) {
  const T lo = bracket.lo, hi = bracket.hi;
  const Range<T> range = data.Between(lo, hi);
  const Passed<T> passed = Pass(data, range, bracket.Mark(), bracket.ends, hi <= lo ? 0 : Room<T>(data.size));
  const Counts& total = passed.total;
  const auto made = [&](T threshold) { return Outcome<T>{true, threshold, range, 0}; };
  const auto missed = [&](T from, T to, std::size_t rank) {
    return Outcome<T>{false, std::nullopt, data.Between(from, to), rank};
  };
  if (total.nan) return {false, std::nullopt, range, 0, true};
  if (k <= total.above) {
    auto outcome = missed(static_cast<T>(hi + 1), data.everything.hi, k);
    outcome.made = k == total.above && bracket.Mark() == hi;
    return outcome;
  }
  const std::size_t rank = k - total.above;  // inside the bracket, if there are so many
  if (rank > total.within) return missed(data.everything.lo, static_cast<T>(lo - 1), rank - total.within);
  if (bracket.ends) {
    if (!passed.Complete()) return missed(lo, hi, rank);
    const T threshold = KthListed(data, passed, range, rank);
    const Ranked ranked = RankListed(data, passed, threshold);
    MarkListed(data, passed, bracket.Mark(), threshold, ranked.ties, rank - ranked.larger);
    return made(threshold);
  }
  if (rank <= total.at_hi) {
    const auto ties = InChunks(passed.chunks, [](const Counts& counts) { return counts.at_hi; });
    MarkTies(data, passed.chunks, hi, hi, ties, rank);
    return made(hi);
  }
  const std::size_t below_hi = rank - total.at_hi;
  if (below_hi > total.between) {
    const auto ties = InChunks(passed.chunks, [](const Counts& c) { return c.within - c.at_hi - c.between; });
    MarkTies(data, passed.chunks, hi, lo, ties, below_hi - total.between);
    return made(lo);
  }
  if (!passed.Complete()) return missed(static_cast<T>(lo + 1), static_cast<T>(hi - 1), below_hi);
  const T threshold = KthListed(data, passed, range, below_hi);
  const Ranked ranked = RankListed(data, passed, threshold);
  MarkTies(data, passed.chunks, hi, threshold, ranked.ties, below_hi - ranked.larger);
  return made(threshold);
}

template <class T>
Selection Select(const Data<T>& data, const Wanted& wanted) {
  const std::size_t k = wanted.k, eligible = CountEligible(data);
  if (k > eligible) {
    throw std::invalid_argument("k = " + std::to_string(k) + " is outside 0..." + std::to_string(eligible) +
                                ", the number of eligible values");
  }
  const Range<T>& all = data.everything;
  const auto none = static_cast<T>(all.lo - 1);
  Outcome<T> outcome{false, std::nullopt, all, k};
  if (k == 0) {
    outcome = Try(data, Bracket<T>{all.hi, all.hi, false}, k);
  } else if (k == eligible) {
    outcome = Try(data, Bracket<T>{none, none, false}, k);  // everything is above
  } else if (data.size <= kChunk) {
    outcome = Try(data, Bracket<T>{all.lo, all.hi, true}, k);
  } else {
    if (wanted.near) {
      const auto near = GuessNear(data, KeyOf(static_cast<T>(*wanted.near), all.order), k, eligible);
      if (near) outcome = Try(data, *near, k);
    }
    if (!outcome.made && !outcome.nan) outcome = Try(data, Guess(data, k, eligible), k);
  }
  if (outcome.nan) return {FirstNan(data.arrays, all.infinity), std::nullopt};
  const bool find = k > 0 && (!outcome.made || (wanted.threshold && !outcome.threshold));
  if (find) outcome.threshold = Kth(data.kernels, data.Pieces(), outcome.side, outcome.rank, data.threads);
  if (!outcome.made) SelectAbove(data, *outcome.threshold, [k](std::size_t above) { return k - std::min(k, above); });
  if (!outcome.threshold) return {};
  return {std::nullopt, BitsOf(*outcome.threshold, all.order)};
}

// Calls body with the Data of the format's integers.
template <class Body>
auto With(const std::vector<Array>& arrays, Format format, Order order, const Kernels& kernels, unsigned threads,
          Body body) {
  const std::int64_t infinity = Infinity(format);
  switch (format) {
    case Format::kFloat64:
      return body(Data<std::int64_t>(arrays, infinity, order, kernels, threads));
    case Format::kFloat32:
      return body(Data<std::int32_t>(arrays, static_cast<std::int32_t>(infinity), order, kernels, threads));
    default:
      return body(Data<std::int16_t>(arrays, static_cast<std::int16_t>(infinity), order, kernels, threads));
  }
}

}  // namespace

std::int64_t Infinity(Format format) {
  switch (format) {
    case Format::kFloat64:
      return 0x7FF0000000000000;
    case Format::kFloat32:
      return 0x7F800000;
    case Format::kFloat16:
      return 0x7C00;
    case Format::kBfloat16:
      return 0x7F80;
  }
  throw std::invalid_argument("unknown format");
}

Selection TopK(const std::vector<Array>& arrays, Format format, Order order, const Wanted& wanted,
               const Kernels& kernels, unsigned threads) {
  return With(arrays, format, order, kernels, threads, [&](const auto& data) { return Select(data, wanted); });
}

std::optional<Position> CountKeys(const std::vector<Array>& arrays, Format format, Order order, std::int64_t lo,
                                  std::int64_t hi, int shift, const Kernels& kernels, unsigned threads,
                                  std::int64_t* bins) {
  return With(arrays, format, order, kernels, threads, [&](const auto& data) -> std::optional<Position> {
    using T = decltype(data.everything.lo);
    const std::uint64_t span = static_cast<std::uint64_t>(hi) - static_cast<std::uint64_t>(lo);
    if (lo < data.everything.lo || hi > data.everything.hi || lo > hi || shift < 0 || shift > 63 ||
        (span >> shift) >= kBins) {
      throw std::invalid_argument("lo, hi, shift: these bins do not cover keys of the format");
    }
    std::vector<std::size_t> counted(kBins, 0);
    const Range<T> range = data.Between(static_cast<T>(lo), static_cast<T>(hi));
    if (CountBins(data.kernels, data.Pieces(), range, shift, data.threads, &counted)) {
      return FirstNan(data.arrays, data.everything.infinity);
    }
    std::copy(counted.begin(), counted.end(), bins);
    return std::nullopt;
  });
}

void SelectFrom(const std::vector<Array>& arrays, Format format, Order order, std::int64_t threshold, std::size_t ties,
                const Kernels& kernels, unsigned threads) {
  With(arrays, format, order, kernels, threads, [&](const auto& data) {
    using T = decltype(data.everything.lo);
    if (threshold < data.everything.lo || threshold > data.everything.hi) {
      throw std::invalid_argument("threshold is not a key of the format");
    }
    SelectAbove(data, static_cast<T>(threshold), [ties](std::size_t) { return ties; });
  });
}

}  // namespace keras_lth::select
