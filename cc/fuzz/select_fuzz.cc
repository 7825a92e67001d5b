// Selection over arrays, at once and by shards, against a stable sort of the numbers.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "cc/fuzz/fuzz.h"
#include "cc/fuzz/scores.h"
#include "cc/select/kernels.h"
#include "cc/select/select.h"

namespace keras_lth::fuzz {

namespace {

// Several arrays of one format, and their eligible values in the order in which they are selected.
struct Problem {
  select::Format format;
  select::Order order;
  std::vector<Scores> arrays;
  struct Ranked {
    double rank;
    std::size_t array, index;
  };
  std::vector<Ranked> ranked;
  std::optional<select::Position> nan;

  explicit Problem(Bytes* bytes) : format(Format(bytes)), order(Order(bytes)) {
    for (std::int64_t count = bytes->Between(0, 4); count > 0; --count) {
      arrays.push_back(MakeScores(bytes, format, Size(bytes), true));
      const Scores& scores = arrays.back();
      if (scores.nan && !nan) nan = {arrays.size() - 1, *scores.nan};
      for (std::size_t i = 0; i < scores.size(); ++i) {
        if (scores.Eligible(i)) ranked.push_back({Rank(scores.numbers[i], order), arrays.size() - 1, i});
      }
    }
    // A NaN has no rank; it makes the selection undefined.
    const auto first = [](const Ranked& a, const Ranked& b) { return a.rank > b.rank; };
    if (!nan) std::stable_sort(ranked.begin(), ranked.end(), first);
  }

  std::vector<select::Array> Views(std::size_t begin, std::size_t end) {
    std::vector<select::Array> views;
    for (std::size_t i = begin; i < end; ++i) views.push_back(arrays[i].View());
    return views;
  }

  std::size_t K(Bytes* bytes) const {
    const std::size_t most = ranked.size();
    switch (bytes->Between(0, 7)) {
      case 0: return 0;
      case 1: return most;
      case 2: return std::min<std::size_t>(most, 1);
      default: return bytes->Word(4) % (most + 1);
    }
  }

  void ExpectFirst(std::size_t k, const std::string& name) const {
    std::vector<std::vector<bool>> expected;
    for (const Scores& scores : arrays) expected.emplace_back(scores.size(), false);
    for (std::size_t i = 0; i < k; ++i) expected[ranked[i].array][ranked[i].index] = true;
    for (std::size_t array = 0; array < arrays.size(); ++array) {
      const Booleans& got = arrays[array].selected;
      for (std::size_t i = 0; i < got.size; ++i) {
        if (got.Get(i) != expected[array][i] || (!got.packed && got.data[i] > 1)) {
          Wrong(name + ": array " + std::to_string(array) + ", index " + std::to_string(i));
        }
      }
      for (std::size_t bit = got.size; got.packed && bit < 8 * got.data.size(); ++bit) {
        Expect(!got.Get(bit), name + ": a bit after the last");
      }
    }
  }
};

}  // namespace

Outcome Select(Bytes* bytes) {
  Problem problem(bytes);
  const std::size_t eligible = problem.ranked.size();
  select::Wanted wanted{problem.K(bytes)};
  if (bytes->Chance(30)) wanted.k = eligible + 1 + bytes->Word(8) % (SIZE_MAX - eligible);
  wanted.threshold = bytes->Chance(100);
  if (bytes->Chance(60)) wanted.near = bytes->Word(8);
  if (bytes->Chance(60) && eligible > 0) {
    const Problem::Ranked& some = problem.ranked[bytes->Word(4) % eligible];
    wanted.near = problem.arrays[some.array].Bits(some.index);
  }
  const select::Kernels& kernels = select::KernelsFor(Level(bytes));
  const unsigned threads = Workers(bytes);
  const std::string name = "select, " + Name(problem.format, problem.order) + ", k " + std::to_string(wanted.k) +
                           " of " + std::to_string(eligible) + ", " + kernels.name + ", threads " +
                           std::to_string(threads);
  select::Selection selection;
  try {
    selection = select::TopK(problem.Views(0, problem.arrays.size()), problem.format, problem.order, wanted, kernels,
                             threads);
  } catch (const std::invalid_argument&) {
    Expect(wanted.k > eligible, name + ": refused");
    return Outcome::kRefused;
  }
  Expect(wanted.k <= eligible, name + ": too large, but accepted");
  const std::optional<select::Position>& nan = problem.nan;
  Expect(selection.nan.has_value() == nan.has_value(), name + (nan ? ": the NaN is missed" : ": there is no NaN"));
  if (nan) {
    Expect(selection.nan->array == nan->array && selection.nan->index == nan->index, name + ": another NaN");
    return Outcome::kDone;
  }
  problem.ExpectFirst(wanted.k, name);
  if (wanted.threshold && wanted.k > 0) Expect(selection.threshold.has_value(), name + ": no threshold");
  if (selection.threshold && wanted.k > 0) {
    const double threshold = Rank(Number(*selection.threshold, problem.format), problem.order);
    Expect(threshold == problem.ranked[wanted.k - 1].rank, name + ": another threshold");
  }
  return Outcome::kDone;
}

// Each shard has some of the arrays and sees only sums over the shards, as over several hosts.
Outcome Shards(Bytes* bytes) {
  Problem problem(bytes);
  const std::size_t k = problem.K(bytes), count = problem.arrays.size();
  if (k == 0) return Outcome::kDone;
  std::vector<std::size_t> ends;
  for (std::int64_t shards = bytes->Between(1, 3); shards > 1; --shards) {
    ends.push_back(static_cast<std::size_t>(bytes->Between(0, static_cast<std::int64_t>(count))));
  }
  ends.push_back(count);
  std::sort(ends.begin(), ends.end());
  const select::Kernels& kernels = select::KernelsFor(Level(bytes));
  const unsigned threads = Workers(bytes);
  const std::string name = "shards " + std::to_string(ends.size()) + ", " + Name(problem.format, problem.order) +
                           ", k " + std::to_string(k) + ", " + kernels.name;
  std::int64_t hi = select::Infinity(problem.format), lo = -hi;
  if (bytes->Chance(20)) {
    std::vector<std::int64_t> bins(select::kBins);
    const std::int64_t beyond = hi + bytes->OneOf({1, 0});
    const int shift = bytes->OneOf({0, -1, 64});
    try {
      select::CountKeys(problem.Views(0, count), problem.format, problem.order, lo, beyond, shift, kernels, threads,
                        bins.data());
    } catch (const std::invalid_argument&) {
      return Outcome::kRefused;
    }
    Wrong(name + ": bins that cover no keys are accepted");
  }
  if (!problem.order.by_value) (problem.order.largest ? lo : hi) = 0;
  std::size_t rank = k;
  std::vector<std::int64_t> ties(ends.size(), 0);
  while (lo < hi) {
    int shift = 0;
    while ((static_cast<std::uint64_t>(hi) - static_cast<std::uint64_t>(lo)) >> shift >= select::kBins) ++shift;
    std::vector<std::vector<std::int64_t>> bins(ends.size(), std::vector<std::int64_t>(select::kBins));
    std::vector<std::size_t> sum(select::kBins, 0);
    for (std::size_t shard = 0, begin = 0; shard < ends.size(); begin = ends[shard++]) {
      const auto nan = select::CountKeys(problem.Views(begin, ends[shard]), problem.format, problem.order, lo, hi,
                                         shift, kernels, threads, bins[shard].data());
      const bool here = problem.nan && problem.nan->array >= begin && problem.nan->array < ends[shard];
      Expect(nan.has_value() == here, name + ": NaN");
      if (here) {
        Expect(nan->array + begin == problem.nan->array && nan->index == problem.nan->index, name + ": another NaN");
        return Outcome::kDone;
      }
      for (std::size_t bin = 0; bin < sum.size(); ++bin) sum[bin] += static_cast<std::size_t>(bins[shard][bin]);
    }
    std::size_t bin = select::kBins - 1;
    for (; bin > 0 && rank > sum[bin]; --bin) rank -= sum[bin];
    Expect(rank <= sum[bin], name + ": the bins hold too few");
    for (std::size_t shard = 0; shard < ends.size(); ++shard) ties[shard] = bins[shard][bin];
    lo = static_cast<std::int64_t>(static_cast<std::uint64_t>(lo) + (static_cast<std::uint64_t>(bin) << shift));
    const std::uint64_t width = std::uint64_t{1} << shift;
    if (static_cast<std::uint64_t>(hi) - static_cast<std::uint64_t>(lo) >= width) {
      hi = static_cast<std::int64_t>(static_cast<std::uint64_t>(lo) + (width - 1));
    }
  }
  for (std::size_t shard = 0, begin = 0; shard < ends.size(); begin = ends[shard++]) {
    const std::size_t mine = std::min(rank, static_cast<std::size_t>(ties[shard]));
    rank -= mine;
    select::SelectFrom(problem.Views(begin, ends[shard]), problem.format, problem.order, lo, mine, kernels, threads);
  }
  if (!problem.nan) problem.ExpectFirst(k, name);
  return Outcome::kDone;
}

}  // namespace keras_lth::fuzz
