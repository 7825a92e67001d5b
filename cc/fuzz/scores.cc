#include "cc/fuzz/scores.h"

#include <cmath>
#include <cstring>

namespace keras_lth::fuzz {

namespace {

struct Layout {
  int exponent, fraction;  // bits

  std::size_t Width() const { return static_cast<std::size_t>(1 + exponent + fraction) / 8; }
};

Layout Of(select::Format format) {
  switch (format) {
    case select::Format::kFloat64: return {11, 52};
    case select::Format::kFloat32: return {8, 23};
    case select::Format::kFloat16: return {5, 10};
    case select::Format::kBfloat16: return {8, 7};
  }
  Wrong("an unknown format");
}

std::uint64_t Ones(int bits) { return (std::uint64_t{1} << bits) - 1; }

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

void Booleans::Resize(std::size_t count, bool in_bits) {
  size = count;
  packed = in_bits;
  data.reserve(1);  // an empty array is not a null pointer
  data.assign(in_bits ? (count + 7) / 8 : count, 0);
}

bool Booleans::Get(std::size_t i) const { return packed ? (data[i / 8] >> (7 - i % 8) & 1) != 0 : data[i] != 0; }

void Booleans::Set(std::size_t i, std::uint8_t true_byte) {
  if (packed) {
    data[i / 8] = static_cast<std::uint8_t>(data[i / 8] | 1 << (7 - i % 8));
  } else {
    data[i] = true_byte;
  }
}

double Number(std::uint64_t bits, select::Format format) {
  const Layout layout = Of(format);
  const auto fraction = static_cast<double>(bits & Ones(layout.fraction));
  const auto exponent = static_cast<int>(bits >> layout.fraction & Ones(layout.exponent));
  const double sign = (bits >> (layout.exponent + layout.fraction) & 1) != 0 ? -1.0 : 1.0;
  const int bias = (1 << (layout.exponent - 1)) - 1;
  if (exponent == 2 * bias + 1) return fraction == 0.0 ? sign * HUGE_VAL : std::nan("");
  if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias - layout.fraction);
  return sign * std::ldexp(fraction + std::ldexp(1.0, layout.fraction), exponent - bias - layout.fraction);
}

std::uint64_t Scores::Bits(std::size_t i) const {
  const std::size_t width = Of(format).Width();
  std::uint64_t bits = 0;
  std::memcpy(&bits, &values[i * width], width);
  return bits;
}

select::Array Scores::View() {
  select::Array array{values.data(), {}, {selected.data.data(), selected.packed}, size()};
  if (masked) array.eligible = {eligible.data.data(), eligible.packed};
  return array;
}

select::Format Format(Bytes* bytes) {
  return bytes->OneOf({select::Format::kFloat32, select::Format::kFloat64, select::Format::kFloat16,
                       select::Format::kBfloat16});
}

select::Order Order(Bytes* bytes) { return {bytes->Chance(100), !bytes->Chance(100)}; }

Scores MakeScores(Bytes* bytes, select::Format format, std::size_t size, bool may_pack) {
  const Layout layout = Of(format);
  const auto pattern = static_cast<int>(bytes->Between(0, 7));
  const auto kept = static_cast<std::uint64_t>(bytes->OneOf({256, 128, 3, 0}));
  Scores scores;
  scores.format = format;
  scores.masked = kept < 256 || bytes->Chance(40);
  scores.values.reserve(1);
  scores.values.resize(size * layout.Width());
  if (scores.masked) scores.eligible.Resize(size, may_pack && bytes->Chance(100));
  scores.selected.Resize(size, may_pack && bytes->Chance(100));
  for (std::uint8_t& byte : scores.selected.data) byte = 0xEE;
  Noise noise(bytes->Word(2));
  const std::size_t bad = bytes->Chance(12) ? noise.Below(size + 1) : size;
  if (bad < size) scores.nan = bad;
  for (std::size_t i = 0; i < size; ++i) {
    std::uint64_t bits = Value(pattern, i, layout, &noise);
    if (i == bad) bits |= Ones(layout.exponent + 1) << (layout.fraction - 1);
    std::memcpy(&scores.values[i * layout.Width()], &bits, layout.Width());
    scores.numbers.push_back(Number(bits, format));
    // Any byte but 0 is true.
    const bool open = scores.masked && noise.Below(256) < kept;
    if (open) scores.eligible.Set(i, static_cast<std::uint8_t>(1 + noise.Below(255)));
  }
  return scores;
}

std::size_t Size(Bytes* bytes) {
  const std::int64_t kind = bytes->Between(0, 31);
  if (kind == 31) return static_cast<std::size_t>(bytes->Between(100000, 200000));
  if (kind >= 29) return static_cast<std::size_t>(bytes->OneOf({32768, 65536}) + bytes->Between(-5, 5));
  if (kind >= 26) return static_cast<std::size_t>(bytes->Between(1000, 9000));
  return static_cast<std::size_t>(bytes->Between(0, 200));
}

double Rank(double number, select::Order order) {
  const double compared = order.by_value ? number : std::fabs(number);
  return order.largest ? compared : -compared;
}

std::string Name(select::Format format, select::Order order) {
  const char* formats[] = {"float64", "float32", "float16", "bfloat16"};
  return std::string(formats[static_cast<int>(format)]) + (order.largest ? ", largest" : ", smallest") +
         (order.by_value ? " values" : " magnitudes");
}

}  // namespace keras_lth::fuzz
