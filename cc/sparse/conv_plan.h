// How images are cut into tiles, one a lane of a vector, and what a tile's pixels meet.
#ifndef KERAS_LTH_CC_SPARSE_CONV_PLAN_H_
#define KERAS_LTH_CC_SPARSE_CONV_PLAN_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cc/sparse/conv.h"

namespace keras_lth::sparse {

// One dimension of the image. A tile is `tile` positions of a grid. Position q meets the source pixels
// src_first + q * split + (0 ... reach - 1) and makes the destination pixels
// dst_first + q * phases + (0 ... phases - 1), where they are inside the image. The convolution has a split, its
// stride; the gradient of its input has phases.
struct Axis {
  std::int64_t positions, split, reach, src_first, src_extent;
  std::int64_t phases, dst_first, dst_extent;
  std::int64_t tile = 0, tiles = 0;

  // The last tile begins earlier, so that it ends with the image; it owns only what the tile before has not.
  std::int64_t Origin(std::int64_t index) const { return std::min(index * tile, positions - tile); }
  std::int64_t Patch() const { return (tile - 1) * split + reach; }  // source pixels a tile meets
};

// What the choice of a tile depends on.
struct Work {
  std::int64_t multiplies;  // a position
  std::int64_t width;       // outputs that share a load
  std::int64_t channels_in, channels_out;
};

// A patch is [channels, rows, split, run] vectors: pixels that neighbouring positions meet lie side by side.
struct Plan {
  Axis y, x;
  std::int64_t batch, lanes, channels_in;
  bool transposed;
  std::int64_t run = 0;
  std::int64_t row = 0;      // vectors between rows
  std::int64_t plane = 0;    // vectors between channels
  std::int64_t groups = 0;   // of lanes
  std::int64_t scratch = 0;  // floats of a patch

  // Vectors from the patch's begin to a source pixel.
  std::int64_t At(std::int64_t py, std::int64_t px) const { return py * row + px % x.split * run + px / x.split; }
};

// `shape` for a kernel of one pixel and stride 1 is one row of pixels: no halo, no images.
ConvShape Flattened(const ConvShape& shape);

Plan PlanForward(const ConvShape& shape, const Work& work, std::int64_t lanes);
Plan PlanTransposed(const ConvShape& shape, const Work& work, std::int64_t lanes);

// Of each tap: floats from a position to the pixel that the tap joins with it.
std::vector<std::int64_t> TapOffsets(const Plan& plan, const ConvShape& shape);

// The lanes of one group.
struct Lane {
  std::int64_t image = -1;              // none
  std::int64_t y = 0, x = 0;            // first position
  std::int64_t own_y = 0, own_x = 0;    // first position that is not another tile's
};
void FindLanes(const Plan& plan, std::int64_t group, Lane* lanes);

// The runs of at most kMostVectors positions that a tile's row is cut into.
std::int64_t Runs(std::int64_t tile);

}  // namespace keras_lth::sparse

#endif  // KERAS_LTH_CC_SPARSE_CONV_PLAN_H_
