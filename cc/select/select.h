// The k values that come first in an order of keys over many arrays, exactly k, ties to the lowest (array, index). No
// Python, no TensorFlow.
#ifndef KERAS_LTH_CC_SELECT_SELECT_H_
#define KERAS_LTH_CC_SELECT_SELECT_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "cc/select/kernels.h"

namespace keras_lth::select {

enum class Format { kFloat64, kFloat32, kFloat16, kBfloat16 };

struct Array {
  const void* values;  // `size` values of one format, aligned to their width
  Flags eligible;
  Output selected;  // every byte is written
  std::size_t size;
};

struct Position {
  std::size_t array;
  std::size_t index;
};

struct Wanted {
  std::size_t k;
  // A value that the k-th may be near: the last threshold. Its bits; a wrong one costs time only, a NaN is ignored.
  std::optional<std::uint64_t> near = std::nullopt;
  bool threshold = false;  // whether to find Selection::threshold where the selection does not need it
};

struct Selection {
  std::optional<Position> nan;             // the first one, eligible or not; then the rest is undefined
  std::optional<std::uint64_t> threshold;  // bits of the k-th value (of |x| by magnitude); may be missing, see Wanted
};

// Writes `selected` of every array. Throws std::invalid_argument when k is more than the number of eligible values.
// `threads` 0 takes as many as the size deserves. The result depends on neither `kernels` nor `threads` nor `near`.
Selection TopK(const std::vector<Array>& arrays, Format format, Order order, const Wanted& wanted,
               const Kernels& kernels, unsigned threads);

// The two passes over one shard of the data. Keys of a format go from -infinity to infinity as in kernels.h.

// bins[kBins]: the number of eligible keys in each 2^shift of [lo, hi]. Returns the first NaN, and then no bins.
// Throws std::invalid_argument unless lo <= hi are keys and kBins such bins cover them.
std::optional<Position> CountKeys(const std::vector<Array>& arrays, Format format, Order order, std::int64_t lo,
                                  std::int64_t hi, int shift, const Kernels& kernels, unsigned threads,
                                  std::int64_t* bins);

// Writes `selected`: keys above `threshold` and the first `ties` that are equal to it.
void SelectFrom(const std::vector<Array>& arrays, Format format, Order order, std::int64_t threshold, std::size_t ties,
                const Kernels& kernels, unsigned threads);

// The magnitude of infinity.
std::int64_t Infinity(Format format);

}  // namespace keras_lth::select

#endif  // KERAS_LTH_CC_SELECT_SELECT_H_
