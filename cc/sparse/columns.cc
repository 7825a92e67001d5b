#include "cc/sparse/columns.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "cc/sparse/kernels.h"
#include "cc/sparse/phases.h"
#include "cc/sparse/singles.h"

namespace keras_lth::sparse {

namespace {

constexpr std::int64_t kStep = 64;
constexpr std::int64_t kPartWeights = std::int64_t{1} << 16;
constexpr std::int64_t kParts = 4;      // a thread, so that threads end together
constexpr std::int64_t kUnpacked = 64;  // features unpacked by a task
constexpr double kCopied = 8;           // multiplications that take as long as the copy of a number

void ExpectSingles(const Structure& structure) {
  ExpectOneTap(structure);
  if (structure.block_rows != 1 || structure.block_cols != 1) {
    throw std::invalid_argument("columns are multiplied by single weights, not by blocks of " +
                                std::to_string(structure.block_rows) + " x " + std::to_string(structure.block_cols));
  }
}

unsigned ThreadsForCopy(const Run& run, std::int64_t m, std::int64_t features) {
  return ThreadsFor(run, kCopied * static_cast<double>(m) * static_cast<double>(features));
}

// What no sample reaches.
void ClearGradients(const Structure& structure, std::int64_t m, float* dvalues, float* dbias) {
  std::fill(dvalues + (m == 0 ? 0 : structure.Stored()), dvalues + structure.room, 0.0F);
  if (dbias != nullptr && m == 0) std::fill_n(dbias, structure.cols, 0.0F);
}

// A product whose parts, of a tile and some outputs each, may run in any order.
class Product {
 public:
  Product(const Kernels& kernels, const Side& side, const Values& values, const float* x, std::int64_t m,
          const Finish& finish, float* y, unsigned threads)
      : kernels_(kernels),
        side_(side),
        listed_(kernels, side, values),
        x_(x),
        tiles_(ColumnTiles(m)),
        finish_(finish),
        y_(y),
        bounds_(CutGroups(side, std::max(side.Stored() / kPartWeights, threads == 1 ? 1 : kParts * std::int64_t{threads}))) {}

  // What must be done before any part.
  Phase Before() const {
    return {listed_.Tasks(), [this](std::int64_t task) { listed_(task); }};
  }

  std::int64_t Tasks() const { return tiles_.Count() * Parts(); }

  void operator()(std::int64_t task) const {
    const std::int64_t t = task / Parts(), step = tiles_.full, rows = tiles_.Rows(t);
    const auto part = static_cast<std::size_t>(task % Parts());
    const std::int64_t begin = bounds_[part], outputs = bounds_[part + 1] - begin;
    const std::int64_t* starts = side_.list.starts + begin;
    const std::int64_t at = t * step * side_.outputs + begin * step;
    float* const out = y_ + at;
    const Finish finish{finish_.bias == nullptr ? nullptr : finish_.bias + begin, finish_.relu,
                        finish_.gate == nullptr ? nullptr : finish_.gate + at};
    kernels_.multiply_singles({starts, side_.list.others, x_ + t * step * side_.inputs, step}, listed_.data() + *starts,
                              outputs, tiles_.Width(t), finish, out, step);
    if (rows == step) return;
    for (std::int64_t j = 0; j < outputs; ++j) std::fill(out + j * step + rows, out + (j + 1) * step, 0.0F);
  }

 private:
  std::int64_t Parts() const { return static_cast<std::int64_t>(bounds_.size()) - 1; }

  const Kernels& kernels_;
  const Side& side_;
  Listed listed_;
  const float* x_;
  Tiles tiles_;
  Finish finish_;
  float* y_;
  std::vector<std::int64_t> bounds_;
};

void Multiply(const Side& side, const Values& values, const float* x, std::int64_t m, const Finish& finish, float* y,
              const Run& run) {
  if (m == 0 || side.outputs == 0) return;
  const unsigned threads = ThreadsFor(run, side.Multiplications(m));
  const Product product(KernelsFor(run.level), side, values, x, m, finish, y, threads);
  RunPhases(threads, {product.Before(), {product.Tasks(), [&product](std::int64_t task) { product(task); }}});
}

}  // namespace

Tiles ColumnTiles(std::int64_t m) {
  const Tiles one{m, std::max<std::int64_t>(m, 1)};
  return m >= kStep ? Tiles{m, kStep} : Tiles{m, one.Width(0)};
}

void PackColumns(const float* x, std::int64_t m, std::int64_t features, float* columns, const Run& run) {
  if (m == 0) return;
  const Tiles tiles = ColumnTiles(m);
  const Packing packing{KernelsFor(run.level), x, features, features, tiles, columns, tiles.full};
  RunPhases(ThreadsForCopy(run, m, features), {{packing.Tasks(), packing}});
}

void UnpackColumns(const float* columns, std::int64_t m, std::int64_t features, float* y, const Run& run) {
  if (m == 0) return;
  const Kernels& kernels = KernelsFor(run.level);
  const Tiles tiles = ColumnTiles(m);
  const std::int64_t parts = (features + kUnpacked - 1) / kUnpacked, step = tiles.full;
  const auto unpack = [&](std::int64_t task) {
    const std::int64_t t = task / parts, first = task % parts * kUnpacked, count = std::min(kUnpacked, features - first);
    kernels.unpack(columns + (t * features + first) * step, step, tiles.Rows(t), count, nullptr, false,
                   y + t * step * features + first, features);
  };
  RunPhases(ThreadsForCopy(run, m, features), {{tiles.Count() * parts, unpack}});
}

void MultiplyColumns(const Structure& structure, const Values& values, const float* x, std::int64_t m,
                     const Epilogue& epilogue, float* y, const Run& run) {
  ExpectSingles(structure);
  Multiply(Forward(structure), values, x, m, {epilogue.bias, epilogue.relu, nullptr}, y, run);
}

void MultiplyColumnsTransposed(const Structure& structure, const Values& values, const float* dy, std::int64_t m,
                               float* dx, const Run& run) {
  ExpectSingles(structure);
  Multiply(Backward(structure), values, dy, m, {}, dx, run);
}

void SampleColumns(const Structure& structure, const float* x, const float* dy, std::int64_t m, float* dvalues,
                   float* dbias, const Run& run) {
  ExpectSingles(structure);
  const Side side = Forward(structure);
  ClearGradients(structure, m, dvalues, dbias);
  if (m == 0 || side.outputs == 0) return;
  const unsigned threads = ThreadsFor(run, side.Multiplications(m));
  Sampling sampling(KernelsFor(run.level), side, threads, dvalues, dbias);
  std::vector<Phase> phases;
  sampling.Add(ColumnTiles(m), x, dy, false, &phases);
  RunPhases(threads, phases);
}

void ColumnsBackward(const Structure& structure, const Values& values, const float* x, const float* dy, std::int64_t m,
                     bool gated, const ColumnGradients& gradients, const Run& run) {
  ExpectSingles(structure);
  const Side outputs = Forward(structure), inputs = Backward(structure);
  ClearGradients(structure, m, gradients.values, gradients.bias);
  if (m == 0 || outputs.outputs == 0) {
    std::fill_n(gradients.x, ColumnTiles(m).Count() * ColumnTiles(m).full * inputs.outputs, 0.0F);
    return;
  }
  const Kernels& kernels = KernelsFor(run.level);
  const unsigned threads = ThreadsFor(run, 2 * outputs.Multiplications(m));
  const Product product(kernels, inputs, values, dy, m, {nullptr, false, gated ? x : nullptr}, gradients.x, threads);
  Sampling sampling(kernels, outputs, threads, gradients.values, gradients.bias);
  std::vector<Phase> phases;
  sampling.Add(ColumnTiles(m), x, dy, false, &phases);
  // Both read dy, neither waits for the other.
  Phase& last = phases.back();
  last = {product.Tasks() + last.tasks, [&product, sample = last.body](std::int64_t task) {
            if (task < product.Tasks()) return product(task);
            sample(task - product.Tasks());
          }};
  phases.insert(phases.begin(), product.Before());
  RunPhases(threads, phases);
}

}  // namespace keras_lth::sparse
