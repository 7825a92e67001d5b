#include "cc/chain/chain.h"

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <utility>

#include "cc/chain/convolution.h"
#include "cc/chain/kernels.h"
#include "cc/sparse/kernels.h"
#include "cc/sparse/plan.h"
#include "cc/sparse/scratch.h"
#include "cc/threads/for_each.h"

namespace keras_lth::chain {

namespace {

constexpr double kWorthAThread = 1e5;                           // multiplications
constexpr std::int64_t kFloats = std::int64_t{1} << 13;        // of a task that moves memory
constexpr std::int64_t kTile = 64;                              // samples
constexpr std::int64_t kWeights = std::int64_t{1} << 13;       // of a task of a product

// Bounds of parts of about the same number of weights.
std::vector<std::int64_t> Cut(const std::int64_t* starts, std::int64_t outputs) {
  std::vector<std::int64_t> bounds{0};
  for (std::int64_t j = 1; j <= outputs; ++j) {
    if (j == outputs || starts[j] + j - starts[bounds.back()] - bounds.back() >= kWeights) bounds.push_back(j);
  }
  return bounds;
}

}  // namespace

void Chain::Add(std::int64_t tasks, std::function<void(std::int64_t)> body, double work) {
  phases_.push_back({tasks, std::move(body)});
  work_ += work;
}

void Chain::AddConvolution(const sparse::Structure& structure, const float* values, const Images& in,
                           const Window& window, const Images& out, const float* x, const sparse::Epilogue& epilogue,
                           float* y) {
  if (out.Size() == 0) return;
  const auto step = std::make_shared<const Convolution>(structure, values, in, window, out, x, epilogue, y, level_);
  Add(step->PackTasks(), [step](std::int64_t task) { step->Pack(task); }, 0);
  Add(step->MultiplyTasks(), [step](std::int64_t task) { step->Multiply(task); }, step->Multiplications());
}

void Chain::AddProduct(const sparse::Structure& structure, const float* values, std::int64_t m, const float* x,
                       const sparse::Epilogue& epilogue, float* y) {
  if (structure.taps != 1 || structure.block_rows != 1 || structure.block_cols != 1) {
    throw std::invalid_argument("a product of a chain has single weights");
  }
  if (m == 0) return;
  const std::int64_t rows = structure.rows, cols = structure.cols;
  const std::int64_t* const starts = structure.by_col.starts;
  const sparse::Index index = structure.by_col.others;
  const std::vector<std::int64_t> bounds = Cut(starts, cols);
  const auto parts = static_cast<std::int64_t>(bounds.size()) - 1;
  if (m == 1) {
    const Kernels& kernels = KernelsFor(level_);
    const auto dot = [=, &kernels](std::int64_t task) {
      const auto part = static_cast<std::size_t>(task);
      kernels.dot({starts, index, values}, bounds[part], bounds[part + 1], x, epilogue.bias, epilogue.relu, y);
    };
    // A number for itself takes several times as long as one that a vector shares.
    Add(parts, dot, 4 * static_cast<double>(structure.room));
    return;
  }
  const sparse::Kernels& kernels = sparse::KernelsFor(level_);
  const sparse::Tiles tiles = sparse::CutBatch(m, kTile);
  const auto packed = std::make_shared<const sparse::Scratch>(tiles.Count() * tiles.full * rows);
  const sparse::Packing packing{kernels, x, rows, rows, tiles, packed->data()};
  Add(packing.Tasks(), packing, 0);
  const auto multiply = [=, &kernels](std::int64_t task) {
    const auto part = static_cast<std::size_t>(task % parts);
    const std::int64_t tile = task / parts, begin = bounds[part], outputs = bounds[part + 1] - begin;
    const std::int64_t first = tile * tiles.full, width = tiles.Width(tile);
    const sparse::Singles singles{starts + begin, index, packed->data() + first * rows, width};
    const sparse::Scratch panel(outputs * width);
    kernels.multiply_singles(singles, values + starts[begin], outputs, width, sparse::Finish{}, panel.data(), width);
    kernels.unpack(panel.data(), width, tiles.Rows(tile), outputs,
                   epilogue.bias == nullptr ? nullptr : epilogue.bias + begin, epilogue.relu, y + first * cols + begin,
                   cols);
  };
  Add(tiles.Count() * parts, multiply, static_cast<double>(structure.room * m));
}

void Chain::AddPool(const Images& in, const Window& window, const Images& out, bool largest, const float* x,
                    float* y) {
  if (in.batch != out.batch || in.channels != out.channels) {
    throw std::invalid_argument("a pool has as many images and channels at both sides");
  }
  const Kernels& kernels = KernelsFor(level_);
  const auto body = [=, &kernels](std::int64_t task) {
    const std::int64_t image = task / out.height, row = task % out.height * window.stride_y - window.top;
    const std::int64_t top = std::max<std::int64_t>(row, 0), bottom = std::min(row + window.height, in.height);
    std::vector<const float*> pixels;
    float* target = y + task * out.width * out.channels;
    for (std::int64_t i = 0; i < out.width; ++i, target += out.channels) {
      const std::int64_t col = i * window.stride_x - window.left;
      const std::int64_t left = std::max<std::int64_t>(col, 0), right = std::min(col + window.width, in.width);
      pixels.clear();
      for (std::int64_t v = top; v < bottom; ++v) {
        for (std::int64_t u = left; u < right; ++u) {
          pixels.push_back(x + ((image * in.height + v) * in.width + u) * in.channels);
        }
      }
      const auto count = static_cast<std::int64_t>(pixels.size());
      if (count == 0) {
        std::fill(target, target + out.channels, 0.0F);
      } else if (largest) {
        kernels.largest(pixels.data(), count, out.channels, target);
      } else {
        kernels.sum(pixels.data(), count, out.channels, 1.0F / static_cast<float>(count), target);
      }
    }
  };
  Add(out.batch * out.height, body, static_cast<double>(in.Size()) / 4);
}

void Chain::AddSum(std::int64_t n, const float* a, const float* b, bool relu, float* y) {
  const Kernels& kernels = KernelsFor(level_);
  const auto body = [=, &kernels](std::int64_t task) {
    const std::int64_t at = task * kFloats;
    kernels.add(a + at, b + at, std::min(kFloats, n - at), relu, y + at);
  };
  Add((n + kFloats - 1) / kFloats, body, static_cast<double>(n) / 4);
}

void Chain::Run(unsigned threads) const {
  const unsigned most = threads == 0 ? threads::Size() : threads;
  sparse::RunPhases(threads != 0 ? threads : static_cast<unsigned>(std::min<double>(most, 1 + work_ / kWorthAThread)),
                    phases_);
}

}  // namespace keras_lth::chain
