// The sparse convolution and both gradients against loops in double, on odd sizes, and the adjoint identity that ties
// the three together. Prints the instruction set and the number of failures.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "cc/isa/isa.h"
#include "cc/sparse/conv.h"

namespace {

namespace sp = keras_lth::sparse;

int failures = 0;

void Expect(bool holds, const std::string& what) {
  if (holds) return;
  ++failures;
  std::printf("FAILED: %s\n", what.c_str());
}

std::mt19937_64 randoms(7);

float Random() { return static_cast<float>(static_cast<double>(randoms() >> 11) * 0x1p-52 - 1.0); }

std::vector<float> Randoms(std::int64_t n) {
  std::vector<float> values(static_cast<std::size_t>(n));
  for (float& v : values) v = Random();
  return values;
}

template <class T>
T& At(std::vector<T>& v, std::int64_t i) {
  return v[static_cast<std::size_t>(i)];
}
template <class T>
const T& At(const std::vector<T>& v, std::int64_t i) {
  return v[static_cast<std::size_t>(i)];
}

// A structure and its arrays, with the dense kernel [taps, rows, cols] and whether each weight is stored.
struct Sparse {
  std::vector<std::int64_t> col_starts, row_starts;
  std::vector<std::int32_t> col_others, row_others, row_ids;
  std::vector<float> values;
  std::vector<double> dense;
  std::vector<std::int64_t> place;  // of [taps, rows, cols] in the values; -1: not stored
  sp::Structure structure{};
};

Sparse Make(std::int64_t taps, std::int64_t rows, std::int64_t cols, std::int32_t block_rows, std::int32_t block_cols,
            double density) {
  Sparse s;
  s.structure.rows = rows;
  s.structure.cols = cols;
  s.structure.taps = taps;
  s.structure.block_rows = block_rows;
  s.structure.block_cols = block_cols;
  const std::int64_t row_groups = s.structure.RowGroups(), col_groups = s.structure.ColGroups();
  std::vector<std::int64_t> ids(static_cast<std::size_t>(taps * row_groups * col_groups), -1);
  s.col_starts.push_back(0);
  for (std::int64_t c = 0; c < col_groups; ++c) {
    for (std::int64_t r = 0; r < taps * row_groups; ++r) {
      if (Random() * 0.5 + 0.5 >= density) continue;
      At(ids, r * col_groups + c) = static_cast<std::int64_t>(s.col_others.size());
      s.col_others.push_back(static_cast<std::int32_t>(r));
    }
    s.col_starts.push_back(static_cast<std::int64_t>(s.col_others.size()));
  }
  s.row_starts.push_back(0);
  for (std::int64_t r = 0; r < taps * row_groups; ++r) {
    for (std::int64_t c = 0; c < col_groups; ++c) {
      if (At(ids, r * col_groups + c) < 0) continue;
      s.row_others.push_back(static_cast<std::int32_t>(c));
      s.row_ids.push_back(static_cast<std::int32_t>(At(ids, r * col_groups + c)));
    }
    s.row_starts.push_back(static_cast<std::int64_t>(s.row_others.size()));
  }
  const std::int64_t block = std::int64_t{block_rows} * block_cols;
  s.structure.stored = static_cast<std::int64_t>(s.col_others.size());
  s.values.assign(static_cast<std::size_t>(s.structure.stored * block), 0.0F);
  s.dense.assign(static_cast<std::size_t>(taps * rows * cols), 0.0);
  s.place.assign(s.dense.size(), -1);
  for (std::int64_t i = 0; i < taps * rows * cols; ++i) {
    const std::int64_t tap = i / (rows * cols), row = i / cols % rows, col = i % cols;
    const std::int64_t id = At(ids, (tap * row_groups + row / block_rows) * col_groups + col / block_cols);
    if (id < 0) continue;
    const std::int64_t place = id * block + row % block_rows * block_cols + col % block_cols;
    At(s.place, i) = place;
    // Also a number that bfloat16 holds.
    At(s.values, place) = std::round(Random() * 64) / 64;
    At(s.dense, i) = static_cast<double>(At(s.values, place));
  }
  s.structure.by_col = {s.col_starts.data(), s.col_others.data(), nullptr};
  s.structure.by_row = {s.row_starts.data(), s.row_others.data(), s.row_ids.data()};
  return s;
}

// TensorFlow's rule, written from its documentation.
std::int64_t Out(std::int64_t extent, std::int64_t kernel, std::int64_t stride, bool same) {
  std::int64_t n = 0;
  for (std::int64_t at = 0; same ? at < extent : at + kernel <= extent; at += stride) ++n;
  return n;
}
std::int64_t Before(std::int64_t extent, std::int64_t kernel, std::int64_t stride, bool same) {
  if (!same) return 0;
  const std::int64_t total = extent % stride == 0 ? kernel - stride : kernel - extent % stride;
  return std::max<std::int64_t>(total, 0) / 2;
}

// Calls visit(x index of channel 0, y index of channel 0, tap) for every pair of pixels that a tap joins.
void Pairs(const sp::ConvShape& s, std::int64_t cin, std::int64_t cout,
           const std::function<void(std::int64_t, std::int64_t, std::int64_t)>& visit) {
  const std::int64_t oh = Out(s.height, s.kernel_height, s.stride_height, s.same);
  const std::int64_t ow = Out(s.width, s.kernel_width, s.stride_width, s.same);
  const std::int64_t top = Before(s.height, s.kernel_height, s.stride_height, s.same);
  const std::int64_t left = Before(s.width, s.kernel_width, s.stride_width, s.same);
  for (std::int64_t n = 0; n < s.batch; ++n) {
    for (std::int64_t oy = 0; oy < oh; ++oy) {
      for (std::int64_t ox = 0; ox < ow; ++ox) {
        for (std::int64_t tap = 0; tap < std::int64_t{s.kernel_height} * s.kernel_width; ++tap) {
          const std::int64_t y = oy * s.stride_height - top + tap / s.kernel_width;
          const std::int64_t x = ox * s.stride_width - left + tap % s.kernel_width;
          if (y < 0 || y >= s.height || x < 0 || x >= s.width) continue;
          visit(((n * s.height + y) * s.width + x) * cin, ((n * oh + oy) * ow + ox) * cout, tap);
        }
      }
    }
  }
}

// |got - expected| against the sum of the magnitudes that were added up.
bool Close(const std::vector<float>& got, const std::vector<double>& expected, const std::vector<double>& magnitude) {
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (!(std::abs(static_cast<double>(got[i]) - expected[i]) <= 4e-6 * magnitude[i] + 1e-30)) return false;
  }
  return true;
}

std::vector<std::uint16_t> ToBfloat16(const std::vector<float>& values) {
  std::vector<std::uint16_t> halves;
  for (const float v : values) {
    std::uint32_t bits;
    std::memcpy(&bits, &v, sizeof(bits));
    halves.push_back(static_cast<std::uint16_t>(bits >> 16));
  }
  return halves;
}

struct Block {
  std::int32_t rows, cols;
};

void CheckCase(const sp::ConvShape& shape, std::int64_t cin, std::int64_t cout, Block block, double density,
               keras_lth::isa::Level level) {
  const std::string name =
      "batch " + std::to_string(shape.batch) + ", image " + std::to_string(shape.height) + " x " +
      std::to_string(shape.width) + ", kernel " + std::to_string(shape.kernel_height) + " x " +
      std::to_string(shape.kernel_width) + ", stride " + std::to_string(shape.stride_height) + " " +
      std::to_string(shape.stride_width) + (shape.same ? ", same" : ", valid") + ", channels " + std::to_string(cin) +
      " -> " + std::to_string(cout) + ", blocks " + std::to_string(block.rows) + " x " + std::to_string(block.cols) +
      ", density " + std::to_string(density) + ": ";
  const std::int64_t taps = std::int64_t{shape.kernel_height} * shape.kernel_width;
  const Sparse s = Make(taps, cin, cout, block.rows, block.cols, density);
  const std::int64_t oh = Out(shape.height, shape.kernel_height, shape.stride_height, shape.same);
  const std::int64_t ow = Out(shape.width, shape.kernel_width, shape.stride_width, shape.same);
  Expect(shape.OutHeight() == oh && shape.OutWidth() == ow, name + "size of the output");
  sp::Check(s.structure, shape);
  const std::vector<float> x = Randoms(shape.batch * shape.height * shape.width * cin);
  const std::vector<float> dy = Randoms(shape.batch * oh * ow * cout), bias = Randoms(cout);

  std::vector<double> y(dy.size(), 0.0), y_size(dy.size(), 0.0), dx(x.size(), 0.0), dx_size(x.size(), 0.0);
  std::vector<double> dw(s.values.size(), 0.0), dw_size(s.values.size(), 0.0);
  Pairs(shape, cin, cout, [&](std::int64_t from, std::int64_t to, std::int64_t tap) {
    for (std::int64_t i = 0; i < cin; ++i) {
      for (std::int64_t j = 0; j < cout; ++j) {
        const std::int64_t place = At(s.place, (tap * cin + i) * cout + j);
        if (place < 0) continue;
        const double w = At(s.dense, (tap * cin + i) * cout + j);
        const auto a = static_cast<double>(At(x, from + i)), g = static_cast<double>(At(dy, to + j));
        At(y, to + j) += w * a;
        At(y_size, to + j) += std::abs(w * a);
        At(dx, from + i) += w * g;
        At(dx_size, from + i) += std::abs(w * g);
        At(dw, place) += a * g;
        At(dw_size, place) += std::abs(a * g);
      }
    }
  });
  std::vector<double> relu = y, relu_size = y_size;
  for (std::size_t i = 0; i < y.size(); ++i) {
    const auto b = static_cast<double>(bias[i % static_cast<std::size_t>(cout)]);
    relu[i] = std::max(0.0, y[i] + b);
    relu_size[i] += std::abs(b);
  }

  const float nan = std::numeric_limits<float>::quiet_NaN();
  const sp::Values values{s.values.data(), sp::Storage::kFloat32};
  std::vector<float> first_y, first_dx, first_dw;
  for (const unsigned threads : {1U, 2U, 3U, 0U}) {
    const sp::Run run{level, threads};
    std::vector<float> out(y.size(), nan), din(x.size(), nan), dvalues(s.values.size(), nan);
    sp::Convolve(s.structure, values, shape, x.data(), {}, out.data(), run);
    sp::ConvolveTransposed(s.structure, values, shape, dy.data(), din.data(), run);
    sp::SampleConvolution(s.structure, shape, x.data(), dy.data(), dvalues.data(), run);
    if (threads == 1) {
      Expect(Close(out, y, y_size), name + "output");
      Expect(Close(din, dx, dx_size), name + "gradient of the input");
      Expect(Close(dvalues, dw, dw_size), name + "gradient of the weights");
      first_y = out, first_dx = din, first_dw = dvalues;
      double a = 0, b = 0, c = 0, size = 0;
      for (std::size_t i = 0; i < out.size(); ++i) a += static_cast<double>(out[i]) * static_cast<double>(dy[i]);
      for (std::size_t i = 0; i < x.size(); ++i) b += static_cast<double>(x[i]) * static_cast<double>(din[i]);
      for (std::size_t i = 0; i < dvalues.size(); ++i) {
        c += static_cast<double>(dvalues[i]) * static_cast<double>(s.values[i]);
        size += dw_size[i] * std::abs(static_cast<double>(s.values[i]));
      }
      Expect(std::abs(a - b) <= 1e-5 * size && std::abs(a - c) <= 1e-5 * size, name + "adjoints");
    } else {
      const auto same = [](const std::vector<float>& p, const std::vector<float>& q) {
        return p.empty() || std::memcmp(p.data(), q.data(), p.size() * sizeof(float)) == 0;
      };
      Expect(same(out, first_y) && same(din, first_dx) && same(dvalues, first_dw),
             name + "other bits with " + std::to_string(threads) + " threads");
    }
  }

  const std::vector<std::uint16_t> halves = ToBfloat16(s.values);
  const sp::Values half{halves.data(), sp::Storage::kBfloat16};
  std::vector<float> out(y.size(), nan), din(x.size(), nan);
  sp::Convolve(s.structure, half, shape, x.data(), {bias.data(), true}, out.data(), {level, 1});
  sp::ConvolveTransposed(s.structure, half, shape, dy.data(), din.data(), {level, 1});
  Expect(Close(out, relu, relu_size), name + "output with bias and ReLU, bfloat16");
  Expect(Close(din, dx, dx_size), name + "gradient of the input, bfloat16");
}

void CheckAll(keras_lth::isa::Level level) {
  const std::vector<Block> blocks = {{1, 1}, {4, 4}, {16, 16}, {1, 16}, {3, 5}, {16, 1}, {2, 2}, {8, 8}, {7, 3}};
  std::size_t turn = 0;
  // Every kernel, stride and padding, the rest in turns.
  const std::vector<std::int64_t> batches = {1, 2, 3, 16, 17, 32}, sizes = {1, 2, 5, 7, 8, 13};
  const std::vector<std::int64_t> channels = {1, 3, 20, 33};
  for (const std::int32_t kernel : {1, 2, 3, 5, 7}) {
    for (const std::int32_t stride : {1, 2, 3}) {
      for (const bool same : {true, false}) {
        for (const Block block : blocks) {
          for (const std::int64_t batch : {batches[turn % 6], batches[(turn + 3) % 6]}) {
            ++turn;
            const std::int32_t kernel_width = turn % 5 == 0 ? 8 - kernel : kernel;
            const std::int32_t stride_width = turn % 7 == 0 ? 4 - stride : stride;
            CheckCase({batch, sizes[turn % 6], sizes[turn / 2 % 6], kernel, kernel_width, stride, stride_width, same},
                      channels[turn % 4], channels[turn / 3 % 4], block, turn % 3 == 0 ? 0.05 : 0.4, level);
          }
        }
      }
    }
  }
  for (const double density : {0.0, 1.0}) {
    for (const Block block : blocks) CheckCase({3, 9, 10, 3, 3, 1, 1, true}, 18, 17, block, density, level);
  }
  CheckCase({0, 9, 10, 3, 3, 1, 1, true}, 18, 17, {1, 1}, 0.5, level);   // no images
  CheckCase({2, 0, 10, 3, 3, 1, 1, true}, 18, 17, {4, 4}, 0.5, level);   // no pixels
  CheckCase({2, 3, 3, 7, 7, 1, 1, false}, 5, 6, {1, 1}, 0.5, level);     // no outputs
  CheckCase({2, 3, 3, 7, 7, 2, 2, true}, 5, 6, {3, 5}, 0.5, level);      // a kernel larger than the image
  CheckCase({1, 40, 71, 3, 3, 1, 1, true}, 70, 40, {1, 1}, 0.2, level);  // many tiles, many chunks of channels
  CheckCase({1, 40, 71, 3, 5, 2, 2, false}, 40, 70, {4, 4}, 0.2, level);
  CheckCase({33, 12, 12, 3, 3, 1, 1, true}, 96, 80, {1, 1}, 0.1, level);
}

void CheckMessages() {
  const Sparse s = Make(9, 4, 4, 1, 1, 0.5);
  const auto expect = [&](const sp::ConvShape& shape, const std::string& words) {
    try {
      sp::Check(s.structure, shape);
      Expect(false, "accepted: " + words);
    } catch (const std::invalid_argument& error) {
      Expect(std::string(error.what()).find(words) != std::string::npos, error.what());
    }
  };
  expect({1, 5, 5, 3, 2, 1, 1, true}, "9 taps");
  expect({1, 5, 5, 3, 3, 0, 1, true}, "vertical stride is 0");
  expect({1, 5, 5, 3, 3, 1, -1, true}, "horizontal stride is -1");
  expect({-1, 5, 5, 3, 3, 1, 1, true}, "batch is -1");
  expect({1, 5, 5, 0, 3, 1, 1, true}, "kernel's height is 0");
}

// A value that is not finite stays with the outputs, weights and pixels that it meets.
void CheckInfinities(keras_lth::isa::Level level) {
  const sp::ConvShape shape{3, 11, 13, 3, 3, 1, 1, true};
  const Sparse s = Make(9, 6, 7, 1, 1, 1.0);
  const std::int64_t pixels = shape.batch * shape.height * shape.width;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const std::int64_t pixel : {std::int64_t{0}, shape.width * 5 + 6, pixels - 1}) {
    std::vector<float> x = Randoms(pixels * 6), y(static_cast<std::size_t>(pixels * 7));
    std::vector<float> dx(x.size()), dw(s.values.size());
    At(x, pixel * 6 + 2) = nan;
    std::vector<bool> meets(static_cast<std::size_t>(pixels), false);
    std::vector<bool> taps(9, false);
    Pairs(shape, 6, 7, [&](std::int64_t from, std::int64_t to, std::int64_t tap) {
      if (from != pixel * 6) return;
      meets[static_cast<std::size_t>(to / 7)] = true;
      taps[static_cast<std::size_t>(tap)] = true;
    });
    const sp::Values values{s.values.data(), sp::Storage::kFloat32};
    sp::Convolve(s.structure, values, shape, x.data(), {nullptr, true}, y.data(), {level, 1});
    bool right = true;
    for (std::int64_t i = 0; i < pixels * 7; ++i) {
      right &= std::isnan(At(y, i)) == meets[static_cast<std::size_t>(i / 7)];
    }
    Expect(right, "which outputs a NaN in the input reaches");
    const std::vector<float> dy = Randoms(pixels * 7);
    sp::SampleConvolution(s.structure, shape, x.data(), dy.data(), dw.data(), {level, 1});
    right = true;
    for (std::int64_t i = 0; i < 9 * 6 * 7; ++i) {
      const bool reached = i / 7 % 6 == 2 && taps[static_cast<std::size_t>(i / 42)];
      right &= std::isnan(At(dw, At(s.place, i))) == reached;
    }
    Expect(right, "which weights' gradients a NaN in the input reaches");
  }
}

}  // namespace

int main() {
  const keras_lth::isa::Level level = keras_lth::isa::Choose("");
  std::printf("instruction set %s\n", keras_lth::isa::Name(level));
  CheckAll(level);
  CheckMessages();
  CheckInfinities(level);
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
