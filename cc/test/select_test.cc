// Holds TopK and its passes over shards against a stable sort of decoded values. Prints what fails and returns 1, or 0
// when nothing does. The instruction set is the best one, or the one KERAS_LTH_ISA names. With the argument "float32"
// only that format is checked: enough to look for races, which the formats have in common.
#include "cc/select/select.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "cc/select/guess.h"
#include "cc/select/pass.h"
#include "cc/test/formats.h"

namespace {

namespace sel = keras_lth::select;
using keras_lth::test::Bytes;
using keras_lth::test::Expect;
using keras_lth::test::kOrders;
using keras_lth::test::Name;
using keras_lth::test::Packed;
using keras_lth::test::Rank;

const sel::Kernels& Table() { return sel::KernelsFor(keras_lth::isa::Choose("")); }

template <class T>
struct Case {
  std::string name;
  sel::Format format;
  std::vector<std::vector<T>> values;
  std::vector<Bytes> masks;  // none, or one for each array: a byte a value
};

// A case's arrays with masks as bytes or bits, and room for the result.
template <class T>
struct Views {
  Views(const Case<T>& c, bool packed) {
    for (const Bytes& mask : c.masks) {
      Bytes flags = mask;
      if (packed) flags.resize((mask.size() + 7) / 8 * 8, 1);  // what follows the last flag is not looked at
      masks.push_back(packed ? Packed(flags) : mask);
    }
    for (const auto& array : c.values) {
      out.emplace_back(packed ? (array.size() + 7) / 8 : array.size(), std::uint8_t{0xA5});
    }
    for (std::size_t i = 0; i < c.values.size(); ++i) {
      arrays.push_back({c.values[i].data(), {masks.empty() ? nullptr : masks[i].data(), packed},
                        {out[i].data(), packed}, c.values[i].size()});
    }
  }

  std::vector<Bytes> masks, out;
  std::vector<sel::Array> arrays;
};

// Eligible positions in the order in which they are selected.
template <class T>
std::vector<sel::Position> Ranking(const Case<T>& c, sel::Order order) {
  std::vector<sel::Position> positions;
  std::vector<std::vector<double>> ranks;
  for (std::size_t a = 0; a < c.values.size(); ++a) {
    ranks.emplace_back();
    for (std::size_t i = 0; i < c.values[a].size(); ++i) {
      ranks[a].push_back(Rank(c.values[a][i], c.format, order));
      if (c.masks.empty() || c.masks[a][i] != 0) positions.push_back({a, i});
    }
  }
  std::stable_sort(positions.begin(), positions.end(), [&](const sel::Position& x, const sel::Position& y) {
    return ranks[x.array][x.index] > ranks[y.array][y.index];
  });
  return positions;
}

// The passes of several hosts, on all data at once: the interval of keys is narrowed until it is one.
template <class T>
void InPasses(const std::vector<sel::Array>& arrays, const Case<T>& c, sel::Order order, std::size_t k) {
  const std::int64_t infinity = sel::Infinity(c.format);
  std::int64_t lo = order.by_value || !order.largest ? -infinity : 0;
  std::int64_t hi = order.by_value || order.largest ? infinity : 0;
  std::vector<std::int64_t> bins(sel::kBins);
  while (lo < hi) {
    int shift = 0;
    while ((static_cast<std::uint64_t>(hi) - static_cast<std::uint64_t>(lo)) >> shift >= sel::kBins) ++shift;
    Expect(!sel::CountKeys(arrays, c.format, order, lo, hi, shift, Table(), 2, bins.data()), "no NaN");
    std::size_t bin = sel::kBins - 1;
    for (; bin > 0 && k > static_cast<std::size_t>(bins[bin]); --bin) k -= static_cast<std::size_t>(bins[bin]);
    const auto first = static_cast<std::uint64_t>(lo) + (static_cast<std::uint64_t>(bin) << shift);
    const std::uint64_t last = first + ((std::uint64_t{1} << shift) - 1);
    lo = static_cast<std::int64_t>(first);
    hi = std::min(hi, static_cast<std::int64_t>(last));
  }
  sel::SelectFrom(arrays, c.format, order, lo, k, Table(), 2);
}

template <class T>
void Check(const Case<T>& c, sel::Order order) {
  const std::vector<sel::Position> ranking = Ranking(c, order);
  const std::size_t n = ranking.size();
  const std::vector<std::size_t> ks = {0, 1, n / 100, n / 5, n - n / 5, n - std::min<std::size_t>(n, 1), n};
  for (const std::size_t k : ks) {
    if (k > n) continue;
    std::vector<Bytes> expected, expected_bits;
    for (const auto& array : c.values) expected.emplace_back(array.size(), std::uint8_t{0});
    for (std::size_t i = 0; i < k; ++i) expected[ranking[i].array][ranking[i].index] = 1;
    for (const Bytes& mask : expected) expected_bits.push_back(Packed(mask));
    const std::string what = c.name + Name(order) + ", k " + std::to_string(k) + " of " + std::to_string(n);
    const auto value = [&](std::size_t rank) {
      const sel::Position& at = ranking[rank - 1];
      return static_cast<std::make_unsigned_t<T>>(c.values[at.array][at.index]);
    };
    for (const unsigned threads : {1U, 3U}) {
      const bool packed = threads == 1;
      Views<T> views(c, packed);
      sel::Wanted wanted{k};
      wanted.threshold = packed;
      // Close to right, or right.
      if (n > 0 && threads == 3) wanted.near = value(k < n / 2 ? k + 1 : std::max<std::size_t>(k, 1));
      if (n > 0 && threads == 3 && k % 2 == 1) wanted.near = value(n - k / 2);  // somewhere
      const sel::Selection got = sel::TopK(views.arrays, c.format, order, wanted, Table(), threads);
      Expect(!got.nan && views.out == (packed ? expected_bits : expected), what);
      if (!wanted.threshold) continue;
      Expect(got.threshold.has_value() == (k > 0), what + ": threshold");
      if (k == 0 || !got.threshold) continue;
      Expect(Rank(static_cast<T>(*got.threshold), c.format, order) == Rank(static_cast<T>(value(k)), c.format, order),
             what + ": threshold");
    }
    if (k == 0 || k % 2 == 1) continue;
    Views<T> views(c, false);
    InPasses(views.arrays, c, order, k);
    Expect(views.out == expected, what + ", in passes");
  }
  Views<T> views(c, false);
  try {
    sel::TopK(views.arrays, c.format, order, {n + 1}, Table(), 1);
    Expect(false, c.name + ": k = n + 1 is accepted");
  } catch (const std::invalid_argument& error) {
    Expect(std::string(error.what()).find("0..." + std::to_string(n)) != std::string::npos, error.what());
  }
}

// The lengths of arrays of n values in all: an empty one, a short one, the rest in pieces that start anywhere.
std::vector<std::size_t> Lengths(std::size_t n) {
  std::vector<std::size_t> lengths = {0};
  for (std::size_t at = 0, length = 3; at < n; at += length, length = 1 + length * 7) {
    lengths.push_back(std::min(n - at, length));
  }
  return lengths;
}

// Which of n values the selection samples, so that inputs can be made to mislead it: a sample of their positions.
std::vector<bool> Sampled(std::size_t n) {
  std::vector<std::int32_t> positions(n);
  std::iota(positions.begin(), positions.end(), 0);
  std::vector<sel::Array> arrays;
  std::size_t at = 0;
  for (const std::size_t length : Lengths(n)) {
    arrays.push_back({positions.data() + at, {}, {}, length});
    at += length;
  }
  const sel::Data<std::int32_t> data(arrays, std::numeric_limits<std::int32_t>::max() - 1, {}, Table(), 1);
  const sel::Sample<std::int32_t> sample(data, sel::Stride(data));
  std::vector<bool> sampled(n, false);
  for (std::size_t rank = 1; rank <= sample.size(); ++rank) {
    sampled[static_cast<std::size_t>(sample.At(static_cast<double>(rank)))] = true;
  }
  return sampled;
}

template <class T>
using Fill = std::function<T(std::size_t)>;

template <class T>
struct Input {
  const char* name;
  Fill<T> at;
};

template <class T>
std::vector<Input<T>> Inputs(std::size_t n, T infinity, std::mt19937_64& random) {
  const auto sampled = Sampled(n);
  const auto one = static_cast<T>(infinity / 2);
  const auto sign = std::numeric_limits<T>::min();
  const auto any = [&random, infinity](std::size_t) {  // every finite number and infinity, both signs
    const auto magnitude = static_cast<T>(random() % (static_cast<std::uint64_t>(infinity) + 1));
    return static_cast<T>(random() % 2 == 0 ? magnitude : (magnitude | std::numeric_limits<T>::min()));
  };
  const auto near = [&random, one](std::size_t) { return static_cast<T>(one + static_cast<T>(random() % 100)); };
  // Most values are at the two ends of the bracket, and the threshold is between them.
  const auto between = [&random, one](std::size_t) {
    const auto percent = random() % 100;
    if (percent < 18) return static_cast<T>(one + 1000);
    return percent < 22 ? static_cast<T>(one + 1 + static_cast<T>(random() % 998)) : one;
  };
  // The sample says that few values are in the bracket, but all the others are.
  const auto spread = [&random, sampled, one](std::size_t i) {
    return static_cast<T>(one + static_cast<T>(sampled[i] ? random() % 5000 : 3950 + random() % 100));
  };
  return {
      {"any", any},
      {"a few between", between},
      {"all equal", [one](std::size_t) { return one; }},
      {"all zero", [sign](std::size_t i) { return i % 2 == 0 ? T{0} : sign; }},
      {"two values", [&random, one](std::size_t) { return static_cast<T>(random() % 2 == 0 ? one : one + 1); }},
      {"ascending", [n, one](std::size_t i) { return static_cast<T>(i * static_cast<std::uint64_t>(one) / n); }},
      {"descending", [n, one](std::size_t i) { return static_cast<T>((n - i) * static_cast<std::uint64_t>(one) / n); }},
      {"denormals", [&random](std::size_t) { return static_cast<T>(random() % 100); }},
      {"one exponent", near},
      {"infinities", [&random, infinity](std::size_t) { return random() % 3 == 0 ? infinity : T{0}; }},
      {"samples too large", [sampled, any, infinity](std::size_t i) { return sampled[i] ? infinity : any(i); }},
      {"samples too small", [sampled, any](std::size_t i) { return sampled[i] ? T{0} : any(i); }},
      {"samples spread", spread},
      {"samples too wide", [sampled, any, near](std::size_t i) { return sampled[i] ? any(i) : near(i); }},
  };
}

template <class T>
void CheckFormat(sel::Format format, T infinity, const std::string& name) {
  std::mt19937_64 random(1);
  std::size_t turn = 0;
  for (const std::size_t n : {0, 1, 63, 64, 65, 1000, 80001}) {
    for (const Input<T>& input : Inputs<T>(n, infinity, random)) {
      std::vector<T> flat(n);
      for (std::size_t i = 0; i < n; ++i) flat[i] = input.at(i);
      for (const unsigned kept_of_100 : {100U, 50U, 1U}) {
        if (kept_of_100 == 50 && n > 1000) continue;
        Case<T> c{name + " " + input.name + ", mask " + std::to_string(kept_of_100) + " %", format, {}, {}};
        auto from = flat.begin();
        for (const std::size_t length : Lengths(n)) {
          const auto to = from + static_cast<std::ptrdiff_t>(length);
          c.values.emplace_back(from, to);
          from = to;
        }
        if (kept_of_100 < 100) {
          for (const auto& array : c.values) {
            c.masks.emplace_back(array.size());
            // Any non-zero byte is True.
            for (auto& byte : c.masks.back()) {
              byte = static_cast<std::uint8_t>(random() % 100 < kept_of_100 ? 1 + random() % 255 : 0);
            }
          }
        }
        // All orders where it costs little, one where it does not.
        if (n < 80000) {
          for (const sel::Order order : kOrders) Check(c, order);
        } else {
          Check(c, kOrders[turn++ % 4]);
        }
      }
    }
  }
}

template <class T>
void CheckNan(sel::Format format, T infinity, const std::string& name) {
  for (const std::size_t at : {0, 63, 64, 70000, 149999}) {
    for (const T nan : {static_cast<T>(infinity + 1), std::numeric_limits<T>::max(), T{-1}}) {
      Case<T> c{name, format, {std::vector<T>(5, T{1}), std::vector<T>(150000, T{1})}, {}};
      c.values[1][at] = nan;
      c.values[1][149999] = nan;
      c.masks = {std::vector<std::uint8_t>(5, 1), std::vector<std::uint8_t>(150000, 0)};
      for (const std::size_t k : {0, 2, 5}) {
        Views<T> views(c, false);
        const auto found = sel::TopK(views.arrays, format, {}, {k}, Table(), 2).nan;
        Expect(found && found->array == 1 && found->index == at, name + ": NaN at " + std::to_string(at));
      }
      Views<T> views(c, true);
      std::vector<std::int64_t> bins(sel::kBins);
      const auto found = sel::CountKeys(views.arrays, format, {true, true}, 0, 5, 0, Table(), 2, bins.data());
      Expect(found && found->array == 1 && found->index == at, name + ": NaN counted at " + std::to_string(at));
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bool all = argc < 2 || std::strcmp(argv[1], "float32") != 0;
  std::printf("instruction set %s\n", keras_lth::isa::Name(keras_lth::isa::Choose("")));
  CheckFormat<std::int32_t>(sel::Format::kFloat32, 0x7F800000, "float32");
  CheckNan<std::int32_t>(sel::Format::kFloat32, 0x7F800000, "float32");
  if (all) {
    CheckFormat<std::int16_t>(sel::Format::kFloat16, 0x7C00, "float16");
    CheckFormat<std::int16_t>(sel::Format::kBfloat16, 0x7F80, "bfloat16");
    CheckFormat<std::int64_t>(sel::Format::kFloat64, 0x7FF0000000000000, "float64");
    CheckNan<std::int16_t>(sel::Format::kFloat16, 0x7C00, "float16");
    CheckNan<std::int16_t>(sel::Format::kBfloat16, 0x7F80, "bfloat16");
    CheckNan<std::int64_t>(sel::Format::kFloat64, 0x7FF0000000000000, "float64");
  }
  std::printf("%d failures\n", keras_lth::test::failures);
  return keras_lth::test::failures == 0 ? 0 : 1;
}
