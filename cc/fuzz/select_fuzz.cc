// TopK against a stable sort of the magnitudes, decoded by the definition of the format.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "cc/fuzz/fuzz.h"
#include "cc/select/kernels.h"
#include "cc/select/select.h"

namespace keras_lth::fuzz {

namespace {

struct Layout {
  select::Format format;
  int width, exponent, fraction;  // bytes, bits, bits
};

constexpr Layout kLayouts[] = {
    {select::Format::kFloat32, 4, 8, 23},
    {select::Format::kFloat16, 2, 5, 10},
    {select::Format::kBfloat16, 2, 8, 7},
    {select::Format::kFloat64, 8, 11, 52},
};

std::uint64_t Ones(int bits) { return (std::uint64_t{1} << bits) - 1; }

double Decode(std::uint64_t bits, const Layout& layout) {
  const auto fraction = static_cast<double>(bits & Ones(layout.fraction));
  const auto exponent = static_cast<int>(bits >> layout.fraction & Ones(layout.exponent));
  const int bias = (1 << (layout.exponent - 1)) - 1;
  if (exponent == 2 * bias + 1) return fraction == 0.0 ? HUGE_VAL : std::nan("");
  if (exponent == 0) return std::ldexp(fraction, 1 - bias - layout.fraction);
  return std::ldexp(fraction + std::ldexp(1.0, layout.fraction), exponent - bias - layout.fraction);
}

struct Input {
  std::vector<std::uint8_t> values, eligible, selected;
  bool masked = false;
  std::vector<double> magnitudes;
};

std::int64_t Size(Bytes* bytes) {
  // Around the sizes at which a kernel's inner loop and the pieces of work end.
  switch (bytes->Between(0, 15)) {
    case 15: return bytes->Between(65530, 65545);
    case 14: return bytes->Between(100000, 200000);
    case 13:
    case 12: return bytes->Between(1000, 9000);
    case 11: return 0;
    default: return bytes->Between(0, 200);
  }
}

// The bits of one value: what makes ties, misleads samples, or lies at the edges of the format.
std::uint64_t Value(int pattern, std::size_t at, const Layout& layout, Noise* noise) {
  const std::uint64_t infinity = Ones(layout.exponent) << layout.fraction;
  const std::uint64_t sign = (noise->Next() >> 32 & 1) << (layout.exponent + layout.fraction);
  switch (pattern) {
    case 0: return sign | noise->Below(infinity + 1);
    case 1: return sign | infinity / 2;
    case 2: return sign | (infinity / 2 + noise->Below(2));
    case 3: return sign | noise->Below(50);
    case 4: return sign | at % (infinity + 1);
    case 5: return sign | (infinity - at % 1000);
    case 6: return sign | (noise->Below(3) == 0 ? infinity : 0);
    default: return sign | (noise->Below(200) == 0 ? noise->Below(infinity + 1) : infinity / 3 + noise->Below(9));
  }
}

}  // namespace

Outcome Select(Bytes* bytes) {
  const Layout& layout = kLayouts[bytes->Between(0, 3)];
  const auto width = static_cast<std::size_t>(layout.width);
  std::vector<Input> inputs(static_cast<std::size_t>(bytes->Between(0, 4)));
  std::size_t eligible = 0;
  std::optional<select::Position> nan;
  for (std::size_t array = 0; array < inputs.size(); ++array) {
    Input& input = inputs[array];
    const auto size = static_cast<std::size_t>(Size(bytes));
    const auto pattern = static_cast<int>(bytes->Between(0, 7));
    const auto kept = static_cast<std::uint64_t>(bytes->OneOf({256, 128, 3, 0}));
    Noise noise(bytes->Word(2));
    input.masked = kept < 256 || bytes->Chance(40);
    input.values.resize(size * width);
    input.selected.assign(size, 0xEE);
    if (input.masked) input.eligible.resize(size);
    const std::size_t bad = bytes->Chance(12) ? noise.Below(size + 1) : size;
    for (std::size_t i = 0; i < size; ++i) {
      std::uint64_t bits = Value(pattern, i, layout, &noise);
      if (i == bad) bits |= Ones(layout.exponent + 1) << (layout.fraction - 1);
      std::memcpy(&input.values[i * width], &bits, width);
      input.magnitudes.push_back(Decode(bits, layout));
      // Any byte but 0 is true.
      if (input.masked && noise.Below(256) < kept) input.eligible[i] = static_cast<std::uint8_t>(1 + noise.Below(255));
      eligible += !input.masked || input.eligible[i] != 0;
    }
    if (bad < size && !nan) nan = {array, bad};
  }
  std::vector<select::Array> arrays;
  for (Input& input : inputs) {
    arrays.push_back({input.values.data(), input.masked ? input.eligible.data() : nullptr, input.selected.data(),
                      input.selected.size()});
  }
  std::size_t k = eligible;
  switch (bytes->Between(0, 7)) {
    case 0: k = 0; break;
    case 1: break;
    case 2: k = eligible + 1 + bytes->Word(8) % (SIZE_MAX - eligible); break;
    case 3: k = std::min<std::size_t>(eligible, 1); break;
    default: k = bytes->Word(4) % (eligible + 1);
  }
  const select::Kernels& kernels = select::KernelsFor(Level(bytes));
  const unsigned threads = Workers(bytes);
  const std::string name = "select, k " + std::to_string(k) + " of " + std::to_string(eligible) + ", " + kernels.name +
                           ", threads " + std::to_string(threads);
  std::optional<select::Position> found;
  try {
    found = select::TopK(arrays, layout.format, k, kernels, threads);
  } catch (const std::invalid_argument&) {
    Expect(k > eligible, name + ": refused");
    return Outcome::kRefused;
  }
  Expect(k <= eligible, name + ": too large, but accepted");
  Expect(found.has_value() == nan.has_value(), name + (nan ? ": the NaN is not found" : ": a NaN where there is none"));
  if (nan) {
    Expect(found->array == nan->array && found->index == nan->index, name + ": another NaN");
    return Outcome::kDone;
  }
  struct Ranked {
    double magnitude;
    std::uint8_t* selected;
  };
  std::vector<Ranked> ranked;
  for (Input& input : inputs) {
    for (std::size_t i = 0; i < input.magnitudes.size(); ++i) {
      if (!input.masked || input.eligible[i] != 0) {
        ranked.push_back({input.magnitudes[i], &input.selected[i]});
      } else if (input.selected[i] != 0) {
        Wrong(name + ": one that is not eligible");
      }
    }
  }
  const auto larger = [](const Ranked& a, const Ranked& b) { return a.magnitude > b.magnitude; };
  std::stable_sort(ranked.begin(), ranked.end(), larger);
  for (std::size_t rank = 0; rank < ranked.size(); ++rank) {
    if (*ranked[rank].selected != (rank < k ? 1 : 0)) Wrong(name + ": wrong at rank " + std::to_string(rank));
  }
  return Outcome::kDone;
}

}  // namespace keras_lth::fuzz
