// Batch normalisation over the last axis, with what follows it in a network: a residual that is added, ReLU, pooling. In
// as few passes over the activations as there can be, as these are larger than the caches. float32; sums of fixed runs in
// float32 and of the runs in double, so a result has the same bits for any number of threads.
#ifndef KERAS_LTH_CC_NORM_NORM_H_
#define KERAS_LTH_CC_NORM_NORM_H_

#include <cstdint>

#include "cc/isa/isa.h"

namespace keras_lth::norm {

// How to run: the instruction set, and threads (0: up to threads::Size(), one where the work is small).
struct Run {
  isa::Level level;
  unsigned threads = 0;
};

struct Channels {
  std::int64_t count;
  const float* mean;
  const float* inverse;  // 1 / the standard deviation
  const float* gamma;
  const float* beta;
};

// mean[channels] and variance[channels], that of the samples, of x[samples, channels]; NaN where there is no sample.
void Moments(const float* x, std::int64_t samples, std::int64_t channels, float* mean, float* variance, const Run& run);

// y[samples, channels] = relu(gamma * (x - mean) * inverse + beta + residual); the residual may be null.
void Normalize(const float* x, const float* residual, std::int64_t samples, const Channels& channels, bool relu,
               float* y, const Run& run);

struct Gradients {
  float* x;         // [samples, channels]
  float* gamma;     // [channels]
  float* beta;
  float* residual;  // [samples, channels]; null where there is none
};

// The gradients of Normalize where mean and inverse are those of x. `y` is its result, read only where there are a
// residual and ReLU; may be null elsewhere.
void NormalizeGradient(const float* dy, const float* x, const float* y, std::int64_t samples, const Channels& channels,
                       bool relu, const Gradients& gradients, const Run& run);

// Behind a ReLU whose result is y[samples, channels]: the gradient in front of it, masked = dy where y > 0, and its
// sums[channels], the gradient of a bias.
void MaskedSums(const float* dy, const float* y, std::int64_t samples, std::int64_t channels, float* masked,
                float* sums, const Run& run);

// Windows of height x width pixels, side by side in x[batch, rows * height, columns * width, channels].
struct Windows {
  std::int64_t batch, rows, columns, height, width, channels;
};

// The gradient of the largest number of each window, from dy[batch, rows, columns, channels]: dx is dy at the first pixel
// that has it, row by row, and 0 elsewhere. As in TensorFlow, the first pixel counts even if it is NaN, and others do not.
void MaxPoolGradient(const float* x, const float* dy, const Windows& windows, float* dx, const Run& run);

}  // namespace keras_lth::norm

#endif  // KERAS_LTH_CC_NORM_NORM_H_
