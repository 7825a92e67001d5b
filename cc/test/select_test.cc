// Holds TopK against a stable sort of decoded values. Prints what fails and returns 1, or 0 when nothing does.
// The instruction set is the best one, or the one KERAS_LTH_ISA names. With the argument "float32" only that format is
// checked: enough to look for races, which the formats have in common.
#include "cc/select/select.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "cc/threads/for_each.h"

namespace {

namespace sel = keras_lth::select;

int failures = 0;

void Fail(const std::string& what) {
  if (++failures <= 20) std::printf("FAILED: %s\n", what.c_str());
}

void Expect(bool ok, const std::string& what) {
  if (!ok) Fail(what);
}

// The magnitude a bit pattern stands for, by the definition of the format.
double Decode(std::uint64_t bits, sel::Format format) {
  const auto value = [bits](int exponent_bits, int fraction_bits) {
    const auto fraction = static_cast<double>(bits & ((std::uint64_t{1} << fraction_bits) - 1));
    const auto exponent = static_cast<int>((bits >> fraction_bits) & ((std::uint64_t{1} << exponent_bits) - 1));
    const int bias = (1 << (exponent_bits - 1)) - 1;
    if (exponent == 2 * bias + 1) return fraction == 0 ? static_cast<double>(INFINITY) : std::nan("");
    if (exponent == 0) return std::ldexp(fraction, 1 - bias - fraction_bits);
    return std::ldexp(fraction + std::ldexp(1.0, fraction_bits), exponent - bias - fraction_bits);
  };
  switch (format) {
    case sel::Format::kFloat64: return value(11, 52);
    case sel::Format::kFloat32: return value(8, 23);
    case sel::Format::kFloat16: return value(5, 10);
    case sel::Format::kBfloat16: return value(8, 7);
  }
  return 0.0;
}

template <class T>
struct Case {
  std::string name;
  sel::Format format;
  std::vector<std::vector<T>> values;
  std::vector<std::vector<std::uint8_t>> masks;  // none, or one for each array

  std::size_t Size() const {
    std::size_t size = 0;
    for (const auto& array : values) size += array.size();
    return size;
  }
};

template <class T>
std::vector<sel::Array> Arrays(const Case<T>& c, std::vector<std::vector<std::uint8_t>>* out) {
  out->clear();
  for (const auto& array : c.values) out->emplace_back(array.size(), std::uint8_t{7});
  std::vector<sel::Array> arrays;
  for (std::size_t i = 0; i < c.values.size(); ++i) {
    arrays.push_back({c.values[i].data(), c.masks.empty() ? nullptr : c.masks[i].data(), (*out)[i].data(),
                      c.values[i].size()});
  }
  return arrays;
}

// Eligible positions in the order in which they are selected.
template <class T>
std::vector<sel::Position> Ranking(const Case<T>& c) {
  std::vector<sel::Position> order;
  std::vector<std::vector<double>> magnitudes;
  for (std::size_t a = 0; a < c.values.size(); ++a) {
    magnitudes.emplace_back();
    for (std::size_t i = 0; i < c.values[a].size(); ++i) {
      const auto bits = static_cast<std::uint64_t>(static_cast<std::make_unsigned_t<T>>(c.values[a][i]));
      magnitudes[a].push_back(Decode(bits, c.format));
      if (c.masks.empty() || c.masks[a][i] != 0) order.push_back({a, i});
    }
  }
  std::stable_sort(order.begin(), order.end(), [&](const sel::Position& x, const sel::Position& y) {
    return magnitudes[x.array][x.index] > magnitudes[y.array][y.index];
  });
  return order;
}

template <class T>
void Check(const Case<T>& c) {
  const std::vector<sel::Position> order = Ranking(c);
  const std::size_t n = order.size();
  const std::vector<std::size_t> ks = {0, 1, n / 100, n / 5, n - n / 5, n - std::min<std::size_t>(n, 1), n};
  for (const std::size_t k : ks) {
    if (k > n) continue;
    std::vector<std::vector<std::uint8_t>> expected, got;
    for (const auto& array : c.values) expected.emplace_back(array.size(), std::uint8_t{0});
    for (std::size_t i = 0; i < k; ++i) expected[order[i].array][order[i].index] = 1;
    for (const unsigned threads : {1U, 3U}) {
      const std::vector<sel::Array> arrays = Arrays(c, &got);
      const auto nan = sel::TopK(arrays, c.format, k, sel::KernelsFor(keras_lth::isa::Choose("")), threads);
      Expect(!nan && got == expected,
             c.name + ", k " + std::to_string(k) + " of " + std::to_string(n) + ", threads " + std::to_string(threads));
    }
  }
  std::vector<std::vector<std::uint8_t>> out;
  try {
    sel::TopK(Arrays(c, &out), c.format, n + 1, sel::KernelsFor(keras_lth::isa::Choose("")), 1);
    Fail(c.name + ": k = n + 1 is accepted");
  } catch (const std::invalid_argument& error) {
    Expect(std::string(error.what()).find("0..." + std::to_string(n)) != std::string::npos, error.what());
  }
}

// The positions that the selection samples, so that inputs can be made to mislead it.
std::vector<bool> Sampled(std::size_t n) {
  std::vector<bool> sampled(n, false);
  const auto stride = static_cast<std::size_t>(std::cbrt(static_cast<double>(n)));
  for (std::uint64_t stretch = 0; stretch * stride < n; ++stretch) {
    std::uint64_t x = stretch + 0x9E3779B97F4A7C15U;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
    x = (x ^ (x >> 31)) % stride + stretch * stride;
    if (x < n) sampled[x] = true;
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
  return {
      {"any", any},
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
      {"samples too wide", [sampled, any, near](std::size_t i) { return sampled[i] ? any(i) : near(i); }},
  };
}

template <class T>
void CheckFormat(sel::Format format, T infinity, const std::string& name) {
  std::mt19937_64 random(1);
  for (const std::size_t n : {0, 1, 63, 64, 65, 1000, 80001}) {
    for (const Input<T>& input : Inputs<T>(n, infinity, random)) {
      std::vector<T> flat(n);
      for (std::size_t i = 0; i < n; ++i) flat[i] = input.at(i);
      for (const unsigned kept_of_100 : {100U, 50U, 1U}) {
        if (kept_of_100 == 50 && n > 1000) continue;
        Case<T> c{name + " " + input.name + ", mask " + std::to_string(kept_of_100) + " %", format, {}, {}};
        // An empty array, a short one, the rest in pieces that start anywhere.
        c.values.emplace_back();
        for (std::size_t at = 0, length = 3; at < n; at += length, length = 1 + length * 7) {
          const std::size_t end = std::min(n, at + length);
          c.values.emplace_back(flat.begin() + static_cast<std::ptrdiff_t>(at),
                                flat.begin() + static_cast<std::ptrdiff_t>(end));
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
        Check(c);
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
      std::vector<std::vector<std::uint8_t>> out;
      for (const std::size_t k : {0, 2, 5}) {
        const auto found = sel::TopK(Arrays(c, &out), format, k, sel::KernelsFor(keras_lth::isa::Choose("")), 2);
        Expect(found && found->array == 1 && found->index == at, name + ": NaN at " + std::to_string(at));
      }
    }
  }
}

void CheckForEach() {
  std::vector<std::atomic<int>> calls(1000);
  keras_lth::threads::ForEach(4, calls.size(), [&](unsigned worker, std::size_t item) {
    if (worker < 4) ++calls[item];
  });
  Expect(std::all_of(calls.begin(), calls.end(), [](const auto& n) { return n == 1; }), "ForEach: once for each item");
  try {
    keras_lth::threads::ForEach(4, 100, [](unsigned, std::size_t item) {
      if (item == 50) throw std::runtime_error("item 50");
    });
    Fail("ForEach swallowed an exception");
  } catch (const std::runtime_error& error) {
    Expect(std::string(error.what()) == "item 50", "ForEach: which exception");
  }
  keras_lth::threads::ForEach(4, 0, [](unsigned, std::size_t) { Fail("ForEach: no items, but a call"); });
}

void CheckChoice() {
  try {
    keras_lth::isa::Choose("sse9");
    Fail("an unknown instruction set is accepted");
  } catch (const std::invalid_argument& error) {
    Expect(std::string(error.what()).find("portable") != std::string::npos, error.what());
  }
  Expect(keras_lth::isa::Supported().back() == keras_lth::isa::Level::kPortable, "portable is always there");
}

}  // namespace

int main(int argc, char** argv) {
  const bool all = argc < 2 || std::strcmp(argv[1], "float32") != 0;
  std::printf("instruction set %s\n", keras_lth::isa::Name(keras_lth::isa::Choose("")));
  CheckForEach();
  CheckChoice();
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
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
