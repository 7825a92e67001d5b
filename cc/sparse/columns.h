// Products with single weights on activations that stay feature-major from layer to layer, so that only the first one
// packs and only the last one unpacks. Row-major arrays are packed and unpacked at every product, forward and backward.
//
// Columns of m samples: [tiles, features, step]. Sample s is number s % step of tile s / step. What lies behind the last
// sample is 0.
#ifndef KERAS_LTH_CC_SPARSE_COLUMNS_H_
#define KERAS_LTH_CC_SPARSE_COLUMNS_H_

#include <cstdint>

#include "cc/sparse/plan.h"
#include "cc/sparse/spmm.h"
#include "cc/sparse/structure.h"

namespace keras_lth::sparse {

// 64 samples a tile: an input's run in 256 bytes; one narrower tile where there are fewer. tiles.full is `step`.
Tiles ColumnTiles(std::int64_t m);

// columns of x[m, features], and back.
void PackColumns(const float* x, std::int64_t m, std::int64_t features, float* columns, const Run& run);
void UnpackColumns(const float* columns, std::int64_t m, std::int64_t features, float* y, const Run& run);

// As Multiply, MultiplyTransposed and SampleProduct, for columns of x, y, dx and dy. Throws std::invalid_argument unless
// the blocks are 1 x 1.
void MultiplyColumns(const Structure& structure, const Values& values, const float* x, std::int64_t m,
                     const Epilogue& epilogue, float* y, const Run& run);
void MultiplyColumnsTransposed(const Structure& structure, const Values& values, const float* dy, std::int64_t m,
                               float* dx, const Run& run);
// `dbias` [cols] is the sum of dy over the samples; null: not computed.
void SampleColumns(const Structure& structure, const float* x, const float* dy, std::int64_t m, float* dvalues,
                   float* dbias, const Run& run);

// All gradients of a product in one call. `gated`: dx is 0 where x is not above 0, that is, x comes from a ReLU and dx is
// the gradient before it.
struct ColumnGradients {
  float *x, *values, *bias;
};
void ColumnsBackward(const Structure& structure, const Values& values, const float* x, const float* dy, std::int64_t m,
                     bool gated, const ColumnGradients& gradients, const Run& run);

}  // namespace keras_lth::sparse

#endif  // KERAS_LTH_CC_SPARSE_COLUMNS_H_
