// The inner loops of the convolution, a part of each instruction set's table.
//
// Activations are cut into tiles of the image, one tile a lane: a tile's pixel, in a channel, is a vector whose lanes
// are the same pixel of as many tiles. Every load is aligned and whole, for any kernel size, stride and padding; batch
// and image fill the lanes alike.
#ifndef KERAS_LTH_CC_SPARSE_CONV_KERNELS_H_
#define KERAS_LTH_CC_SPARSE_CONV_KERNELS_H_

#include <cstdint>

namespace keras_lth::sparse {

inline constexpr std::int64_t kMostLanes = 16;
inline constexpr std::int64_t kMostVectors = 8;  // of a run of pixels in a row

// The stored weights as they meet the pixels of one chunk of channels: entry e joins the run of vectors at
// in + offsets[e] with `width` outputs by weights[e * width ...]. Entries of group g: starts[g] ... starts[g + 1] - 1.
struct Panel {
  std::int64_t groups;
  std::int64_t width;
  const std::int64_t* starts;
  const std::uint32_t* offsets;  // [entries]
  const float* weights;          // [entries, width]
};

struct ConvKernels {
  std::int64_t lanes;    // floats in a vector
  std::int64_t vectors;  // rows * vectors of a call of `sample` at most; at least kMostVectors

  // out[c * out_step + lane] = pixels[lane][c].
  void (*pack)(const float* const* pixels, std::int64_t channels, float* out, std::int64_t out_step);

  // pixels[lane][c] = relu(in[c * in_step + lane]) where pixels[lane] is not null.
  void (*unpack)(const float* in, std::int64_t in_step, std::int64_t channels, bool relu, float* const* pixels);

  // out[groups, width, vectors] = start + the sum over entries of weight * run, where start is out itself, or
  // bias[groups * width], or 0 where bias is null. vectors <= kMostVectors.
  void (*multiply)(const Panel& panel, const float* in, std::int64_t vectors, bool add, const float* bias, float* out);

  // sums[entries, width] += the sum over rows, vectors and lanes of in[offsets[e] + row * in_step + vector] *
  // grad[group, width, rows, vectors]. rows is 1, 2 or 4; panel.weights is not read; sums[0] is of entry starts[0].
  void (*sample)(const Panel& panel, const float* in, std::int64_t in_step, std::int64_t rows, std::int64_t vectors,
                 const float* grad, float* sums);
};

}  // namespace keras_lth::sparse

#endif  // KERAS_LTH_CC_SPARSE_CONV_KERNELS_H_
