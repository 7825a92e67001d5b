// The k largest magnitudes over many arrays, exactly k, ties to the lowest (array, index). No Python, no TensorFlow.
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
  const void* values;            // `size` values of one format, aligned to their width
  const std::uint8_t* eligible;  // `size` bytes, or null: all are eligible
  std::uint8_t* selected;        // `size` bytes, written as 0 or 1
  std::size_t size;
};

struct Position {
  std::size_t array;
  std::size_t index;
};

// Writes `selected` of every array. Returns the first NaN, eligible or not, in which case the selection is undefined.
// Throws std::invalid_argument when k is more than the number of eligible values.
// `threads` 0 takes as many as the size deserves. The result depends on neither `kernels` nor `threads`.
std::optional<Position> TopK(const std::vector<Array>& arrays, Format format, std::size_t k, const Kernels& kernels,
                             unsigned threads);

}  // namespace keras_lth::select

#endif  // KERAS_LTH_CC_SELECT_SELECT_H_
