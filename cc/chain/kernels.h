// The inner loops of a chain, one table for each instruction set.
#ifndef KERAS_LTH_CC_CHAIN_KERNELS_H_
#define KERAS_LTH_CC_CHAIN_KERNELS_H_

#include <cstdint>

#include "cc/isa/isa.h"
#include "cc/sparse/conv_kernels.h"
#include "cc/sparse/index.h"

namespace keras_lth::chain {

// Single weights of outputs: those of output j are starts[j] ... starts[j + 1] - 1.
struct Singles {
  const std::int64_t* starts;
  sparse::Index index;
  const float* weights;
};

struct Kernels {
  std::int64_t lanes;  // floats in a vector

  // As ConvKernels::multiply for panels of width 1 that begin a sum; short runs do not wait for their own sums.
  void (*multiply)(const sparse::Panel& panel, const float* in, std::int64_t vectors, const float* bias, float* out);

  // One sample: y[j] = relu(the sum of weight * x[index] + bias[j]) for begin <= j < end. bias may be null.
  void (*dot)(const Singles& singles, std::int64_t begin, std::int64_t end, const float* x, const float* bias,
              bool relu, float* y);

  // out[c] = the largest of pixels[i][c], or their sum times `scale`, for i < count, at least 1.
  void (*largest)(const float* const* pixels, std::int64_t count, std::int64_t channels, float* out);
  void (*sum)(const float* const* pixels, std::int64_t count, std::int64_t channels, float scale, float* out);

  // out[i] = relu(a[i] + b[i])
  void (*add)(const float* a, const float* b, std::int64_t n, bool relu, float* out);
};

const Kernels& KernelsFor(isa::Level level);

}  // namespace keras_lth::chain

#endif  // KERAS_LTH_CC_CHAIN_KERNELS_H_
