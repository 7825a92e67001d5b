// Groups of values that are kept or removed by their number (n of every m) or together (blocks, and the slices along an
// axis: neurons, channels). No Python, no TensorFlow.
#ifndef KERAS_LTH_CC_SELECT_GROUPS_H_
#define KERAS_LTH_CC_SELECT_GROUPS_H_

#include <cstddef>
#include <cstdint>
#include <optional>

#include "cc/select/kernels.h"
#include "cc/select/select.h"

namespace keras_lth::select {

// An array seen as [outer, length, inner], C-contiguous; groups are along the axis of `length`.
struct Along {
  const void* values;
  const std::uint8_t* eligible;  // bytes, or null
  std::uint8_t* selected;        // bytes
  std::size_t outer, length, inner;
};

// Of every m consecutive eligible values along the axis, the first n in the order of keys, ties to the first; the last
// group of an axis may be shorter. Returns the flat index of the first NaN, and then no selection.
// Throws std::invalid_argument unless 1 <= n <= m.
std::optional<std::size_t> NOfM(const Along& array, Format format, Order order, std::size_t n, std::size_t m,
                                const Kernels& kernels, unsigned threads);

// An array seen as [taps, rows, cols], cut into blocks of block_rows x block_cols, the last ones smaller.
struct Blocked {
  const std::uint8_t* eligible;  // bytes, or null
  std::size_t taps, rows, cols, block_rows, block_cols;

  std::size_t RowBlocks() const { return (rows + block_rows - 1) / block_rows; }
  std::size_t ColBlocks() const { return (cols + block_cols - 1) / block_cols; }
};

// scores[taps, RowBlocks(), ColBlocks()]: the sum of |x|, or of x, over the eligible values of a block, in float64;
// the mean: divided by their number. counts: that number.
// The order of additions is fixed: in each column of the block over its rows; the sums of columns whose numbers in the
// block are equal modulo 8, in order; those eight, in order. Denormals count whatever the processor's state.
// Returns the flat index of the first NaN, and then no scores.
std::optional<std::size_t> ScoreBlocks(const void* values, const Blocked& blocks, Format format, bool by_value,
                                       bool mean, const Kernels& kernels, unsigned threads, double* scores,
                                       std::int64_t* counts);

// selected[taps, rows, cols] = the byte of the block is not 0, and the value is eligible.
void ExpandBlocks(const std::uint8_t* of_blocks, const Blocked& blocks, unsigned threads, std::uint8_t* selected);

}  // namespace keras_lth::select

#endif  // KERAS_LTH_CC_SELECT_GROUPS_H_
