// Selection by a bracket of keys that holds the threshold almost surely. One pass marks everything above it and lists
// the few values inside, and the threshold is found among those. When the bracket missed, or holds too many values,
// histograms of the whole data find the threshold exactly.
#include "cc/select/select.h"

#include <algorithm>
#include <atomic>
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
  threads::ForEach(data.threads, data.chunks.size(), [&](unsigned, std::size_t i) {
    total += data.kernels.count(data.chunks[i].values.eligible, data.chunks[i].values.size);
  });
  return total;
}

// The rank-th largest of the listed keys.
template <class T>
T KthListed(const Data<T>& data, const std::vector<Found<T>>& found, const Range<T>& range, std::size_t rank,
            std::size_t listed) {
  constexpr std::size_t kFew = 4096, kAlone = 32768;
  std::vector<Values<T>> pieces;
  for (const Found<T>& part : found) {
    if (!part.values.empty()) pieces.push_back({part.values.data(), {}, part.values.size()});
  }
  if (listed > kFew) return Kth(data.kernels, pieces, range, rank, listed > kAlone ? data.threads : 1);
  std::vector<T> keys;
  for (const Values<T>& piece : pieces) {
    for (std::size_t i = 0; i < piece.size; ++i) keys.push_back(KeyOf(piece.data[i], range.order));
  }
  const auto place = keys.begin() + static_cast<std::ptrdiff_t>(rank) - 1;
  std::nth_element(keys.begin(), place, keys.end(), [](T a, T b) { return a > b; });
  return *place;
}

template <class T>
std::vector<std::size_t> TiesListed(const Data<T>& data, const std::vector<Found<T>>& found, T threshold) {
  std::vector<std::size_t> ties(found.size(), 0);
  threads::ForEach(data.threads, found.size(), [&](unsigned, std::size_t i) {
    for (const T value : found[i].values) ties[i] += KeyOf(value, data.everything.order) == threshold;
  });
  return ties;
}

// Of the listed values, marks those above the threshold and the first `left` that are equal to it.
template <class T>
void MarkListed(const Data<T>& data, const std::vector<Found<T>>& found, T threshold, std::size_t left) {
  const std::vector<std::size_t> quotas = Quotas(TiesListed(data, found, threshold), left);
  threads::ForEach(data.threads, found.size(), [&](unsigned, std::size_t i) {
    const Output& out = data.chunks[i].selected;
    std::size_t quota = quotas[i];
    for (std::size_t j = 0; j < found[i].values.size(); ++j) {
      const T key = KeyOf(found[i].values[j], data.everything.order);
      if (key < threshold) continue;
      if (key == threshold) {
        if (quota == 0) continue;
        --quota;
      }
      const std::size_t at = found[i].positions[j];
      if (out.packed) {
        out.data[at / 8] = static_cast<std::uint8_t>(out.data[at / 8] | 0x80U >> at % 8);
      } else {
        out.data[at] = 1;
      }
    }
  });
}

template <class T>
std::size_t LargerListed(const std::vector<Found<T>>& found, T threshold, const Order& order) {
  std::size_t larger = 0;
  for (const Found<T>& part : found) {
    for (const T value : part.values) larger += KeyOf(value, order) > threshold;
  }
  return larger;
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
  const std::size_t room = hi <= lo ? 0 : Room<T>(data.size);
  const std::vector<Found<T>> found = Pass(data, range, bracket.ends, room);
  const Counts total = Sum(found);
  const auto made = [&](T threshold) { return Outcome<T>{true, threshold, range, 0}; };
  const auto missed = [&](T from, T to, std::size_t rank) {
    return Outcome<T>{false, std::nullopt, data.Between(from, to), rank};
  };
  const auto count = [&](auto ties_of) {
    std::vector<std::size_t> ties;
    for (const Found<T>& part : found) ties.push_back(ties_of(part.counts));
    return ties;
  };
  if (total.nan) return {false, std::nullopt, range, 0, true};
  if (k == total.above) return {true, std::nullopt, data.Between(static_cast<T>(hi + 1), data.everything.hi), k};
  if (k < total.above) return missed(static_cast<T>(hi + 1), data.everything.hi, k);
  const std::size_t rank = k - total.above;  // inside the bracket, if there are so many
  if (rank > total.within) return missed(data.everything.lo, static_cast<T>(lo - 1), rank - total.within);
  if (bracket.ends) {
    if (total.between > room) return missed(lo, hi, rank);
    const T threshold = KthListed(data, found, range, rank, total.between);
    MarkListed(data, found, threshold, rank - LargerListed(found, threshold, range.order));
    return made(threshold);
  }
  if (rank <= total.at_hi) {
    MarkTies(data, found, hi, hi, count([](const Counts& c) { return c.at_hi; }), rank);
    return made(hi);
  }
  if (rank > total.at_hi + total.between) {
    const auto at_lo = [](const Counts& c) { return c.within - c.at_hi - c.between; };
    MarkTies(data, found, hi, lo, count(at_lo), rank - total.at_hi - total.between);
    return made(lo);
  }
  if (total.between > room) return missed(static_cast<T>(lo + 1), static_cast<T>(hi - 1), rank - total.at_hi);
  const T threshold = KthListed(data, found, range, rank - total.at_hi, total.between);
  const std::size_t left = rank - total.at_hi - LargerListed(found, threshold, range.order);
  MarkTies(data, found, hi, threshold, TiesListed(data, found, threshold), left);
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
  Outcome<T> outcome{false, std::nullopt, all, k};
  if (k == 0) {
    outcome = Try(data, Bracket<T>{all.hi, all.hi, false}, k);
  } else if (k == eligible) {
    outcome = Try(data, Bracket<T>{all.lo, static_cast<T>(all.lo - 1), false}, k);  // everything is above
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
  if (!outcome.made) {
    const std::vector<Found<T>> found = Pass(data, data.Between(*outcome.threshold, *outcome.threshold), false, 0);
    std::vector<std::size_t> ties;
    for (const Found<T>& part : found) ties.push_back(part.counts.at_hi);
    MarkTies(data, found, *outcome.threshold, *outcome.threshold, ties, k - std::min(k, Sum(found).above));
  }
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
      throw std::invalid_argument("threshold is no key of the format");
    }
    SelectAbove(data, static_cast<T>(threshold), ties);
  });
}

}  // namespace keras_lth::select
