// Steps of a network on NHWC arrays that stay where they are, prepared once and run often: for few examples, where
// preparing a call, waking threads and copying tiles would take longer than the arithmetic. Float32; sums in an order
// that depends on the shapes and the instruction set only: the same bits for any number of threads.
#ifndef KERAS_LTH_CC_CHAIN_CHAIN_H_
#define KERAS_LTH_CC_CHAIN_CHAIN_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "cc/isa/isa.h"
#include "cc/sparse/phases.h"
#include "cc/sparse/spmm.h"
#include "cc/sparse/structure.h"

namespace keras_lth::chain {

// [batch, height, width, channels]
struct Images {
  std::int64_t batch, height, width, channels;

  std::int64_t Size() const { return batch * height * width * channels; }
};

// Output (y, x) meets the pixels (y * stride_y - top ...) x (x * stride_x - left ...), those inside the image.
struct Window {
  std::int64_t height, width, stride_y, stride_x, top, left;
};

class Chain {
 public:
  explicit Chain(isa::Level level) : level_(level) {}

  // y = relu(convolution of x + bias). Throws std::invalid_argument where the structure, the sizes and the window do
  // not go together. x, y and the bias are used at every run, the structure and the values only here.
  void AddConvolution(const sparse::Structure& structure, const float* values, const Images& in, const Window& window,
                      const Images& out, const float* x, const sparse::Epilogue& epilogue, float* y);

  // y[m, cols] = relu(x[m, rows] W + bias) for single weights, which are used at every run as the arrays are.
  void AddProduct(const sparse::Structure& structure, const float* values, std::int64_t m, const float* x,
                  const sparse::Epilogue& epilogue, float* y);

  // The largest, or the mean, of the pixels that a window meets.
  void AddPool(const Images& in, const Window& window, const Images& out, bool largest, const float* x, float* y);

  // y = relu(a + b), n values each; y may be a or b.
  void AddSum(std::int64_t n, const float* a, const float* b, bool relu, float* y);

  // All steps in order, on at most `threads` threads (0: threads::Size(), fewer where the work is small). One run of a
  // chain at a time.
  void Run(unsigned threads) const;

 private:
  void Add(std::int64_t tasks, std::function<void(std::int64_t)> body, double work);

  isa::Level level_;
  std::vector<sparse::Phase> phases_;
  double work_ = 0;  // about multiplications
};

}  // namespace keras_lth::chain

#endif  // KERAS_LTH_CC_CHAIN_CHAIN_H_
