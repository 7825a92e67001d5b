// The table of inner loops that each instruction set fills.
//
// Values are read as signed integers of their width; clearing the sign bit gives the magnitude. For IEEE formats and
// bfloat16 the order of these integers is the order of |x|: -0 equals 0, denormals are exact whatever the processor's
// flush-to-zero state, infinity is the largest, and everything above infinity is a NaN.
// An Order makes of the magnitude and the sign a key, a signed integer; larger keys are selected first.
#ifndef KERAS_LTH_CC_SELECT_KERNELS_H_
#define KERAS_LTH_CC_SELECT_KERNELS_H_

#include <cstddef>
#include <cstdint>
#include <limits>

#include "cc/isa/isa.h"

namespace keras_lth::select {

// Values in a piece of work: positions in it fit 16 bits, and what a kernel reads and writes stays in the cache.
inline constexpr std::size_t kChunk = std::size_t{1} << 15;
inline constexpr int kBinBits = 11;
inline constexpr std::size_t kBins = std::size_t{1} << kBinBits;
// n_of_m takes so many groups of at most so many values.
inline constexpr std::size_t kLanes = 64;
inline constexpr std::size_t kMostOfM = 32;

// All bits but the sign.
template <class T>
inline constexpr T kMagnitude = std::numeric_limits<T>::max();

// key = |x| or, by value, x as an integer (-0 and 0 are one); negated where the smallest are selected.
struct Order {
  bool by_value = false;
  bool largest = true;
};

// Booleans, either bytes (any non-zero byte is true) or bits, the first one the highest of its byte.
struct Flags {
  const std::uint8_t* data = nullptr;  // null: all are true
  bool packed = false;
};

struct Output {
  std::uint8_t* data = nullptr;  // bytes of 0 or 1, or bits of which those after the last are 0
  bool packed = false;
};

template <class T>
struct Values {
  const T* data;
  Flags eligible;
  std::size_t size;
};

template <class T>
struct Range {
  T lo, hi;    // keys, both inclusive, lo <= hi
  T infinity;  // the magnitude of infinity
  Order order;
};

struct Counts {
  std::size_t above = 0;    // eligible keys > hi
  std::size_t within = 0;   // eligible keys in [lo, hi]
  std::size_t between = 0;  // those that are listed, or would be
  std::size_t at_hi = 0;    // eligible keys == hi; counted only where the ends are not listed
  bool nan = false;         // a NaN anywhere, eligible or not
};

// Where to list values and their positions; both need room for all values of the call and kSlack more. Null: only
// counted.
inline constexpr std::size_t kSlack = 2;

template <class T>
struct List {
  T* values = nullptr;
  std::uint16_t* positions = nullptr;
  bool ends = true;  // keys equal to lo or hi are listed too
};

template <class T>
struct KernelsOf {
  // selected = key > mark, lo - 1 <= mark <= hi; what is in [lo, hi] is listed, ascending by position.
  Counts (*partition)(const Values<T>& values, const Range<T>& range, T mark, Output selected, List<T> list);
  // selected = key > t, or key == t and fewer than `quota` such before it in this call. range.lo == range.hi == t.
  void (*mark)(const Values<T>& values, const Range<T>& range, Output selected, std::size_t quota);
  // bins[(key - lo) >> shift] += 1 for eligible keys in [lo, hi]; (hi - lo) >> shift is below kBins. True if there is a
  // NaN.
  bool (*histogram)(const Values<T>& values, const Range<T>& range, int shift, std::uint32_t* bins);
  // For each of `lanes` groups: are its m values among the first n in the order of keys, ties to the first? Value j of
  // group g is at g * lane_stride + j * stride of x, eligible (bytes; may be null) and selected. True if there is a NaN.
  // Of `range` only infinity and order are used.
  bool (*n_of_m)(const T* x, const std::uint8_t* eligible, std::uint8_t* selected, std::size_t lanes,
                 std::size_t lane_stride, std::size_t m, std::size_t stride, std::size_t n, const Range<T>& range);
};

// sums[i] += |x[i]|, or x[i]; counts[i] += 1; both where x[i] is eligible (bytes; null: all are, and counts is not
// used). True if there is a NaN, eligible or not.
using Accumulate = bool (*)(const void* x, const std::uint8_t* eligible, std::size_t n, bool by_value, double* sums,
                            std::int64_t* counts);

struct Kernels {
  const char* name;
  KernelsOf<std::int16_t> of16;
  KernelsOf<std::int32_t> of32;
  KernelsOf<std::int64_t> of64;
  std::size_t (*count)(Flags flags, std::size_t n);
  Accumulate accumulate[4];  // float64, float32, float16, bfloat16
};

const Kernels& KernelsFor(isa::Level level);

}  // namespace keras_lth::select

#endif  // KERAS_LTH_CC_SELECT_KERNELS_H_
