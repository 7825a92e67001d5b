// A convolution over planes: each channel of an image is one row of pixels with its padding, so a weight meets a run of
// neighbouring pixels, whatever the batch is. What a run computes at the padding is left out.
#ifndef KERAS_LTH_CC_CHAIN_CONVOLUTION_H_
#define KERAS_LTH_CC_CHAIN_CONVOLUTION_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "cc/chain/chain.h"
#include "cc/chain/kernels.h"
#include "cc/sparse/conv_kernels.h"
#include "cc/sparse/scratch.h"

namespace keras_lth::chain {

class Convolution {
 public:
  Convolution(const sparse::Structure& structure, const float* values, const Images& in, const Window& window,
              const Images& out, const float* x, const sparse::Epilogue& epilogue, float* y, isa::Level level);

  // First the one, then the other.
  std::int64_t PackTasks() const;
  void Pack(std::int64_t task) const;
  std::int64_t MultiplyTasks() const;
  void Multiply(std::int64_t task) const;

  double Multiplications() const;

 private:
  void FindPixels(const Window& window);
  void FindEntries(const sparse::Structure& structure, const float* values, const Window& window);
  std::int64_t Parts(std::int64_t all, std::int64_t most) const;

  const Kernels& kernels_;
  const sparse::ConvKernels& moves_;
  Images in_, out_;
  const float* x_;
  float* y_;
  bool relu_;
  // A plane is [stride_y, stride_x, rows, pitch] pixels, those that neighbouring outputs meet side by side, and is
  // filled up to whole vectors. Output (y, x) is at y * pitch + x of a run.
  std::int64_t phases_y_, phases_x_, rows_, pitch_, plane_;
  std::vector<std::int32_t> sources_;  // [plane]: the pixel of an image, or -1 for padding
  std::vector<std::int32_t> targets_;  // [vectors of outputs * lanes]: the output's pixel, or -1
  std::int64_t groups_, width_;        // of outputs
  std::vector<std::int64_t> starts_;
  std::vector<std::uint32_t> offsets_;
  std::vector<float> weights_, bias_;  // the bias is there, filled up to whole groups, or empty
  std::int64_t together_;              // groups of a task
  std::int64_t pieces_;                // tasks that a group's runs are cut into
  std::vector<float> zeros_;           // a pixel
  std::unique_ptr<sparse::Scratch> packed_;
};

}  // namespace keras_lth::chain

#endif  // KERAS_LTH_CC_CHAIN_CONVOLUTION_H_
