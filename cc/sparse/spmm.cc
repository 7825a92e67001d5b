#include "cc/sparse/spmm.h"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <vector>

#include "cc/sparse/kernels.h"
#include "cc/sparse/phases.h"
#include "cc/sparse/plan.h"
#include "cc/sparse/scratch.h"
#include "cc/sparse/singles.h"

namespace keras_lth::sparse {

namespace {

constexpr std::int64_t kPanel = 64;         // outputs between the product and their way back to row-major
constexpr std::int64_t kPartWeights = std::int64_t{1} << 16;  // weights of a part: they stay in the second-level cache
constexpr std::int64_t kParts = 4;          // parts a thread, so that threads end together

// What all parts of a product share.
struct Product {
  const Kernels& kernels;
  const Side& side;
  const Values& values;
  const Epilogue& epilogue;
  std::vector<std::int64_t> bounds;

  std::int64_t Parts() const { return static_cast<std::int64_t>(bounds.size()) - 1; }
  std::int64_t Begin(std::int64_t part) const { return bounds[static_cast<std::size_t>(part)]; }
  std::int64_t End(std::int64_t part) const { return bounds[static_cast<std::size_t>(part) + 1]; }
  const float* Bias(std::int64_t output) const {
    return epilogue.bias == nullptr ? nullptr : epilogue.bias + output;
  }
};

// The weights of groups begin ... end - 1 as floats, in the order of the list or of the values.
class Weights {
 public:
  Weights(const Product& product, std::int64_t begin, std::int64_t end)
      : side_(product.side), first_(side_.list.starts[begin]) {
    const bool listed = side_.list.places == nullptr;
    const std::int64_t count = side_.list.starts[end] - first_, area = side_.Area();
    collected_ = product.values.storage != Storage::kFloat32 || (!listed && area == 1);
    if (!collected_) {
      data_ = static_cast<const float*>(product.values.data) + (listed ? first_ * area : 0);
      return;
    }
    scratch_.emplace(count * area);
    data_ = scratch_->data();
    if (product.values.storage == Storage::kFloat32) {
      product.kernels.collect(static_cast<const float*>(product.values.data), side_.list, side_.Stored(), first_, count, area,
                              scratch_->data());
    } else {
      product.kernels.collect_bfloat16(static_cast<const std::uint16_t*>(product.values.data), side_.list,
                                       side_.Stored(), first_, count, area, scratch_->data());
    }
  }

  // Weight 0 is the one of entry first(); only where there is one weight a block.
  const float* data() const { return data_; }

  // Lets the entries of group g, whose inputs are set, find their weights at the address returned.
  const float* Of(std::int64_t g, Entries* entries) const {
    if (!collected_ && entries->places != nullptr) return data_;
    entries->places = nullptr;
    return data_ + (side_.list.starts[g] - first_) * side_.Area();
  }

 private:
  const Side& side_;
  std::int64_t first_;
  bool collected_;
  const float* data_;
  std::optional<Scratch> scratch_;
};

// Inputs of one tile, feature-major, and where its outputs go.
struct Tile {
  const float* in;
  std::int64_t rows, width;
  float* y;
};

void MultiplyBlocks(const Product& product, std::int64_t part, const Tile& tile) {
  const Side& side = product.side;
  const Weights weights(product, product.Begin(part), product.End(part));
  const std::int64_t together = std::max<std::int64_t>(1, kPanel / side.group);
  const Scratch panel(together * side.group * tile.width);
  for (std::int64_t g = product.Begin(part); g < product.End(part); g += together) {
    const std::int64_t last = std::min(product.End(part), g + together), first = g * side.group;
    for (std::int64_t h = g; h < last; ++h) {
      Entries entries = side.Of(h);
      entries.in = tile.in;
      entries.in_step = tile.width;
      entries.scale = side.depth * tile.width;
      const float* of_group = weights.Of(h, &entries);
      product.kernels.multiply(entries, of_group, side.group, tile.width,
                               panel.data() + (h - g) * side.group * tile.width, tile.width);
    }
    product.kernels.unpack(panel.data(), tile.width, tile.rows, std::min(side.outputs, last * side.group) - first,
                           product.Bias(first), product.epilogue.relu, tile.y + first, side.outputs);
  }
}

void MultiplySingles(const Product& product, std::int64_t part, const Tile& tile) {
  const Side& side = product.side;
  const std::int64_t begin = product.Begin(part), outputs = product.End(part) - begin;
  const Weights weights(product, begin, begin + outputs);
  const Scratch panel(outputs * tile.width);
  const Singles singles{side.list.starts + begin, side.list.others, tile.in, tile.width};
  product.kernels.multiply_singles(singles, weights.data(), outputs, tile.width, Finish{}, panel.data(), tile.width);
  product.kernels.unpack(panel.data(), tile.width, tile.rows, outputs, product.Bias(begin), product.epilogue.relu,
                         tile.y + begin, side.outputs);
}

// Few samples: x is used as it is, with zeros behind it where the last group of inputs is filled up.
void MultiplyFew(const Product& product, std::int64_t part, const float* x, std::int64_t step, std::int64_t m,
                 float* y) {
  const Side& side = product.side;
  const Weights weights(product, product.Begin(part), product.End(part));
  const Scratch panel(m * side.group);
  for (std::int64_t g = product.Begin(part); g < product.End(part); ++g) {
    Entries entries = side.Of(g);
    entries.in = x;
    entries.in_step = 1;
    entries.scale = side.depth;
    const float* of_group = weights.Of(g, &entries);
    const auto kernel = side.weight_out == 1 ? product.kernels.multiply_rows : product.kernels.dot_rows;
    kernel(entries, of_group, side.group, m, step, panel.data(), side.group);
    const std::int64_t first = g * side.group, count = std::min(side.group, side.outputs - first);
    for (std::int64_t t = 0; t < m; ++t) {
      for (std::int64_t j = 0; j < count; ++j) {
        const float sum = panel.data()[t * side.group + j] +
                          (product.epilogue.bias == nullptr ? 0.0F : product.epilogue.bias[first + j]);
        y[t * side.outputs + first + j] = product.epilogue.relu && sum < 0 ? 0.0F : sum;
      }
    }
  }
}

std::int64_t Parts(const Side& side, unsigned threads) {
  const std::int64_t by_weights = side.Stored() * side.Area() / kPartWeights;
  return std::max(by_weights, threads == 1 ? 1 : kParts * std::int64_t{threads});
}

void RunFew(const Product& product, const float* x, std::int64_t m, float* y, unsigned threads) {
  const Side& side = product.side;
  std::optional<Scratch> padded;
  if (side.inputs != side.PaddedInputs()) {
    padded.emplace(m * side.PaddedInputs());
    for (std::int64_t t = 0; t < m; ++t) {
      float* row = padded->data() + t * side.PaddedInputs();
      std::fill(std::copy(x + t * side.inputs, x + (t + 1) * side.inputs, row), row + side.PaddedInputs(), 0.0F);
    }
    x = padded->data();
  }
  RunPhases(threads, {{product.Parts(), [&](std::int64_t part) {
                         MultiplyFew(product, part, x, side.PaddedInputs(), m, y);
                       }}});
}

void RunTiles(const Product& product, const Tiles& whole, const float* x, std::int64_t m, float* y, unsigned threads,
              std::vector<Phase>* before) {
  const Side& side = product.side;
  const std::int64_t strip = std::min(Strip(whole, side.PaddedInputs()), whole.Count() * whole.full);
  const Scratch packed(strip * side.PaddedInputs());
  std::vector<Phase>& phases = *before;
  for (std::int64_t done = 0; done < m; done += strip) {
    const Tiles tiles{std::min(strip, m - done), whole.full};
    const Packing packing{product.kernels, x + done * side.inputs, side.inputs, side.PaddedInputs(), tiles,
                          packed.data()};
    phases.push_back({packing.Tasks(), packing});
    phases.push_back({tiles.Count() * product.Parts(), [&, tiles, done](std::int64_t task) {
                        const std::int64_t t = task / product.Parts(), at = t * tiles.full;
                        const Tile tile{packed.data() + at * side.PaddedInputs(), tiles.Rows(t), tiles.Width(t),
                                        y + (done + at) * side.outputs};
                        (side.Singles() ? MultiplySingles : MultiplyBlocks)(product, task % product.Parts(), tile);
                      }});
  }
  RunPhases(threads, phases);
}

void RunProduct(const Structure& structure, Side side, Values values, const float* x, std::int64_t m,
                const Epilogue& epilogue, float* y, const Run& run) {
  ExpectOneTap(structure);
  if (m == 0 || side.outputs == 0) return;
  const unsigned threads = ThreadsFor(run, side.Multiplications(m));
  const Side given = side;
  std::optional<Listed> listed;
  if (side.Singles()) {
    listed.emplace(KernelsFor(run.level), given, values);
    values = {listed->data(), Storage::kFloat32};
    side.list.places = nullptr;
  }
  const Product product{KernelsFor(run.level), side, values, epilogue, CutGroups(side, Parts(side, threads))};
  // Blocks of whole vectors meet few samples as they are.
  if (m <= kRows && structure.block_cols % 4 == 0) {
    RunFew(product, x, m, y, threads);
  } else {
    std::vector<Phase> phases;
    if (listed) phases.push_back({listed->Tasks(), [&listed](std::int64_t task) { (*listed)(task); }});
    RunTiles(product, CutBatch(m, side.Singles() ? 64 : side.group <= 4 ? 128 : 64), x, m, y, threads, &phases);
  }
}

}  // namespace

void Multiply(const Structure& structure, const Values& values, const float* x, std::int64_t m,
              const Epilogue& epilogue, float* y, const Run& run) {
  RunProduct(structure, Forward(structure), values, x, m, epilogue, y, run);
}

void MultiplyTransposed(const Structure& structure, const Values& values, const float* dy, std::int64_t m, float* dx,
                        const Run& run) {
  RunProduct(structure, Backward(structure), values, dy, m, Epilogue{}, dx, run);
}

}  // namespace keras_lth::sparse
