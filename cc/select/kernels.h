// The table of inner loops that each instruction set fills.
//
// Values are read as signed integers of their width; clearing the sign bit gives the magnitude. For IEEE formats and
// bfloat16 the order of these integers is the order of |x|: -0 equals 0, denormals are exact whatever the processor's
// flush-to-zero state, infinity is the largest, and everything above infinity is a NaN.
#ifndef KERAS_LTH_CC_SELECT_KERNELS_H_
#define KERAS_LTH_CC_SELECT_KERNELS_H_

#include <cstddef>
#include <cstdint>
#include <limits>

#include "cc/isa/isa.h"

namespace keras_lth::select {

// Values in a piece of work: positions in it fit 32 bits, and what a kernel reads and writes stays in the cache.
inline constexpr std::size_t kChunk = std::size_t{1} << 16;
inline constexpr int kBinBits = 11;
inline constexpr std::size_t kBins = std::size_t{1} << kBinBits;

// All bits but the sign.
template <class T>
inline constexpr T kMagnitude = std::numeric_limits<T>::max();

struct Counts {
  std::size_t above;   // eligible magnitudes > hi
  std::size_t within;  // eligible magnitudes in [lo, hi]
  bool nan;            // a NaN anywhere, eligible or not
};

template <class T>
struct KernelsOf {
  // selected[i] = eligible and |x[i]| > hi. If `indices` is not null the positions with |x[i]| in [lo, hi] are written
  // to it, ascending, and their magnitudes to `values`; both need room for n. `eligible` may be null: all are.
  Counts (*partition)(const T* x, const std::uint8_t* eligible, std::uint8_t* selected, std::size_t n, T lo, T hi,
                      T infinity, T* values, std::uint32_t* indices);
  // selected[i] = eligible and (|x[i]| > t, or |x[i]| == t and fewer than `quota` such before it in this call).
  void (*mark)(const T* x, const std::uint8_t* eligible, std::uint8_t* selected, std::size_t n, T t, T infinity,
               std::size_t quota);
  // bins[(|x[i]| - lo) >> shift] += 1 for eligible |x[i]| in [lo, hi]. (hi - lo) >> shift is below kBins.
  void (*histogram)(const T* x, const std::uint8_t* eligible, std::size_t n, T lo, T hi, int shift,
                    std::uint32_t* bins);
};

struct Kernels {
  const char* name;
  KernelsOf<std::int16_t> of16;
  KernelsOf<std::int32_t> of32;
  KernelsOf<std::int64_t> of64;
  std::size_t (*count)(const std::uint8_t* eligible, std::size_t n);  // non-zero bytes
};

const Kernels& KernelsFor(isa::Level level);

}  // namespace keras_lth::select

#endif  // KERAS_LTH_CC_SELECT_KERNELS_H_
