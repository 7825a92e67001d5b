// The table of inner loops that each instruction set fills.
//
// They work on feature-major tiles: an input (a feature, or a channel) is a contiguous run of `width` floats, one for
// each sample (a row of the batch, or a pixel). Weights are broadcast, so any block serves every instruction set, in
// both directions. Nothing needs to be aligned; runs that start at multiples of 64 bytes are faster.
#ifndef KERAS_LTH_CC_SPARSE_KERNELS_H_
#define KERAS_LTH_CC_SPARSE_KERNELS_H_

#include <cstdint>

#include "cc/isa/isa.h"
#include "cc/sparse/conv_kernels.h"

namespace keras_lth::sparse {

// A run's width is a multiple of this, filled up with zeros.
inline constexpr std::int64_t kWidthUnit = 4;

// A list of stored blocks, one an entry, and the inputs they meet. Entry e has `depth` inputs; input i of it is the run
//   in + index[e] * scale + i * in_step.
// For a product `index` is BlockList::others, and scale = depth * in_step; for a convolution it may be any offsets into
// a padded slab, in units of `scale` floats. The weight between input i and output j is
//   weights[id * block + i * weight_in + j * weight_out],  id = ids ? ids[e] : e;
// weight_out is 1 (blocks as they are stored), or weight_in is 1 (blocks transposed, for the gradient of the input).
struct Entries {
  std::int64_t count;
  const std::int32_t* index;  // [count]
  const std::int32_t* ids;    // [count], or null
  std::int64_t depth;
  std::int64_t block;
  std::int64_t weight_in, weight_out;
  const float* in;
  std::int64_t scale, in_step;
};

struct Kernels {
  const char* name;

  // out[j * out_step + t] = (add ? out[j * out_step + t] : 0) + the sum over entries and inputs of weight * input[t],
  // for j < outputs, t < width. Sums go entry after entry.
  void (*multiply)(const Entries& entries, const float* weights, std::int64_t outputs, std::int64_t width, bool add,
                   float* out, std::int64_t out_step);

  // The sampled gradient of the weights: dweights[id * block + i * weight_in + j * weight_out] =
  // (add ? itself : 0) + the sum over t < width of input[t] * grad[j * grad_step + t], for every entry, i < depth,
  // j < outputs.
  void (*sample)(const Entries& entries, const float* grad, std::int64_t grad_step, std::int64_t outputs,
                 std::int64_t width, bool add, float* dweights);

  // Row-major to feature-major: out[f * out_step + t] = t < rows ? x[t * x_step + f] : 0, for f < features, t < width.
  // Any width.
  void (*pack)(const float* x, std::int64_t x_step, std::int64_t rows, std::int64_t features, float* out,
               std::int64_t out_step, std::int64_t width);

  // And back: y[t * y_step + f] = relu(in[f * in_step + t] + bias[f]), for t < rows, f < features. `bias` may be null.
  // Any rows; nothing is read beyond them, rounded up to kWidthUnit.
  void (*unpack)(const float* in, std::int64_t in_step, std::int64_t rows, std::int64_t features, const float* bias,
                 bool relu, float* y, std::int64_t y_step);

  // bfloat16 to float32.
  void (*widen)(const std::uint16_t* in, std::int64_t count, float* out);

  const ConvKernels* convolution;
};

const Kernels& KernelsFor(isa::Level level);

}  // namespace keras_lth::sparse

#endif  // KERAS_LTH_CC_SPARSE_KERNELS_H_
