// The inner loops of a normalisation, one table for each instruction set.
//
// A run is `n` floats, whole samples one after the other. Numbers of a channel are arrays of `width` floats, a multiple of
// the channels: those of the float at i are at i % width. So short rows fill whole vectors too.
#ifndef KERAS_LTH_CC_NORM_KERNELS_H_
#define KERAS_LTH_CC_NORM_KERNELS_H_

#include <cstdint>

#include "cc/isa/isa.h"

namespace keras_lth::norm {

// (x - mean) * scale + shift.
struct Affine {
  const float* mean;
  const float* scale;
  const float* shift;
};

// Where the gradient passes a ReLU: everywhere, where the result is above 0, where the affine of x is.
enum class Mask { kNone, kResult, kAffine };

struct Kernels {
  // sums[j] += x - origin, squares[j] += (x - origin)^2
  void (*moments)(const float* x, std::int64_t n, std::int64_t width, const float* origin, float* sums, float* squares);

  // y = relu(affine(x) + residual); the residual may be null.
  void (*apply)(const float* x, const float* residual, std::int64_t n, std::int64_t width, const Affine& affine,
                bool relu, float* y);

  // g = dy where the mask is; sums[j] += g, products[j] += g * (x - mean). `masked`, if not null, becomes g.
  void (*reduce)(const float* dy, const float* x, const float* y, Mask mask, std::int64_t n, std::int64_t width,
                 const Affine& affine, float* masked, float* sums, float* products);

  // dx = scale * (g - constant - (x - mean) * slope), for g = dy where the mask is: kNone or kAffine.
  void (*input)(const float* dy, const float* x, Mask mask, std::int64_t n, std::int64_t width, const Affine& affine,
                const float* constant, const float* slope, float* dx);

  // largest[i] = x[i] where that is larger: never where one of them is NaN.
  void (*enlarge)(const float* x, std::int64_t n, float* largest);

  // dx[i] = left[i] where x[i] is the largest, and where the largest is NaN, else 0. What is given is no longer left.
  void (*give)(const float* x, const float* largest, std::int64_t n, float* left, float* dx);
};

const Kernels& KernelsFor(isa::Level level);

}  // namespace keras_lth::norm

#endif  // KERAS_LTH_CC_NORM_KERNELS_H_
