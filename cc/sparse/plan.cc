#include "cc/sparse/plan.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace keras_lth::sparse {

namespace {

constexpr std::int64_t kStripFloats = std::int64_t{1} << 23;
constexpr std::int64_t kPackedFeatures = 256;  // features packed by a task

std::int64_t RoundUp(std::int64_t n, std::int64_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace

Entries Side::Of(std::int64_t g) const {
  const std::int64_t begin = list.starts[g];
  return {list.starts[g + 1] - begin,
          list.others + begin,
          list.places + begin,
          list.firsts,
          depth,
          Area(),
          weight_in,
          weight_out,
          nullptr,
          0,
          0,
          list.starts[groups] - list.starts[g + 1]};
}

Side Forward(const Structure& s) {
  return {s.by_col, s.ColGroups(), s.block_cols, s.cols, s.RowGroups(), s.block_rows, s.rows, s.block_cols, 1};
}

Side Backward(const Structure& s) {
  return {s.by_row, s.RowGroups(), s.block_rows, s.rows, s.ColGroups(), s.block_cols, s.cols, 1, s.block_cols};
}

void ExpectOneTap(const Structure& s) {
  if (s.taps != 1) throw std::invalid_argument("a product's structure has 1 tap, not " + std::to_string(s.taps));
}

std::int64_t Tiles::Width(std::int64_t tile) const {
  const std::int64_t rows = Rows(tile);
  return rows <= 4 ? 4 : rows <= 8 ? 8 : RoundUp(rows, 16);
}

Tiles CutBatch(std::int64_t m, std::int64_t most) {
  const std::int64_t tiles = std::max<std::int64_t>(1, (m + most - 1) / most);
  return {m, RoundUp((m + tiles - 1) / tiles, 16)};
}

std::int64_t Strip(const Tiles& tiles, std::int64_t features) {
  const std::int64_t samples = kStripFloats / std::max<std::int64_t>(features, 1);
  return std::max<std::int64_t>(1, samples / tiles.full) * tiles.full;
}

std::vector<std::int64_t> CutGroups(const Side& side, std::int64_t parts) {
  const auto cost = [&](std::int64_t g) { return side.list.starts[g] + g; };
  std::vector<std::int64_t> bounds{0};
  for (std::int64_t p = 1; p < parts; ++p) {
    const auto wanted = static_cast<std::int64_t>(static_cast<double>(cost(side.groups)) * static_cast<double>(p) /
                                                  static_cast<double>(parts));
    std::int64_t low = bounds.back(), high = side.groups;
    while (low < high) {
      const std::int64_t middle = low + (high - low) / 2;
      if (cost(middle) < wanted) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    if (low > bounds.back()) bounds.push_back(low);
  }
  if (side.groups > bounds.back()) bounds.push_back(side.groups);
  return bounds;
}

std::int64_t Packing::Tasks() const { return (padded + kPackedFeatures - 1) / kPackedFeatures * tiles.Count(); }

void Packing::operator()(std::int64_t task) const {
  const std::int64_t parts = (padded + kPackedFeatures - 1) / kPackedFeatures, tile = task / parts;
  const std::int64_t begin = task % parts * kPackedFeatures, end = std::min(begin + kPackedFeatures, padded);
  const std::int64_t width = step == 0 ? tiles.Width(tile) : step, filled = std::clamp(features, begin, end);
  float* target = out + tile * tiles.full * padded;
  kernels.pack(x + tile * tiles.full * features + begin, features, tiles.Rows(tile), filled - begin,
               target + begin * width, width);
  std::fill(target + filled * width, target + end * width, 0.0F);
}

}  // namespace keras_lth::sparse
