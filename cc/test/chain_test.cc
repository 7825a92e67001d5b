// A chain's steps against loops in double, on odd sizes, with every instruction set of the processor; the same bits for
// any number of threads. Prints the instruction set and the number of failures.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "cc/chain/chain.h"
#include "cc/isa/isa.h"
#include "cc/test/conv_testing.h"

namespace {

namespace chain = keras_lth::chain;
namespace sp = keras_lth::sparse;
using keras_lth::isa::Level;
using keras_lth::testing::At;
using keras_lth::testing::Close;
using keras_lth::testing::Make;
using keras_lth::testing::Out;
using keras_lth::testing::Pairs;
using keras_lth::testing::Randoms;
using keras_lth::testing::Sparse;

int failures = 0;

void Expect(bool holds, const std::string& what) {
  if (holds) return;
  ++failures;
  std::printf("FAILED: %s\n", what.c_str());
}

void Finish(std::int64_t channels, const std::vector<float>& bias, bool relu, std::vector<double>* y,
            std::vector<double>* magnitude) {
  for (std::size_t i = 0; i < y->size(); ++i) {
    const double b = bias.empty() ? 0.0 : static_cast<double>(bias[i % static_cast<std::size_t>(channels)]);
    (*y)[i] += b;
    (*magnitude)[i] += std::abs(b);
    if (relu) (*y)[i] = std::max((*y)[i], 0.0);
  }
}

// Runs a chain on 1 and on 3 threads, twice each, over a y that holds NaN before.
void Check(const chain::Chain& steps, std::vector<float>* y, const std::vector<double>& expected,
           const std::vector<double>& magnitude, const std::string& name) {
  std::vector<float> first;
  for (const unsigned threads : {1U, 3U, 1U, 3U}) {
    std::fill(y->begin(), y->end(), std::numeric_limits<float>::quiet_NaN());
    steps.Run(threads);
    if (first.empty()) first = *y;
    Expect(first == *y, name + "the same bits for any number of threads");
  }
  Expect(Close(*y, expected, magnitude), name + "values");
}

chain::Window WindowOf(const sp::ConvShape& s) {
  using keras_lth::testing::Before;
  return {s.kernel_height, s.kernel_width, s.stride_height, s.stride_width,
          Before(s.height, s.kernel_height, s.stride_height, s.same),
          Before(s.width, s.kernel_width, s.stride_width, s.same)};
}

void CheckConvolution(const sp::ConvShape& shape, std::int64_t cin, std::int64_t cout, std::int32_t rows,
                      std::int32_t cols, double density, bool relu, Level level) {
  const std::string name = "convolution of " + std::to_string(shape.batch) + " x " + std::to_string(shape.height) +
                           " x " + std::to_string(shape.width) + ", kernel " + std::to_string(shape.kernel_height) +
                           " x " + std::to_string(shape.kernel_width) + ", stride " +
                           std::to_string(shape.stride_height) + " " + std::to_string(shape.stride_width) +
                           (shape.same ? ", same, " : ", valid, ") + std::to_string(cin) + " -> " +
                           std::to_string(cout) + ", blocks " + std::to_string(rows) + " x " + std::to_string(cols) +
                           ", density " + std::to_string(density) + ": ";
  const Sparse s = Make(std::int64_t{shape.kernel_height} * shape.kernel_width, cin, cout, rows, cols, density);
  const chain::Images in{shape.batch, shape.height, shape.width, cin};
  const chain::Images out{shape.batch, Out(shape.height, shape.kernel_height, shape.stride_height, shape.same),
                          Out(shape.width, shape.kernel_width, shape.stride_width, shape.same), cout};
  const std::vector<float> x = Randoms(in.Size()), bias = relu ? Randoms(cout) : std::vector<float>();
  std::vector<double> expected(static_cast<std::size_t>(out.Size()), 0.0), magnitude(expected.size(), 0.0);
  Pairs(shape, cin, cout, [&](std::int64_t from, std::int64_t to, std::int64_t tap) {
    for (std::int64_t i = 0; i < cin; ++i) {
      for (std::int64_t j = 0; j < cout; ++j) {
        const double product = static_cast<double>(At(x, from + i)) * At(s.dense, (tap * cin + i) * cout + j);
        At(expected, to + j) += product;
        At(magnitude, to + j) += std::abs(product);
      }
    }
  });
  Finish(cout, bias, relu, &expected, &magnitude);
  std::vector<float> y(expected.size());
  chain::Chain steps(level);
  steps.AddConvolution(s.structure, s.values.data(), in, WindowOf(shape), out, x.data(),
                       {bias.empty() ? nullptr : bias.data(), relu}, y.data());
  Check(steps, &y, expected, magnitude, name);
}

void CheckProduct(std::int64_t m, std::int64_t rows, std::int64_t cols, double density, bool relu, Level level) {
  const std::string name = "product of " + std::to_string(m) + " x " + std::to_string(rows) + " with " +
                           std::to_string(rows) + " x " + std::to_string(cols) + ", density " +
                           std::to_string(density) + ": ";
  const Sparse s = Make(1, rows, cols, 1, 1, density);
  const std::vector<float> x = Randoms(m * rows), bias = relu ? Randoms(cols) : std::vector<float>();
  std::vector<double> expected(static_cast<std::size_t>(m * cols), 0.0), magnitude(expected.size(), 0.0);
  for (std::int64_t t = 0; t < m; ++t) {
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < cols; ++j) {
        const double product = static_cast<double>(At(x, t * rows + i)) * At(s.dense, i * cols + j);
        At(expected, t * cols + j) += product;
        At(magnitude, t * cols + j) += std::abs(product);
      }
    }
  }
  Finish(cols, bias, relu, &expected, &magnitude);
  std::vector<float> y(expected.size());
  chain::Chain steps(level);
  steps.AddProduct(s.structure, s.values.data(), m, x.data(), {bias.empty() ? nullptr : bias.data(), relu}, y.data());
  Check(steps, &y, expected, magnitude, name);
}

void CheckPool(const chain::Images& in, const chain::Window& window, const chain::Images& out, bool largest,
               Level level) {
  const std::string name = std::string(largest ? "largest" : "mean") + " of windows " +
                           std::to_string(window.height) + " x " + std::to_string(window.width) + ", channels " +
                           std::to_string(in.channels) + ": ";
  const std::vector<float> x = Randoms(in.Size());
  std::vector<double> expected;
  for (std::int64_t i = 0; i < out.Size(); ++i) {
    const std::int64_t c = i % out.channels, px = i / out.channels % out.width;
    const std::int64_t py = i / out.channels / out.width % out.height, n = i / out.channels / out.width / out.height;
    double most = -std::numeric_limits<double>::infinity(), sum = 0, count = 0;
    const std::int64_t top = py * window.stride_y - window.top, left = px * window.stride_x - window.left;
    for (std::int64_t v = top; v < top + window.height; ++v) {
      for (std::int64_t u = left; u < left + window.width; ++u) {
        if (v < 0 || v >= in.height || u < 0 || u >= in.width) continue;
        const auto value = static_cast<double>(At(x, ((n * in.height + v) * in.width + u) * in.channels + c));
        most = std::max(most, value);
        sum += value;
        count += 1;
      }
    }
    expected.push_back(largest ? most : sum / count);
  }
  std::vector<float> y(expected.size());
  chain::Chain steps(level);
  steps.AddPool(in, window, out, largest, x.data(), y.data());
  Check(steps, &y, expected, std::vector<double>(y.size(), 1.0), name);
}

// Steps read what the ones before them wrote; one writes over its own input.
void CheckOrder(Level level) {
  const std::int64_t n = 20011;
  const std::vector<float> a = Randoms(n), b = Randoms(n);
  std::vector<float> y(a.size()), z(a.size());
  std::vector<double> expected;
  for (std::size_t i = 0; i < a.size(); ++i) {
    expected.push_back(2 * std::max(0.0, static_cast<double>(a[i]) + static_cast<double>(b[i])));
  }
  chain::Chain steps(level);
  steps.AddSum(n, a.data(), b.data(), true, y.data());
  steps.AddSum(n, y.data(), y.data(), false, y.data());
  steps.AddPool({1, 1, 1, n}, {1, 1, 1, 1, 0, 0}, {1, 1, 1, n}, true, y.data(), z.data());
  Check(steps, &z, expected, std::vector<double>(z.size(), 1.0), "three steps: ");
}

template <class Function>
void ExpectThrows(Function function, const std::string& what) {
  try {
    function();
  } catch (const std::invalid_argument&) {
    return;
  }
  Expect(false, what + " is refused");
}

void CheckRefusals(Level level) {
  const Sparse s = Make(9, 3, 4, 1, 1, 0.5), blocks = Make(1, 4, 4, 2, 2, 0.5);
  std::vector<float> x(3 * 25), y(4 * 9);
  chain::Chain steps(level);
  const auto convolve = [&](std::int64_t cin, std::int64_t cout, std::int64_t side, std::int64_t batch) {
    steps.AddConvolution(s.structure, s.values.data(), {1, 5, 5, cin}, {side, side, 1, 1, 0, 0}, {batch, 3, 3, cout},
                         x.data(), {}, y.data());
  };
  ExpectThrows([&] { convolve(2, 4, 3, 1); }, "a wrong number of inputs");
  ExpectThrows([&] { convolve(3, 5, 3, 1); }, "a wrong number of outputs");
  ExpectThrows([&] { convolve(3, 4, 2, 1); }, "a wrong number of taps");
  ExpectThrows([&] { convolve(3, 4, 3, 2); }, "another number of images");
  ExpectThrows([&] { steps.AddProduct(s.structure, s.values.data(), 1, x.data(), {}, y.data()); }, "a kernel");
  ExpectThrows([&] { steps.AddProduct(blocks.structure, blocks.values.data(), 1, x.data(), {}, y.data()); },
               "a product of blocks");
  ExpectThrows([&] { steps.AddPool({1, 5, 5, 3}, {3, 3, 1, 1, 0, 0}, {1, 3, 3, 4}, true, x.data(), y.data()); },
               "a pool of other channels");
}

void CheckAll(Level level) {
  for (const std::int64_t batch : {1, 3}) {
    for (const std::int32_t stride : {1, 2, 3}) {
      for (const bool same : {false, true}) {
        CheckConvolution({batch, 7, 6, 3, 3, stride, stride, same}, 5, 21, 1, 1, 0.3, same, level);
        CheckConvolution({batch, 9, 11, 1, 1, stride, 1, same}, 70, 17, 1, 1, 0.1, !same, level);
        CheckConvolution({batch, 5, 8, 2, 5, 1, stride, same}, 19, 9, 4, 4, 0.5, same, level);
      }
    }
  }
  CheckConvolution({1, 2, 2, 3, 3, 1, 1, true}, 130, 40, 1, 1, 0.05, true, level);
  CheckConvolution({2, 1, 1, 1, 1, 1, 1, true}, 16, 16, 1, 8, 1.0, true, level);
  CheckConvolution({1, 32, 31, 3, 3, 1, 1, true}, 3, 20, 1, 16, 1.0, true, level);
  CheckConvolution({1, 4, 4, 3, 3, 1, 1, true}, 8, 8, 1, 1, 0.0, true, level);
  CheckConvolution({0, 4, 4, 3, 3, 1, 1, true}, 8, 8, 1, 1, 0.5, true, level);
  for (const std::int64_t m : {0, 1, 2, 5, 33, 130}) {
    CheckProduct(m, 77, 45, 0.1, m % 2 == 1, level);
    CheckProduct(m, 300, 130, 0.9, m % 2 == 0, level);
    CheckProduct(m, 1, 1, 1.0, false, level);
    CheckProduct(m, 9, 7, 0.0, true, level);
  }
  for (const bool largest : {false, true}) {
    for (const std::int64_t channels : {1, 16, 37}) {
      CheckPool({2, 6, 8, channels}, {2, 2, 2, 2, 0, 0}, {2, 3, 4, channels}, largest, level);
      CheckPool({2, 7, 5, channels}, {3, 2, 2, 1, 1, 0}, {2, 4, 5, channels}, largest, level);
      CheckPool({1, 1, 30, channels}, {1, 30, 1, 1, 0, 0}, {1, 1, 1, channels}, largest, level);
    }
  }
  CheckOrder(level);
  CheckRefusals(level);
}

}  // namespace

int main() {
  const Level level = keras_lth::isa::Choose("");
  std::printf("instruction set %s\n", keras_lth::isa::Name(level));
  CheckAll(level);
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
