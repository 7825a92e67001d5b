// Selection by a sampled bracket. About n^(2/3) samples give a narrow interval [lo, hi] that holds the threshold almost
// surely. One pass then marks everything above hi and lists the few values inside, and the threshold is found among
// those. When the interval missed, or holds too many values, histograms of the whole data find the threshold exactly.
#include "cc/select/select.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <stdexcept>
#include <string>

#include "cc/select/rank.h"
#include "cc/threads/for_each.h"

namespace keras_lth::select {

namespace {

constexpr std::size_t kChunksPerThread = 8;  // below this starting a thread costs more than it saves
constexpr double kDeviations = 6.0;          // half width of the bracket, in standard deviations of a sample's rank

template <class T>
struct Bracket {
  T lo, hi;
};

// What one pass found in a chunk; the lists are empty when there was no room for them.
template <class T>
struct Found {
  Counts counts{0, 0, false};
  std::vector<T> values;
  std::vector<std::uint32_t> indices;
};

std::uint64_t Scramble(std::uint64_t x) {  // splitmix64
  x += 0x9E3779B97F4A7C15U;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
  return x ^ (x >> 31);
}

template <class T>
class Selector {
 public:
  Selector(const std::vector<Array>& arrays, T infinity, const Kernels& kernels, unsigned threads)
      : arrays_(arrays), infinity_(infinity), kernels_(kernels), of_(Of<T>(kernels)), chunks_(Split<T>(arrays)) {
    for (const Chunk<T>& chunk : chunks_) size_ += chunk.size;
    const std::size_t useful = std::max<std::size_t>(1, chunks_.size() / kChunksPerThread);
    threads_ = threads != 0 ? threads
                            : static_cast<unsigned>(std::min<std::size_t>(threads::Available(), useful));
  }

  std::optional<Position> Run(std::size_t k) {
    const std::size_t eligible = CountEligible();
    if (k > eligible) {
      throw std::invalid_argument("k = " + std::to_string(k) + " is outside 0..." + std::to_string(eligible) +
                                  ", the number of eligible values");
    }
    const Bracket<T> bracket = Guess(k, eligible);
    const std::vector<Found<T>> found = Pass(bracket, RoomFor());
    Counts total = Sum(found);
    if (total.nan) return FirstNan();
    const bool hit = total.above <= k && k <= total.above + total.within;
    if (hit && total.above == k) return std::nullopt;
    if (hit && bracket.lo == bracket.hi) {
      MarkTies(found, bracket.lo, k - total.above);
      return std::nullopt;
    }
    if (hit && total.within <= RoomFor()) {
      Settle(found, bracket, k - total.above);
      return std::nullopt;
    }
    Bracket<T> side = bracket;  // where the threshold is
    std::size_t rank = k - total.above;
    if (k < total.above) {
      side = {static_cast<T>(bracket.hi + 1), infinity_};
      rank = k;
    } else if (!hit) {
      side = {T{0}, static_cast<T>(bracket.lo - 1)};
      rank = k - total.above - total.within;
    }
    const T threshold = Kth(kernels_, chunks_, side.lo, side.hi, rank, threads_);
    const std::vector<Found<T>> exact = Pass({threshold, threshold}, 0);
    MarkTies(exact, threshold, k - std::min(k, Sum(exact).above));
    return std::nullopt;
  }

 private:
  // Values that may be listed: a small share of the data, so that memory stays bounded on adversarial input.
  std::size_t RoomFor() const { return std::max(kChunk, size_ / 16); }

  std::size_t CountEligible() const {
    std::vector<std::size_t> counts(chunks_.size());
    const auto count = [&](unsigned, std::size_t i) {
      const Chunk<T>& chunk = chunks_[i];
      counts[i] = chunk.eligible == nullptr ? chunk.size : kernels_.count(chunk.eligible, chunk.size);
    };
    const bool all = std::all_of(arrays_.begin(), arrays_.end(), [](const Array& a) { return a.eligible == nullptr; });
    if (all) return size_;
    threads::ForEach(threads_, chunks_.size(), count);
    std::size_t total = 0;
    for (const std::size_t n : counts) total += n;
    return total;
  }

  // One eligible value, at most, from each of n / stride equal stretches of the data.
  std::vector<T> Sample() const {
    const auto stride = static_cast<std::size_t>(std::cbrt(static_cast<double>(size_)));
    std::vector<std::vector<T>> parts(chunks_.size());
    threads::ForEach(threads_, chunks_.size(), [&](unsigned, std::size_t i) {
      const Chunk<T>& chunk = chunks_[i];
      parts[i].reserve(chunk.size / stride + 2);
      for (std::size_t stretch = chunk.start / stride; stretch * stride < chunk.start + chunk.size; ++stretch) {
        const std::size_t at = stretch * stride + Scramble(stretch) % stride - chunk.start;
        if (at >= chunk.size) continue;  // before the chunk, where it wraps round, or after it
        if (chunk.eligible != nullptr && chunk.eligible[at] == 0) continue;
        parts[i].push_back(static_cast<T>(chunk.values[at] & kMagnitude<T>));
      }
    });
    std::vector<T> sample;
    for (const std::vector<T>& part : parts) sample.insert(sample.end(), part.begin(), part.end());
    return sample;
  }

  Bracket<T> Guess(std::size_t k, std::size_t eligible) const {
    if (k == 0) return {infinity_, infinity_};
    if (k == eligible) return {T{0}, T{-1}};  // everything eligible is above -1
    if (size_ <= kChunk) return {T{0}, infinity_};
    const std::vector<T> sample = Sample();
    const double share = static_cast<double>(k) / static_cast<double>(eligible);
    const auto n = static_cast<double>(sample.size());
    const double reach = kDeviations * std::sqrt(n * share * (1.0 - share)) + 2.0;
    const double first = std::floor(n * share - reach), last = std::ceil(n * share + reach);
    const std::vector<Chunk<T>> all = {{sample.data(), nullptr, nullptr, sample.size(), 0}};
    const auto at_rank = [&](double rank) {
      return std::min(infinity_, Kth(kernels_, all, T{0}, kMagnitude<T>, static_cast<std::size_t>(rank), 1));
    };
    Bracket<T> bracket{T{0}, infinity_};
    if (first >= 1.0) bracket.hi = at_rank(first);
    if (last <= n) bracket.lo = at_rank(last);
    return bracket;
  }

  // Marks what is above the bracket and lists what is inside, as long as there is room.
  std::vector<Found<T>> Pass(Bracket<T> bracket, std::size_t room) const {
    std::vector<Found<T>> found(chunks_.size());
    std::vector<std::vector<T>> values(threads_);
    std::vector<std::vector<std::uint32_t>> indices(threads_);
    std::atomic<std::size_t> listed{bracket.lo == bracket.hi ? room + 1 : 0};  // all ties: counts are enough
    threads::ForEach(threads_, chunks_.size(), [&](unsigned worker, std::size_t i) {
      const Chunk<T>& chunk = chunks_[i];
      const bool list = listed.load() <= room;
      if (list && indices[worker].empty()) {
        values[worker].resize(std::min(kChunk, size_));
        indices[worker].resize(std::min(kChunk, size_));
      }
      Counts& counts = found[i].counts;
      counts = of_.partition(chunk.values, chunk.eligible, chunk.selected, chunk.size, bracket.lo, bracket.hi,
                             infinity_, list ? values[worker].data() : nullptr,
                             list ? indices[worker].data() : nullptr);
      if (!list || listed.fetch_add(counts.within) + counts.within > room) return;
      const auto end = static_cast<std::ptrdiff_t>(counts.within);
      found[i].values.assign(values[worker].begin(), values[worker].begin() + end);
      found[i].indices.assign(indices[worker].begin(), indices[worker].begin() + end);
    });
    return found;
  }

  static Counts Sum(const std::vector<Found<T>>& found) {
    Counts total{0, 0, false};
    for (const Found<T>& part : found) {
      total.above += part.counts.above;
      total.within += part.counts.within;
      total.nan = total.nan || part.counts.nan;
    }
    return total;
  }

  // Of the listed values, selects the `need` largest.
  void Settle(const std::vector<Found<T>>& found, Bracket<T> bracket, std::size_t need) const {
    std::vector<T> joined;
    for (const Found<T>& part : found) joined.insert(joined.end(), part.values.begin(), part.values.end());
    const std::vector<Chunk<T>> all = {{joined.data(), nullptr, nullptr, joined.size(), 0}};
    const T threshold = Kth(kernels_, all, bracket.lo, bracket.hi, need, 1);
    const auto is_larger = [threshold](T value) { return value > threshold; };
    const auto larger = static_cast<std::size_t>(std::count_if(joined.begin(), joined.end(), is_larger));
    std::size_t left = need - std::min(need, larger);
    for (std::size_t i = 0; i < found.size(); ++i) {
      std::uint8_t* selected = chunks_[i].selected;
      for (std::size_t j = 0; j < found[i].values.size(); ++j) {
        const bool tie = found[i].values[j] == threshold && left > 0;
        left -= tie;
        selected[found[i].indices[j]] = static_cast<std::uint8_t>(found[i].values[j] > threshold || tie);
      }
    }
  }

  // After a pass with the threshold as both ends of the bracket: selects the first `left` values equal to it.
  void MarkTies(const std::vector<Found<T>>& found, T threshold, std::size_t left) const {
    std::vector<std::size_t> quotas(found.size(), 0);
    for (std::size_t i = 0; i < found.size(); ++i) {
      quotas[i] = std::min(left, found[i].counts.within);
      left -= quotas[i];
    }
    threads::ForEach(threads_, chunks_.size(), [&](unsigned, std::size_t i) {
      const Chunk<T>& chunk = chunks_[i];
      if (quotas[i] == 0) return;
      of_.mark(chunk.values, chunk.eligible, chunk.selected, chunk.size, threshold, infinity_, quotas[i]);
    });
  }

  Position FirstNan() const {
    for (std::size_t array = 0; array < arrays_.size(); ++array) {
      const auto* values = static_cast<const T*>(arrays_[array].values);
      for (std::size_t i = 0; i < arrays_[array].size; ++i) {
        if ((values[i] & kMagnitude<T>) > infinity_) return {array, i};
      }
    }
    throw std::runtime_error("the values changed while they were read");
  }

  const std::vector<Array>& arrays_;
  const T infinity_;
  const Kernels& kernels_;
  const KernelsOf<T>& of_;
  const std::vector<Chunk<T>> chunks_;
  std::size_t size_ = 0;
  unsigned threads_ = 1;
};

}  // namespace

std::optional<Position> TopK(const std::vector<Array>& arrays, Format format, std::size_t k, const Kernels& kernels,
                             unsigned threads) {
  switch (format) {
    case Format::kFloat64:
      return Selector<std::int64_t>(arrays, 0x7FF0000000000000, kernels, threads).Run(k);
    case Format::kFloat32:
      return Selector<std::int32_t>(arrays, 0x7F800000, kernels, threads).Run(k);
    case Format::kFloat16:
      return Selector<std::int16_t>(arrays, 0x7C00, kernels, threads).Run(k);
    case Format::kBfloat16:
      return Selector<std::int16_t>(arrays, 0x7F80, kernels, threads).Run(k);
  }
  throw std::invalid_argument("unknown format");
}

}  // namespace keras_lth::select
