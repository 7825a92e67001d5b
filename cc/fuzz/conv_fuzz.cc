// The sparse convolution and its gradients against loops over pixels, taps and stored blocks in double precision.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "cc/fuzz/fuzz.h"
#include "cc/fuzz/pattern.h"
#include "cc/sparse/conv.h"

namespace keras_lth::fuzz {

namespace {

constexpr std::int64_t kMostWork = 800000;  // multiplications

std::size_t At(std::int64_t i) { return static_cast<std::size_t>(i); }

enum Kind { kForward, kTransposed, kSampled };

struct Arguments {
  const Pattern& pattern;
  const sparse::ConvShape& shape;
  std::vector<float> values, x, dy, bias;
  bool relu;
};

// The extent of the output and the zeros before the first pixel, by TensorFlow's definition of its two paddings.
struct Axis {
  std::int64_t outputs, before;

  Axis(std::int64_t size, std::int64_t kernel, std::int64_t stride, bool same) : outputs(0), before(0) {
    if (same) {
      while (outputs * stride < size) ++outputs;
      before = std::max<std::int64_t>(0, (outputs - 1) * stride + kernel - size) / 2;
    } else {
      while (outputs * stride + kernel <= size) ++outputs;
    }
  }
};

// Calls visit(place of the weight, pixel of x, row, pixel of y, col) for every product of the convolution.
template <class Visit>
void ForProducts(const Arguments& a, bool by_col, const Visit& visit) {
  const sparse::Structure& s = a.pattern.structure;
  const sparse::ConvShape& shape = a.shape;
  const Axis vertical(shape.height, shape.kernel_height, shape.stride_height, shape.same);
  const Axis horizontal(shape.width, shape.kernel_width, shape.stride_width, shape.same);
  const sparse::BlockList& list = by_col ? s.by_col : s.by_row;
  const std::int64_t groups = by_col ? s.ColGroups() : s.taps * s.RowGroups();
  const auto weights = [&](std::int64_t tap, std::int64_t from, std::int64_t to, std::int64_t g, std::int64_t e) {
    const std::int64_t row_group = by_col ? list.others[e] : g, col_group = by_col ? g : list.others[e];
    if (row_group / s.RowGroups() != tap) return;
    const std::int64_t id = list.Id(e);
    for (std::int64_t i = 0; i < s.block_rows; ++i) {
      for (std::int64_t j = 0; j < s.block_cols; ++j) {
        const std::int64_t row = row_group % s.RowGroups() * s.block_rows + i, col = col_group * s.block_cols + j;
        if (row < s.rows && col < s.cols) visit((id * s.block_rows + i) * s.block_cols + j, from, row, to, col);
      }
    }
  };
  for (std::int64_t to = 0; to < shape.batch * vertical.outputs * horizontal.outputs; ++to) {
    const std::int64_t image = to / horizontal.outputs / vertical.outputs;
    for (std::int64_t tap = 0; tap < s.taps; ++tap) {
      const std::int64_t y = to / horizontal.outputs % vertical.outputs * shape.stride_height - vertical.before +
                             tap / shape.kernel_width;
      const std::int64_t x =
          to % horizontal.outputs * shape.stride_width - horizontal.before + tap % shape.kernel_width;
      if (y < 0 || y >= shape.height || x < 0 || x >= shape.width) continue;
      const std::int64_t from = (image * shape.height + y) * shape.width + x;
      for (std::int64_t g = 0; g < groups; ++g) {
        for (std::int64_t e = list.starts[g]; e < list.starts[g + 1]; ++e) weights(tap, from, to, g, e);
      }
    }
  }
}

std::vector<Expected> Loops(const Arguments& a, Kind kind) {
  const sparse::Structure& s = a.pattern.structure;
  const std::size_t sizes[] = {a.dy.size(), a.x.size(), a.values.size()};
  std::vector<Expected> expected(sizes[kind]);
  ForProducts(a, kind != kTransposed,
              [&](std::int64_t id, std::int64_t from, std::int64_t row, std::int64_t to, std::int64_t col) {
                const double weight = a.values[At(id)];
                const std::int64_t x = from * s.rows + row, y = to * s.cols + col;
                if (kind == kForward) expected[At(y)].Add(a.x[At(x)] * weight);
                if (kind == kTransposed) expected[At(x)].Add(a.dy[At(y)] * weight);
                if (kind == kSampled) expected[At(id)].Add(static_cast<double>(a.x[At(x)]) * a.dy[At(y)]);
              });
  for (std::size_t i = 0; i < expected.size() && kind == kForward && !a.bias.empty(); ++i) {
    expected[i].Add(a.bias[i % At(s.cols)]);
  }
  return expected;
}

std::vector<float> Run(const Arguments& a, Kind kind, const sparse::Values& values, std::size_t size,
                       const sparse::Run& run) {
  std::vector<float> out;
  out.reserve(1);
  out.assign(size, 12345.0F);
  const sparse::Structure& s = a.pattern.structure;
  if (kind == kForward) {
    const sparse::Epilogue epilogue{a.bias.empty() ? nullptr : a.bias.data(), a.relu};
    sparse::Convolve(s, values, a.shape, a.x.data(), epilogue, out.data(), run);
  } else if (kind == kTransposed) {
    sparse::ConvolveTransposed(s, values, a.shape, a.dy.data(), out.data(), run);
  } else {
    sparse::SampleConvolution(s, a.shape, a.x.data(), a.dy.data(), out.data(), run);
  }
  return out;
}

bool Refused(const Pattern& pattern, const sparse::ConvShape& shape) {
  try {
    sparse::Check(pattern.structure, shape);
  } catch (const std::invalid_argument&) {
    return true;
  }
  return false;
}

}  // namespace

Outcome Convolution(Bytes* bytes) {
  sparse::ConvShape shape{};
  shape.kernel_height = bytes->OneOf({3, 1, 5, 7, 2});
  shape.kernel_width = bytes->Chance(200) ? shape.kernel_height : bytes->OneOf({1, 2, 3, 4});
  shape.stride_height = bytes->OneOf({1, 2, 1, 3});
  shape.stride_width = bytes->Chance(200) ? shape.stride_height : bytes->OneOf({1, 2, 4});
  shape.same = bytes->Chance(128);
  shape.batch = bytes->Between(0, 5);
  shape.height = bytes->Between(0, bytes->OneOf({9, 40, 2}));
  shape.width = bytes->Chance(128) ? shape.height : bytes->Between(0, bytes->OneOf({9, 40, 70}));
  const std::int64_t taps = std::int64_t{shape.kernel_height} * shape.kernel_width;
  const std::int64_t most = bytes->OneOf({8, 3, 40});
  const std::int64_t rows = bytes->Between(0, most), cols = bytes->Between(0, most);
  Pattern pattern(bytes, rows, cols, taps);
  const unsigned threads = Workers(bytes), others = Workers(bytes);
  if (bytes->Chance(40)) pattern.Break(bytes);
  const auto kind = bytes->OneOf({kForward, kTransposed, kSampled});
  // Some callers check no more than a product reads.
  const bool whole = bytes->Chance(128);
  const auto reads = whole ? sparse::Reads::kBoth : kind == kTransposed ? sparse::Reads::kByRow : sparse::Reads::kByCol;
  if (!Accepted(pattern, threads, reads)) return Outcome::kRefused;
  const sparse::Structure& s = pattern.structure;
  if (bytes->Chance(20)) {
    const auto bad = bytes->OneOf({-1, std::numeric_limits<std::int32_t>::min()});
    switch (bytes->Between(0, 6)) {
      case 0: shape.batch = bad; break;
      case 1: shape.height = bad; break;
      case 2: shape.width = bad; break;
      case 3: shape.kernel_height = bytes->OneOf({0, bad}); break;
      case 4: shape.kernel_width = bytes->OneOf({0, bad}); break;
      case 5: shape.stride_height = bytes->OneOf({0, bad}); break;
      default: shape.stride_width = bytes->OneOf({0, bad});
    }
    Expect(Refused(pattern, shape), pattern.Name() + ": a shape that makes no sense is accepted");
    return Outcome::kRefused;
  }
  const bool fits = s.taps == taps;
  Expect(Refused(pattern, shape) != fits, pattern.Name() + (fits ? ": refused" : ": accepted with other taps"));
  if (!fits) return Outcome::kRefused;
  const std::int64_t pixels = shape.batch * shape.height * shape.width;
  const Axis vertical(shape.height, shape.kernel_height, shape.stride_height, shape.same);
  const Axis horizontal(shape.width, shape.kernel_width, shape.stride_width, shape.same);
  Expect(shape.OutHeight() == vertical.outputs && shape.OutWidth() == horizontal.outputs,
         "convolution: " + std::to_string(shape.OutHeight()) + " x " + std::to_string(shape.OutWidth()) +
             " outputs, not " + std::to_string(vertical.outputs) + " x " + std::to_string(horizontal.outputs));
  const std::int64_t outputs = shape.batch * vertical.outputs * horizontal.outputs;
  const std::int64_t padded = s.RowGroups() * s.block_rows + s.ColGroups() * s.block_cols;
  const std::int64_t work = s.room * pattern.Area() + padded + s.taps * s.RowGroups();
  if (work > kMostWork || outputs * work / std::max<std::int64_t>(s.taps, 1) > kMostWork) return Outcome::kDone;
  if ((pixels + outputs) * padded > kMostWork) return Outcome::kDone;
  // Around the image are zeros. Whether a weight or a gradient that is infinite meets them is not said.
  Arguments a{pattern, shape, Blocks(bytes, pattern, true), Floats(bytes, pixels * s.rows),
              Floats(bytes, outputs * s.cols, kind == kSampled), {}, false};
  if (bytes->Chance(100)) a.bias = Floats(bytes, s.cols);
  a.relu = bytes->Chance(100);
  std::vector<std::uint16_t> halves;
  const sparse::Values values = Stored(bytes, a.values, &halves);
  const isa::Level level = Level(bytes);
  const char* kinds[] = {"convolution", "transposed convolution", "sampled convolution"};
  const std::string name =
      std::string(kinds[kind]) + " of [" + std::to_string(shape.batch) + ", " + std::to_string(shape.height) + ", " +
      std::to_string(shape.width) + "], kernel " + std::to_string(shape.kernel_height) + " x " +
      std::to_string(shape.kernel_width) + ", strides " + std::to_string(shape.stride_height) + ", " +
      std::to_string(shape.stride_width) + (shape.same ? ", same, " : ", valid, ") + pattern.Name() + ", " +
      isa::Name(level) + ", threads " + std::to_string(threads);
  std::vector<Expected> expected = Loops(a, kind);
  const std::vector<float> got = Run(a, kind, values, expected.size(), {level, threads});
  for (std::size_t i = 0; i < expected.size() && kind == kSampled; ++i) {
    // For the same reason an infinite pixel may make a NaN of its weights, but of no others.
    if (std::isinf(expected[i].sum) && std::isnan(got[i])) expected[i].sum = got[i];
  }
  ExpectNear(got, expected, kind == kForward && a.relu, name);
  ExpectSame(got, Run(a, kind, values, expected.size(), {level, others}), name + " and " + std::to_string(others));
  return Outcome::kDone;
}

}  // namespace keras_lth::fuzz
