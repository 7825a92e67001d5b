// Check, and the sparse products and their gradients, against loops over the stored blocks in double precision.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "cc/fuzz/fuzz.h"
#include "cc/fuzz/pattern.h"
#include "cc/sparse/columns.h"
#include "cc/sparse/plan.h"
#include "cc/sparse/spmm.h"

namespace keras_lth::fuzz {

namespace {

constexpr std::int64_t kMostWork = 1500000;  // multiplications

std::size_t At(std::int64_t i) { return static_cast<std::size_t>(i); }

struct Arguments {
  const Pattern& pattern;
  std::int64_t m;
  std::vector<float> values, x, dy, bias;
  bool relu;
};

// Calls visit(id, row, col, i, j) for every weight of a list's blocks that is inside the matrix.
template <class Visit>
void ForWeights(const sparse::Structure& s, bool by_col, const Visit& visit) {
  const sparse::BlockList& list = by_col ? s.by_col : s.by_row;
  const std::int64_t groups = by_col ? s.ColGroups() : s.RowGroups();
  for (std::int64_t g = 0; g < groups; ++g) {
    for (std::int64_t e = list.starts[g]; e < list.starts[g + 1]; ++e) {
      const std::int64_t other = list.others[e], id = list.Id(e);
      for (std::int64_t i = 0; i < s.block_rows; ++i) {
        for (std::int64_t j = 0; j < s.block_cols; ++j) {
          const std::int64_t row = (by_col ? other : g) * s.block_rows + i;
          const std::int64_t col = (by_col ? g : other) * s.block_cols + j;
          if (row < s.rows && col < s.cols) visit(id * s.block_rows * s.block_cols + i * s.block_cols + j, row, col);
        }
      }
    }
  }
}

enum Kind { kForward, kTransposed, kSampled };

std::vector<Expected> Loops(const Arguments& a, Kind kind) {
  const sparse::Structure& s = a.pattern.structure;
  const std::int64_t sizes[] = {a.m * s.cols, a.m * s.rows, s.room * a.pattern.Area()};
  std::vector<Expected> expected(At(sizes[kind]));
  ForWeights(s, kind != kTransposed, [&](std::int64_t id, std::int64_t row, std::int64_t col) {
    const double weight = a.values[At(id)];
    for (std::int64_t t = 0; t < a.m; ++t) {
      const double x = a.x[At(t * s.rows + row)], dy = a.dy[At(t * s.cols + col)];
      if (kind == kForward) expected[At(t * s.cols + col)].Add(x * weight);
      if (kind == kTransposed) expected[At(t * s.rows + row)].Add(dy * weight);
      if (kind == kSampled) expected[At(id)].Add(x * dy);
    }
  });
  if (kind != kForward) return expected;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (!a.bias.empty()) expected[i].Add(a.bias[i % At(s.cols)]);
  }
  return expected;
}

std::vector<float> Run(const Arguments& a, Kind kind, const sparse::Values& values, std::size_t size,
                       const sparse::Run& run) {
  // What is not written stays a number that nothing gives.
  std::vector<float> out(size, 12345.0F);
  const sparse::Structure& s = a.pattern.structure;
  if (kind == kForward) {
    sparse::Multiply(s, values, a.x.data(), a.m, {a.bias.empty() ? nullptr : a.bias.data(), a.relu}, out.data(), run);
  } else if (kind == kTransposed) {
    sparse::MultiplyTransposed(s, values, a.dy.data(), a.m, out.data(), run);
  } else {
    sparse::SampleProduct(s, a.x.data(), a.dy.data(), a.m, out.data(), run);
  }
  return out;
}

// The same by way of columns, whose gradients may come alone or all together.
std::vector<float> RunColumns(const Arguments& a, Kind kind, bool together, const sparse::Values& values,
                              std::size_t size, const sparse::Run& run) {
  const sparse::Structure& s = a.pattern.structure;
  const sparse::Tiles tiles = sparse::ColumnTiles(a.m);
  const std::int64_t samples = tiles.Count() * tiles.full;
  const auto floats = [](std::int64_t count) { return std::vector<float>(At(count), 12345.0F); };
  std::vector<float> x = floats(samples * s.rows), dy = floats(samples * s.cols);
  sparse::PackColumns(a.x.data(), a.m, s.rows, x.data(), run);
  sparse::PackColumns(a.dy.data(), a.m, s.cols, dy.data(), run);
  std::vector<float> y = floats(samples * s.cols), dx = floats(samples * s.rows), dvalues = floats(s.room),
                     dbias = floats(s.cols), out(size, 12345.0F);
  if (kind == kForward) {
    sparse::MultiplyColumns(s, values, x.data(), a.m, {a.bias.empty() ? nullptr : a.bias.data(), a.relu}, y.data(), run);
    sparse::UnpackColumns(y.data(), a.m, s.cols, out.data(), run);
    return out;
  }
  if (together) {
    sparse::ColumnsBackward(s, values, x.data(), dy.data(), a.m, false, {dx.data(), dvalues.data(), dbias.data()}, run);
  } else if (kind == kTransposed) {
    sparse::MultiplyColumnsTransposed(s, values, dy.data(), a.m, dx.data(), run);
  } else {
    sparse::SampleColumns(s, x.data(), dy.data(), a.m, dvalues.data(), dbias.data(), run);
  }
  if (kind == kSampled) return dvalues;
  sparse::UnpackColumns(dx.data(), a.m, s.rows, out.data(), run);
  return out;
}

// Where the places were not checked, a product of single weights refuses those that lead out of the values, and reads and
// writes nowhere else.
void RunUnplaced(Bytes* bytes, const Pattern& pattern, unsigned threads) {
  const sparse::Structure& s = pattern.structure;
  if (s.taps != 1 || s.block_rows != 1 || s.block_cols != 1) return;
  try {
    sparse::Check(s, threads, sparse::Reads::kByRow, sparse::Places::kLeft);
  } catch (const std::invalid_argument&) {
    return;
  }
  const std::int64_t m = bytes->OneOf<std::int64_t>({1, 3, 33});
  if ((s.room + s.rows + s.cols) * m > kMostWork) return;
  const std::vector<float> values = Floats(bytes, s.room), dy = Floats(bytes, m * s.cols);
  std::vector<float> dx(At(m * s.rows));
  try {
    sparse::MultiplyTransposed(s, {values.data(), sparse::Storage::kFloat32}, dy.data(), m, dx.data(),
                               {Level(bytes), threads});
  } catch (const std::invalid_argument&) {
    // Other wrong places lead to some value.
  }
}

}  // namespace

Outcome Product(Bytes* bytes) {
  const std::int64_t most = bytes->OneOf({20, 70, 200, 70});
  const std::int64_t rows = bytes->Between(0, most), cols = bytes->Between(0, most);
  Pattern pattern(bytes, rows, cols, 1);
  if (bytes->Chance(80)) pattern.Break(bytes);
  const unsigned threads = Workers(bytes), others = Workers(bytes);
  const auto kind = bytes->OneOf({kForward, kTransposed, kSampled});
  // Some callers check no more than a product reads.
  const bool whole = bytes->Chance(128);
  const auto reads = whole ? sparse::Reads::kBoth : kind == kTransposed ? sparse::Reads::kByRow : sparse::Reads::kByCol;
  if (!Accepted(pattern, threads, reads)) {
    RunUnplaced(bytes, pattern, threads);
    return Outcome::kRefused;
  }
  const sparse::Structure& s = pattern.structure;
  std::int64_t m = bytes->OneOf<std::int64_t>({1, 0, 2, 3, 8, 31, 32, 33, 47, 100});
  // A block may be larger than the matrix; what the products pack has its padding.
  const std::int64_t padded = s.RowGroups() * s.block_rows + s.ColGroups() * s.block_cols;
  const std::int64_t work = s.room * pattern.Area() + padded;
  if (s.taps != 1 || work * std::max<std::int64_t>(m, 1) > kMostWork) return Outcome::kDone;
  Arguments a{pattern, m, Blocks(bytes, pattern, false), Floats(bytes, m * s.rows), Floats(bytes, m * s.cols), {}, false};
  if (bytes->Chance(100)) a.bias = Floats(bytes, s.cols);
  a.relu = bytes->Chance(100);
  std::vector<std::uint16_t> halves;
  const sparse::Values values = Stored(bytes, a.values, &halves);
  const isa::Level level = Level(bytes);
  const char* kinds[] = {"product", "transposed product", "sampled product"};
  const std::string name = std::string(kinds[kind]) + " of " + pattern.Name() + ", m " + std::to_string(m) + ", " +
                           isa::Name(level) + ", threads " + std::to_string(threads);
  const std::vector<Expected> expected = Loops(a, kind);
  // All gradients together read both lists.
  const bool columns = s.block_rows == 1 && s.block_cols == 1 && bytes->Chance(128);
  const bool together = whole && bytes->Chance(128);
  const auto run = [&](unsigned workers) {
    if (!columns) return Run(a, kind, values, expected.size(), {level, workers});
    return RunColumns(a, kind, together, values, expected.size(), {level, workers});
  };
  const std::vector<float> got = run(threads);
  ExpectNear(got, expected, kind == kForward && a.relu, name + (columns ? ", columns" : ""));
  ExpectSame(got, run(others), name + " and " + std::to_string(others));
  return Outcome::kDone;
}

}  // namespace keras_lth::fuzz
