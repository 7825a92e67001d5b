// A convolution with a sparse kernel, and both gradients. NHWC, float32; the same guarantees as spmm.h.
#ifndef KERAS_LTH_CC_SPARSE_CONV_H_
#define KERAS_LTH_CC_SPARSE_CONV_H_

#include <cstdint>

#include "cc/sparse/spmm.h"
#include "cc/sparse/structure.h"

namespace keras_lth::sparse {

// x is [batch, height, width, structure.rows], y is [batch, out_height, out_width, structure.cols].
// structure.taps = kernel_height * kernel_width.
struct ConvShape {
  std::int64_t batch, height, width;
  std::int32_t kernel_height, kernel_width;
  std::int32_t stride_height, stride_width;
  bool same;  // TensorFlow's "SAME" padding (more at the end where it is odd), else "VALID"

  std::int64_t OutHeight() const;
  std::int64_t OutWidth() const;
};

// Throws std::invalid_argument where shape and structure do not go together.
void Check(const Structure& structure, const ConvShape& shape);

void Convolve(const Structure& structure, const Values& values, const ConvShape& shape, const float* x,
              const Epilogue& epilogue, float* y, const Run& run);

void ConvolveTransposed(const Structure& structure, const Values& values, const ConvShape& shape, const float* dy,
                        float* dx, const Run& run);

void SampleConvolution(const Structure& structure, const ConvShape& shape, const float* x, const float* dy,
                       float* dvalues, const Run& run);

}  // namespace keras_lth::sparse

#endif  // KERAS_LTH_CC_SPARSE_CONV_H_
