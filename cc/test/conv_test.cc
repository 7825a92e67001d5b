// The sparse convolution and both gradients against loops in double, on odd sizes, and the adjoint identity that ties
// the three together. Prints the instruction set and the number of failures. With the argument "quick" fewer cases are
// taken: enough for the sanitizers.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "cc/isa/isa.h"
#include "cc/sparse/conv.h"
#include "cc/test/conv_testing.h"

namespace {

namespace sp = keras_lth::sparse;
using keras_lth::testing::At;
using keras_lth::testing::Close;
using keras_lth::testing::GiveRoom;
using keras_lth::testing::Make;
using keras_lth::testing::Narrow;
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

void CheckAll(keras_lth::isa::Level level, bool quick) {
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
            if (++turn % 8 != 0 && quick) continue;
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

// Room for more blocks changes no bit of a result, and its gradient is 0; nor do indices of 16 bits.
void CheckRoom(keras_lth::isa::Level level) {
  for (const sp::ConvShape& shape : {sp::ConvShape{3, 9, 10, 3, 3, 2, 1, true}, sp::ConvShape{1, 1, 40, 1, 1, 1, 1, true},
                                     sp::ConvShape{2, 3, 3, 7, 7, 1, 1, false}}) {
    for (const Block block : {Block{1, 1}, Block{4, 4}, Block{3, 5}}) {
      for (const double density : {0.0, 0.3, 1.0}) {
        const std::int64_t taps = std::int64_t{shape.kernel_height} * shape.kernel_width;
        const Sparse tight = Make(taps, 18, 21, block.rows, block.cols, density);
        Sparse roomy = tight;
        roomy.structure.by_col.starts = roomy.col_starts.data();
        roomy.structure.by_row.starts = roomy.row_starts.data();
        roomy.structure.by_row.firsts = roomy.col_starts.data();
        GiveRoom(6, &roomy);
        sp::Check(roomy.structure, 2);
        const std::vector<float> x = Randoms(shape.batch * shape.height * shape.width * 18);
        const std::vector<float> dy = Randoms(shape.batch * shape.OutHeight() * shape.OutWidth() * 21);
        const auto results = [&](const Sparse& s) {
          const sp::Values values{s.values.data(), sp::Storage::kFloat32};
          std::vector<float> all(dy.size() + x.size() + s.values.size(), std::numeric_limits<float>::quiet_NaN());
          sp::Convolve(s.structure, values, shape, x.data(), {}, all.data(), {level});
          sp::ConvolveTransposed(s.structure, values, shape, dy.data(), all.data() + dy.size(), {level});
          sp::SampleConvolution(s.structure, shape, x.data(), dy.data(), all.data() + dy.size() + x.size(), {level});
          return all;
        };
        const std::vector<float> got = results(roomy), wanted = results(tight);
        Narrow(&roomy);
        sp::Check(roomy.structure, 2);
        const std::vector<float> narrow = results(roomy);
        const std::string name = "room, kernel " + std::to_string(shape.kernel_height) + ", blocks " +
                                 std::to_string(block.rows) + " x " + std::to_string(block.cols);
        Expect(std::memcmp(got.data(), wanted.data(), wanted.size() * sizeof(float)) == 0, name + ": other bits");
        Expect(std::memcmp(got.data(), narrow.data(), got.size() * sizeof(float)) == 0, name + ": 16 bits, other ones");
        Expect(std::all_of(got.begin() + static_cast<std::ptrdiff_t>(wanted.size()), got.end(),
                           [](float gradient) { return gradient == 0.0F; }), name + ": a gradient");
      }
    }
  }
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
  const std::int64_t cout = 21;  // more than a vector, and some
  const Sparse s = Make(9, 6, cout, 1, 1, 1.0);
  const std::int64_t pixels = shape.batch * shape.height * shape.width;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const std::int64_t pixel : {std::int64_t{0}, shape.width * 5 + 6, pixels - 1}) {
    std::vector<float> x = Randoms(pixels * 6), y(static_cast<std::size_t>(pixels * cout));
    std::vector<float> dx(x.size()), dw(s.values.size());
    At(x, pixel * 6 + 2) = nan;
    std::vector<bool> meets(static_cast<std::size_t>(pixels), false);
    std::vector<bool> taps(9, false);
    Pairs(shape, 6, cout, [&](std::int64_t from, std::int64_t to, std::int64_t tap) {
      if (from != pixel * 6) return;
      meets[static_cast<std::size_t>(to / cout)] = true;
      taps[static_cast<std::size_t>(tap)] = true;
    });
    const sp::Values values{s.values.data(), sp::Storage::kFloat32};
    sp::Convolve(s.structure, values, shape, x.data(), {nullptr, true}, y.data(), {level, 1});
    bool right = true;
    for (std::int64_t i = 0; i < pixels * cout; ++i) {
      right &= std::isnan(At(y, i)) == meets[static_cast<std::size_t>(i / cout)];
    }
    Expect(right, "which outputs a NaN in the input reaches");
    const std::vector<float> dy = Randoms(pixels * cout);
    sp::SampleConvolution(s.structure, shape, x.data(), dy.data(), dw.data(), {level, 1});
    right = true;
    for (std::int64_t i = 0; i < 9 * 6 * cout; ++i) {
      const bool reached = i / cout % 6 == 2 && taps[static_cast<std::size_t>(i / (6 * cout))];
      right &= std::isnan(At(dw, At(s.place, i))) == reached;
    }
    Expect(right, "which weights' gradients a NaN in the input reaches");
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bool quick = argc > 1 && std::strcmp(argv[1], "quick") == 0;
  const keras_lth::isa::Level level = keras_lth::isa::Choose("");
  std::printf("instruction set %s\n", keras_lth::isa::Name(level));
  CheckAll(level, quick);
  CheckRoom(level);
  CheckMessages();
  CheckInfinities(level);
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
