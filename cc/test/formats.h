// What the tests of selection share: the meaning of bit patterns, by the definition of the formats, and failures.
#ifndef KERAS_LTH_CC_TEST_FORMATS_H_
#define KERAS_LTH_CC_TEST_FORMATS_H_

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <type_traits>
#include <vector>

#include "cc/select/select.h"

namespace keras_lth::test {

using Bytes = std::vector<std::uint8_t>;

inline int failures = 0;

inline void Expect(bool ok, const std::string& what) {
  if (!ok && ++failures <= 20) std::printf("FAILED: %s\n", what.c_str());
}

// The number that a bit pattern stands for.
inline double Decode(std::uint64_t bits, select::Format format) {
  const auto value = [bits](int exponent_bits, int fraction_bits) {
    const auto fraction = static_cast<double>(bits & ((std::uint64_t{1} << fraction_bits) - 1));
    const auto exponent = static_cast<int>((bits >> fraction_bits) & ((std::uint64_t{1} << exponent_bits) - 1));
    const double sign = (bits >> (exponent_bits + fraction_bits)) & 1U ? -1.0 : 1.0;
    const int bias = (1 << (exponent_bits - 1)) - 1;
    if (exponent == 2 * bias + 1) return fraction == 0 ? sign * static_cast<double>(INFINITY) : std::nan("");
    if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias - fraction_bits);
    return sign * std::ldexp(fraction + std::ldexp(1.0, fraction_bits), exponent - bias - fraction_bits);
  };
  switch (format) {
    case select::Format::kFloat64:
      return value(11, 52);
    case select::Format::kFloat32:
      return value(8, 23);
    case select::Format::kFloat16:
      return value(5, 10);
    case select::Format::kBfloat16:
      return value(8, 7);
  }
  return 0.0;
}

// What is compared; greater is selected first.
template <class T>
double Rank(T bits, select::Format format, select::Order order) {
  const double value = Decode(static_cast<std::make_unsigned_t<T>>(bits), format);
  const double compared = order.by_value ? value : std::fabs(value);
  return order.largest ? compared : -compared;
}

// As numpy.packbits.
inline Bytes Packed(const Bytes& flags) {
  Bytes bits((flags.size() + 7) / 8, 0);
  for (std::size_t i = 0; i < flags.size(); ++i) {
    if (flags[i] != 0) bits[i / 8] = static_cast<std::uint8_t>(bits[i / 8] | (1U << (7 - i % 8)));
  }
  return bits;
}

inline std::string Name(select::Order order) {
  return std::string(order.largest ? ", largest" : ", smallest") + (order.by_value ? " values" : " magnitudes");
}

constexpr select::Order kOrders[] = {{false, true}, {false, false}, {true, true}, {true, false}};

}  // namespace keras_lth::test

#endif  // KERAS_LTH_CC_TEST_FORMATS_H_
