#include "cc/sparse/spmm.h"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "cc/sparse/kernels.h"
#include "cc/sparse/scratch.h"
#include "cc/threads/for_each.h"

namespace keras_lth::sparse {

namespace {

constexpr std::int64_t kTile = 32;                       // samples of a tile
constexpr std::int64_t kStrip = std::int64_t{1} << 23;   // floats packed at a time, at least a tile's
constexpr std::int64_t kFeatures = 256;                  // features packed by a thread at a time
constexpr std::int64_t kPanel = 64;                      // outputs between the product and their way back to row-major
constexpr double kWorthAThread = 2e5;                    // multiplications

std::int64_t RoundUp(std::int64_t n, std::int64_t unit) { return (n + unit - 1) / unit * unit; }

std::int64_t Area(const Structure& s) { return std::int64_t{s.block_rows} * s.block_cols; }

// A product seen from its outputs: `list` has a group of `group` outputs for each of its groups of `depth` inputs.
struct Side {
  const BlockList& list;
  std::int64_t groups, group, outputs;
  std::int64_t depth, padded_inputs, inputs;
  std::int64_t weight_in, weight_out;
};

Side Forward(const Structure& s) {
  return {s.by_col, s.ColGroups(), s.block_cols, s.cols, s.block_rows, s.RowGroups() * s.block_rows, s.rows,
          s.block_cols, 1};
}

Side Backward(const Structure& s) {
  return {s.by_row, s.RowGroups(), s.block_rows, s.rows, s.block_cols, s.ColGroups() * s.block_cols, s.cols,
          1, s.block_cols};
}

unsigned Threads(const Run& run, double work) {
  const unsigned size = run.threads == 0 ? threads::Size() : run.threads;
  return static_cast<unsigned>(std::min<double>(size, 1 + work / kWorthAThread));
}

void OneTap(const Structure& s) {
  if (s.taps != 1) throw std::invalid_argument("a product's structure has 1 tap, not " + std::to_string(s.taps));
}

// Tiles of the batch: kTile samples wide, the last one as wide as it needs to be.
struct Tiles {
  std::int64_t m;
  std::int64_t Count() const { return (m + kTile - 1) / kTile; }
  std::int64_t Rows(std::int64_t tile) const { return std::min(kTile, m - tile * kTile); }
  std::int64_t Width(std::int64_t tile) const { return RoundUp(Rows(tile), kWidthUnit); }
};

// Feature-major copy of x[m, features] in `out`: tile after tile, each of `padded` features.
void PackTiles(const Kernels& kernels, const float* x, std::int64_t features, std::int64_t padded, const Tiles& tiles,
               unsigned threads, float* out) {
  const std::int64_t parts = (padded + kFeatures - 1) / kFeatures;
  threads::ForEach(threads, static_cast<std::size_t>(parts * tiles.Count()), [&](unsigned, std::size_t item) {
    const std::int64_t tile = static_cast<std::int64_t>(item) / parts;
    const std::int64_t begin = static_cast<std::int64_t>(item) % parts * kFeatures;
    const std::int64_t end = std::min(begin + kFeatures, padded), real = std::clamp(features, begin, end);
    const std::int64_t width = tiles.Width(tile);
    float* target = out + tile * kTile * padded;
    kernels.pack(x + tile * kTile * features + begin, features, tiles.Rows(tile), real - begin, target + begin * width,
                 width, width);
    std::fill(target + real * width, target + end * width, 0.0F);
  });
}

// Groups cut into parts of about the same number of blocks and outputs.
std::vector<std::int64_t> Parts(const Side& side, std::int64_t parts) {
  const auto cost = [&](std::int64_t g) { return side.list.starts[g] + g; };
  std::vector<std::int64_t> bounds;
  const std::int64_t total = cost(side.groups);
  for (std::int64_t p = 0, g = 0; p <= parts; ++p) {
    const auto wanted = static_cast<std::int64_t>(static_cast<double>(total) * static_cast<double>(p) /
                                                  static_cast<double>(parts));
    std::int64_t high = side.groups;
    while (g < high) {
      const std::int64_t middle = g + (high - g) / 2;
      if (cost(middle) < wanted) {
        g = middle + 1;
      } else {
        high = middle;
      }
    }
    if (p == parts) g = side.groups;
    if (bounds.empty() || bounds.back() < g) bounds.push_back(g);
  }
  if (bounds.front() != 0) bounds.insert(bounds.begin(), 0);
  return bounds;
}

const float* Floats(const Kernels& kernels, const Structure& s, const Values& values, unsigned threads,
                    std::optional<Scratch>* widened) {
  if (values.storage == Storage::kFloat32) return static_cast<const float*>(values.data);
  const std::int64_t count = s.stored * Area(s), part = std::int64_t{1} << 14;
  widened->emplace(count);
  const auto* from = static_cast<const std::uint16_t*>(values.data);
  threads::ForEach(threads, static_cast<std::size_t>((count + part - 1) / part), [&](unsigned, std::size_t item) {
    const std::int64_t begin = static_cast<std::int64_t>(item) * part;
    kernels.widen(from + begin, std::min(part, count - begin), (*widened)->data() + begin);
  });
  return (*widened)->data();
}

void Product(const Structure& s, const Side& side, const Values& values, const float* x, std::int64_t m,
             const Epilogue& epilogue, float* y, const Run& run) {
  OneTap(s);
  const Kernels& kernels = KernelsFor(run.level);
  const unsigned threads = Threads(run, static_cast<double>(s.stored * Area(s)) * static_cast<double>(m));
  if (m == 0 || side.outputs == 0) return;
  std::optional<Scratch> widened;
  const float* weights = Floats(kernels, s, values, threads, &widened);
  const std::int64_t strip = std::max(kTile, kStrip / std::max<std::int64_t>(side.padded_inputs, 1) / kTile * kTile);
  const Scratch packed(std::min(strip, RoundUp(m, kTile)) * side.padded_inputs);
  for (std::int64_t done = 0; done < m; done += strip) {
    const Tiles tiles{std::min(strip, m - done)};
    PackTiles(kernels, x + done * side.inputs, side.inputs, side.padded_inputs, tiles, threads, packed.data());
    const std::vector<std::int64_t> bounds = Parts(side, threads == 1 ? 1 : 4 * std::int64_t{threads});
    const std::int64_t parts = static_cast<std::int64_t>(bounds.size()) - 1;
    threads::ForEach(threads, static_cast<std::size_t>(parts * tiles.Count()), [&](unsigned, std::size_t item) {
      const std::int64_t tile = static_cast<std::int64_t>(item) / parts;
      const std::int64_t part = static_cast<std::int64_t>(item) % parts, width = tiles.Width(tile);
      const std::int64_t together = std::max<std::int64_t>(1, kPanel / side.group);
      const Scratch panel(together * side.group * width);
      Entries entries{0, nullptr, nullptr, side.depth, Area(s), side.weight_in, side.weight_out,
                      packed.data() + tile * kTile * side.padded_inputs, side.depth * width, width};
      const std::int64_t end = bounds[static_cast<std::size_t>(part) + 1];
      for (std::int64_t g = bounds[static_cast<std::size_t>(part)]; g < end; g += together) {
        const std::int64_t last = std::min(end, g + together);
        for (std::int64_t h = g; h < last; ++h) {
          const std::int64_t begin = side.list.starts[h];
          entries.count = side.list.starts[h + 1] - begin;
          entries.index = side.list.others + begin;
          entries.ids = side.list.ids == nullptr ? nullptr : side.list.ids + begin;
          kernels.multiply(entries, weights + (entries.ids == nullptr ? begin * entries.block : 0), side.group, width,
                           false, panel.data() + (h - g) * side.group * width, width);
        }
        const std::int64_t first = g * side.group;
        kernels.unpack(panel.data(), width, tiles.Rows(tile), std::min(side.outputs, last * side.group) - first,
                       epilogue.bias == nullptr ? nullptr : epilogue.bias + first, epilogue.relu,
                       y + (done + tile * kTile) * side.outputs + first, side.outputs);
      }
    });
  }
}

// What fills up the last blocks has met zeros only, but 0 times infinity is not 0.
void ClearPadding(const Structure& s, float* dvalues) {
  const std::int64_t rows = s.rows % s.block_rows, cols = s.cols % s.block_cols;
  const std::int64_t last_row = s.RowGroups() - 1, last_col = s.ColGroups() - 1;
  if (rows == 0 && cols == 0) return;
  for (std::int64_t id = rows == 0 ? s.by_col.starts[last_col] : 0; id < s.stored; ++id) {
    float* block = dvalues + id * Area(s);
    if (rows != 0 && s.by_col.others[id] == last_row) std::fill(block + rows * s.block_cols, block + Area(s), 0.0F);
    if (cols == 0 || id < s.by_col.starts[last_col]) continue;
    for (std::int64_t i = 0; i < s.block_rows; ++i) {
      std::fill(block + i * s.block_cols + cols, block + (i + 1) * s.block_cols, 0.0F);
    }
  }
}

}  // namespace

void Multiply(const Structure& structure, const Values& values, const float* x, std::int64_t m,
              const Epilogue& epilogue, float* y, const Run& run) {
  Product(structure, Forward(structure), values, x, m, epilogue, y, run);
}

void MultiplyTransposed(const Structure& structure, const Values& values, const float* dy, std::int64_t m, float* dx,
                        const Run& run) {
  Product(structure, Backward(structure), values, dy, m, Epilogue{}, dx, run);
}

void SampleProduct(const Structure& structure, const float* x, const float* dy, std::int64_t m, float* dvalues,
                   const Run& run) {
  OneTap(structure);
  const Structure& s = structure;
  const Side side = Forward(s);
  const Kernels& kernels = KernelsFor(run.level);
  const unsigned threads = Threads(run, static_cast<double>(s.stored * Area(s)) * static_cast<double>(m));
  if (m == 0) {
    std::fill(dvalues, dvalues + s.stored * Area(s), 0.0F);
    return;
  }
  const std::int64_t padded_outputs = side.groups * side.group, both = side.padded_inputs + padded_outputs;
  const std::int64_t strip = std::max(kTile, kStrip / std::max<std::int64_t>(both, 1) / kTile * kTile);
  const std::int64_t most = std::min(strip, RoundUp(m, kTile));
  const Scratch inputs(most * side.padded_inputs), grads(most * padded_outputs);
  const std::vector<std::int64_t> bounds = Parts(side, threads == 1 ? 1 : 4 * std::int64_t{threads});
  for (std::int64_t done = 0; done < m; done += strip) {
    const Tiles tiles{std::min(strip, m - done)};
    PackTiles(kernels, x + done * side.inputs, side.inputs, side.padded_inputs, tiles, threads, inputs.data());
    PackTiles(kernels, dy + done * side.outputs, side.outputs, padded_outputs, tiles, threads, grads.data());
    threads::ForEach(threads, bounds.size() - 1, [&](unsigned, std::size_t part) {
      for (std::int64_t tile = 0; tile < tiles.Count(); ++tile) {
        const std::int64_t width = tiles.Width(tile);
        Entries entries{0, nullptr, nullptr, side.depth, Area(s), side.weight_in, side.weight_out,
                        inputs.data() + tile * kTile * side.padded_inputs, side.depth * width, width};
        for (std::int64_t g = bounds[part]; g < bounds[part + 1]; ++g) {
          const std::int64_t begin = side.list.starts[g];
          entries.count = side.list.starts[g + 1] - begin;
          entries.index = side.list.others + begin;
          kernels.sample(entries, grads.data() + tile * kTile * padded_outputs + g * side.group * width, width,
                         side.group, width, done + tile > 0, dvalues + begin * entries.block);
        }
      }
    });
  }
  ClearPadding(s, dvalues);
}

}  // namespace keras_lth::sparse
