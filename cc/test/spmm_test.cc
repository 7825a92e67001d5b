// Holds the sparse products and their gradients against loops in double precision over the dense matrix. Prints what
// fails and returns 1, or 0 when nothing does. The instruction set is the best one, or the one KERAS_LTH_ISA names.
// With the argument "quick" fewer sizes are taken: enough for the sanitizers.
#include "cc/sparse/spmm.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "cc/isa/isa.h"

namespace {

namespace sp = keras_lth::sparse;

int failures = 0;

void Fail(const std::string& what) {
  if (++failures <= 20) std::printf("FAILED: %s\n", what.c_str());
}

void Expect(bool ok, const std::string& what) {
  if (!ok) Fail(what);
}

struct Lists {
  std::vector<std::int64_t> starts{0};
  std::vector<std::int32_t> others, ids;
};

// A structure, its arrays, and the matrix as it is without zeros left out.
struct Matrix {
  sp::Structure s;
  Lists by_col, by_row;
  std::vector<float> values;             // [stored, block_rows, block_cols]
  std::vector<std::uint16_t> halves;     // the same in bfloat16: `values` are exact in it
  std::vector<float> dense;              // [rows, cols]

  std::int64_t Area() const { return std::int64_t{s.block_rows} * s.block_cols; }
  std::int64_t At(std::int64_t id, std::int64_t i, std::int64_t j) const {
    return id * Area() + i * s.block_cols + j;
  }
};

using Keep = std::function<bool(std::int64_t, std::int64_t)>;

float Rounded(float x, std::uint16_t* bits) {
  std::uint32_t whole;
  std::memcpy(&whole, &x, sizeof(whole));
  *bits = static_cast<std::uint16_t>(whole >> 16);
  whole &= 0xFFFF0000U;
  std::memcpy(&x, &whole, sizeof(whole));
  return x;
}

void Build(std::int64_t rows, std::int64_t cols, std::int32_t block_rows, std::int32_t block_cols, const Keep& keep,
           std::mt19937_64* random, Matrix* matrix) {
  sp::Structure& s = matrix->s;
  s = {rows, cols, 1, block_rows, block_cols, 0, {}, {}};
  const std::int64_t row_groups = s.RowGroups(), col_groups = s.ColGroups();
  std::vector<std::vector<std::pair<std::int32_t, std::int32_t>>> of_row(static_cast<std::size_t>(row_groups));
  for (std::int64_t c = 0; c < col_groups; ++c) {
    for (std::int64_t r = 0; r < row_groups; ++r) {
      if (!keep(r, c)) continue;
      const auto id = static_cast<std::int32_t>(matrix->by_col.others.size());
      matrix->by_col.others.push_back(static_cast<std::int32_t>(r));
      of_row[static_cast<std::size_t>(r)].emplace_back(static_cast<std::int32_t>(c), id);
    }
    matrix->by_col.starts.push_back(static_cast<std::int64_t>(matrix->by_col.others.size()));
  }
  for (const auto& row : of_row) {
    for (const auto& [c, id] : row) {
      matrix->by_row.others.push_back(c);
      matrix->by_row.ids.push_back(id);
    }
    matrix->by_row.starts.push_back(static_cast<std::int64_t>(matrix->by_row.others.size()));
  }
  s.stored = static_cast<std::int64_t>(matrix->by_col.others.size());
  s.by_col = {matrix->by_col.starts.data(), matrix->by_col.others.data(), nullptr};
  s.by_row = {matrix->by_row.starts.data(), matrix->by_row.others.data(), matrix->by_row.ids.data()};
  matrix->values.assign(static_cast<std::size_t>(s.stored * matrix->Area()), 0.0F);
  matrix->halves.assign(matrix->values.size(), 0);
  matrix->dense.assign(static_cast<std::size_t>(rows * cols), 0.0F);
  std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
  for (std::int64_t c = 0; c < col_groups; ++c) {
    for (std::int64_t id = s.by_col.starts[c]; id < s.by_col.starts[c + 1]; ++id) {
      for (std::int64_t i = 0; i < block_rows; ++i) {
        for (std::int64_t j = 0; j < block_cols; ++j) {
          const std::int64_t row = s.by_col.others[id] * block_rows + i, col = c * block_cols + j;
          if (row >= rows || col >= cols) continue;
          const auto at = static_cast<std::size_t>(matrix->At(id, i, j));
          matrix->values[at] = Rounded(uniform(*random), &matrix->halves[at]);
          matrix->dense[static_cast<std::size_t>(row * cols + col)] = matrix->values[at];
        }
      }
    }
  }
}

std::vector<float> Noise(std::int64_t count, std::mt19937_64* random) {
  std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
  std::vector<float> noise(static_cast<std::size_t>(count));
  for (float& x : noise) x = uniform(*random);
  return noise;
}

// An output with guards at both ends, full of NaN, so that what is not written and what is written too much shows.
class Output {
 public:
  explicit Output(std::int64_t count) : data_(static_cast<std::size_t>(count) + 2 * kGuard, NAN) {}

  float* data() { return data_.data() + kGuard; }
  float operator[](std::int64_t i) const { return data_[static_cast<std::size_t>(i) + kGuard]; }

  bool Guarded() const {
    const auto nan = [](float x) { return std::isnan(x); };
    return std::all_of(data_.begin(), data_.begin() + kGuard, nan) &&
           std::all_of(data_.end() - kGuard, data_.end(), nan);
  }

  // The same bits, guards apart.
  bool Same(const Output& other) const {
    return data_.size() == other.data_.size() &&
           std::memcmp(data_.data(), other.data_.data(), data_.size() * sizeof(float)) == 0;
  }

 private:
  static constexpr std::ptrdiff_t kGuard = 64;
  std::vector<float> data_;
};

// `terms` products of numbers below 1, added in any order in float32, and one addition more.
bool Near(double expected, double got, std::int64_t terms, double magnitude) {
  const double epsilon = std::ldexp(1.0, -24);
  return std::abs(expected - got) <= static_cast<double>(terms + 2) * epsilon * (magnitude + 2);
}

struct Case {
  const Matrix& matrix;
  std::int64_t m;
  std::string name;
  std::vector<float> x, dy, bias;
};

constexpr unsigned kThreads[] = {1, 2, 3, 5};

// Runs `product` with each number of threads; all must give the bits of the first, which is returned.
Output Run(const std::string& name, std::int64_t count, const std::function<void(float*, const sp::Run&)>& product) {
  const auto level = keras_lth::isa::Choose("");
  Output first(count);
  product(first.data(), {level, 1});
  Expect(first.Guarded(), name + ": written outside of the result");
  for (const unsigned threads : kThreads) {
    Output other(count);
    product(other.data(), {level, threads});
    Expect(other.Same(first), name + ": other bits with threads " + std::to_string(threads));
  }
  return first;
}

void CheckForward(const Case& c) {
  const sp::Structure& s = c.matrix.s;
  for (const int kind : {0, 1, 2, 3, 4}) {  // plain; bias; ReLU; both; plain with bfloat16
    const sp::Epilogue epilogue{(kind & 1) != 0 ? c.bias.data() : nullptr, (kind & 2) != 0};
    const sp::Values values = kind == 4 ? sp::Values{c.matrix.halves.data(), sp::Storage::kBfloat16}
                                        : sp::Values{c.matrix.values.data(), sp::Storage::kFloat32};
    const std::string name = c.name + ", forward " + std::to_string(kind);
    const Output y = Run(name, c.m * s.cols, [&](float* out, const sp::Run& run) {
      sp::Multiply(s, values, c.x.data(), c.m, epilogue, out, run);
    });
    for (std::int64_t t = 0; t < c.m; ++t) {
      for (std::int64_t j = 0; j < s.cols; ++j) {
        double sum = epilogue.bias == nullptr ? 0.0 : static_cast<double>(c.bias[static_cast<std::size_t>(j)]);
        double magnitude = std::abs(sum);
        for (std::int64_t k = 0; k < s.rows; ++k) {
          const double term = static_cast<double>(c.x[static_cast<std::size_t>(t * s.rows + k)]) *
                              static_cast<double>(c.matrix.dense[static_cast<std::size_t>(k * s.cols + j)]);
          sum += term;
          magnitude += std::abs(term);
        }
        if (epilogue.relu && sum < 0) sum = 0;
        const double got = static_cast<double>(y[t * s.cols + j]);
        if (!Near(sum, got, s.rows, magnitude)) {
          Fail(name + ": y[" + std::to_string(t) + ", " + std::to_string(j) + "] is " + std::to_string(got) + ", not " +
               std::to_string(sum));
          return;
        }
      }
    }
  }
}

void CheckBackward(const Case& c) {
  const sp::Structure& s = c.matrix.s;
  for (const bool half : {false, true}) {
    const sp::Values values = half ? sp::Values{c.matrix.halves.data(), sp::Storage::kBfloat16}
                                   : sp::Values{c.matrix.values.data(), sp::Storage::kFloat32};
    const std::string name = c.name + (half ? ", dX bfloat16" : ", dX");
    const Output dx = Run(name, c.m * s.rows, [&](float* out, const sp::Run& run) {
      sp::MultiplyTransposed(s, values, c.dy.data(), c.m, out, run);
    });
    for (std::int64_t t = 0; t < c.m; ++t) {
      for (std::int64_t k = 0; k < s.rows; ++k) {
        double sum = 0, magnitude = 0;
        for (std::int64_t j = 0; j < s.cols; ++j) {
          const double term = static_cast<double>(c.dy[static_cast<std::size_t>(t * s.cols + j)]) *
                              static_cast<double>(c.matrix.dense[static_cast<std::size_t>(k * s.cols + j)]);
          sum += term;
          magnitude += std::abs(term);
        }
        const double got = static_cast<double>(dx[t * s.rows + k]);
        if (!Near(sum, got, s.cols, magnitude)) {
          Fail(name + "[" + std::to_string(t) + ", " + std::to_string(k) + "] is " + std::to_string(got) + ", not " +
               std::to_string(sum));
          return;
        }
      }
    }
  }
}

void CheckSample(const Case& c) {
  const sp::Structure& s = c.matrix.s;
  const std::string name = c.name + ", dW";
  const Output dvalues = Run(name, s.stored * c.matrix.Area(), [&](float* out, const sp::Run& run) {
    sp::SampleProduct(s, c.x.data(), c.dy.data(), c.m, out, run);
  });
  for (std::int64_t g = 0; g < s.ColGroups(); ++g) {
    for (std::int64_t id = s.by_col.starts[g]; id < s.by_col.starts[g + 1]; ++id) {
      for (std::int64_t i = 0; i < s.block_rows; ++i) {
        for (std::int64_t j = 0; j < s.block_cols; ++j) {
          const std::int64_t row = s.by_col.others[id] * s.block_rows + i, col = g * s.block_cols + j;
          const bool filled_up = row >= s.rows || col >= s.cols;
          double sum = 0, magnitude = 0;
          for (std::int64_t t = 0; t < c.m && !filled_up; ++t) {
            const double term = static_cast<double>(c.x[static_cast<std::size_t>(t * s.rows + row)]) *
                                static_cast<double>(c.dy[static_cast<std::size_t>(t * s.cols + col)]);
            sum += term;
            magnitude += std::abs(term);
          }
          const double got = static_cast<double>(dvalues[c.matrix.At(id, i, j)]);
          if (filled_up ? got != 0.0 : !Near(sum, got, c.m, magnitude)) {
            Fail(name + ": block " + std::to_string(id) + "[" + std::to_string(i) + ", " + std::to_string(j) + "] is " +
                 std::to_string(got) + ", not " + std::to_string(sum));
            return;
          }
        }
      }
    }
  }
}

// <dY, X W> = <dX, X> = <dW, W>: the three verbs against each other.
void CheckAdjoint(const Case& c) {
  const sp::Structure& s = c.matrix.s;
  const sp::Values values{c.matrix.values.data(), sp::Storage::kFloat32};
  const sp::Run run{keras_lth::isa::Choose("")};
  Output y(c.m * s.cols), dx(c.m * s.rows), dvalues(s.stored * c.matrix.Area());
  sp::Multiply(s, values, c.x.data(), c.m, {}, y.data(), run);
  sp::MultiplyTransposed(s, values, c.dy.data(), c.m, dx.data(), run);
  sp::SampleProduct(s, c.x.data(), c.dy.data(), c.m, dvalues.data(), run);
  double magnitude = 0;
  const auto dot = [&magnitude](const std::vector<float>& a, const Output& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      const double term = static_cast<double>(a[i]) * static_cast<double>(b[static_cast<std::int64_t>(i)]);
      sum += term;
      magnitude += std::abs(term);
    }
    return sum;
  };
  const double forward = dot(c.dy, y), backward = dot(c.x, dx), sampled = dot(c.matrix.values, dvalues);
  const double most = 1e-6 * magnitude + 1e-12;
  Expect(std::abs(forward - backward) <= most && std::abs(forward - sampled) <= most, c.name + ": not adjoint");
}

void CheckCase(const Matrix& matrix, std::int64_t m, const std::string& name, std::mt19937_64* random) {
  const sp::Structure& s = matrix.s;
  sp::Check(s, 2);
  const Case c{matrix, m, name + ", M " + std::to_string(m), Noise(m * s.rows, random), Noise(m * s.cols, random),
               Noise(s.cols, random)};
  CheckForward(c);
  CheckBackward(c);
  CheckSample(c);
  CheckAdjoint(c);
}

void CheckProducts(bool quick) {
  struct Block {
    std::int32_t rows, cols;
  };
  const Block blocks[] = {{1, 1}, {4, 4}, {8, 8}, {16, 16}, {32, 32}, {64, 64}, {1, 16}, {16, 1}, {1, 4}, {4, 1},
                          {1, 8}, {2, 2}, {3, 5}, {5, 3}, {7, 13}, {1, 64}, {17, 33}, {24, 40}, {64, 1}};
  const std::int64_t batches[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 128, 129, 200};
  std::mt19937_64 random(1);
  const auto draw = [&random](double p) { return std::uniform_real_distribution<double>(0, 1)(random) < p; };
  for (const Block& block : blocks) {
    int turn = 0;
    for (const std::int64_t m : batches) {
      if (quick && m > 40) continue;
      // Sizes that the block divides and sizes that it does not; densities in turn.
      for (const bool odd : {false, true}) {
        const double density = std::vector<double>{0.1, 0.5, 1.0}[static_cast<std::size_t>(turn++ % 3)];
        const std::int64_t rows = odd ? 97 : 3 * std::max<std::int64_t>(block.rows, 16);
        const std::int64_t cols = odd ? 83 : 2 * std::max<std::int64_t>(block.cols, 16);
        Matrix matrix;
        // Every third group of columns, and every fourth of rows, is empty.
        Build(rows, cols, block.rows, block.cols,
              [&](std::int64_t r, std::int64_t c) { return (odd || (c % 3 != 1 && r % 4 != 2)) && draw(density); },
              &random, &matrix);
        CheckCase(matrix, m, std::to_string(rows) + " x " + std::to_string(cols) + " in " + std::to_string(block.rows) +
                                 " x " + std::to_string(block.cols), &random);
      }
    }
  }
}

// Long columns and long rows, so that kernels which cut up a side of the matrix do so; a batch that is cut up, too.
void CheckLong() {
  std::mt19937_64 random(2);
  const auto draw = [&random](double p) { return std::uniform_real_distribution<double>(0, 1)(random) < p; };
  struct Long {
    std::int64_t rows, cols, m;
    std::int32_t block_rows, block_cols;
    double density;
  };
  for (const Long& l : {Long{5000, 7, 33, 1, 1, 0.3}, Long{7, 5000, 130, 1, 1, 0.3}, Long{2000, 33, 65, 4, 4, 0.2},
                        Long{65000, 16, 300, 16, 16, 0.01}, Long{16, 65000, 300, 16, 16, 0.01},
                        Long{3000, 50, 40, 1, 16, 0.1}, Long{1000, 1000, 20, 1, 1, 0.05}}) {
    Matrix matrix;
    Build(l.rows, l.cols, l.block_rows, l.block_cols, [&](std::int64_t, std::int64_t) { return draw(l.density); },
          &random, &matrix);
    CheckCase(matrix, l.m, "long " + std::to_string(l.rows) + " x " + std::to_string(l.cols), &random);
  }
}

void CheckEdges() {
  std::mt19937_64 random(3);
  const auto none = [](std::int64_t, std::int64_t) { return false; };
  const auto all = [](std::int64_t, std::int64_t) { return true; };
  for (const std::int32_t block : {1, 4, 16}) {
    for (const std::int64_t m : {0, 1, 7, 40}) {
      for (const std::int64_t rows : {0, 1, 50}) {
        for (const std::int64_t cols : {0, 1, 50}) {
          const std::string name = "edge " + std::to_string(rows) + " x " + std::to_string(cols);
          Matrix empty, full;
          Build(rows, cols, block, block, none, &random, &empty);
          CheckCase(empty, m, name + " empty", &random);
          Build(rows, cols, block, block, all, &random, &full);
          CheckCase(full, m, name + " full", &random);
        }
      }
    }
  }
}

// An infinity or a NaN stays in the rows of the batch and in the columns that it belongs to.
void CheckNotFinite() {
  std::mt19937_64 random(4);
  for (const std::int32_t block : {1, 4, 16}) {
    Matrix matrix;
    Build(50, 50, block, block, [](std::int64_t r, std::int64_t c) { return r != 0 || c != 0; }, &random, &matrix);
    std::vector<float> x = Noise(5 * 50, &random);
    x[2 * 50] = NAN;       // meets column group 0 nowhere
    x[3 * 50] = INFINITY;
    Output y(5 * 50);
    sp::Multiply(matrix.s, {matrix.values.data(), sp::Storage::kFloat32}, x.data(), 5, {}, y.data(),
                 {keras_lth::isa::Choose("")});
    for (std::int64_t t = 0; t < 5; ++t) {
      for (std::int64_t j = 0; j < 50; ++j) {
        const bool touched = j >= block && (t == 2 || t == 3);
        const bool right = t == 2 && touched ? std::isnan(y[t * 50 + j]) : std::isfinite(y[t * 50 + j]) != touched;
        Expect(right, "NaN and infinity, block " + std::to_string(block) + ", y[" + std::to_string(t) + ", " +
                          std::to_string(j) + "]");
      }
    }
  }
}

// What fills up the last blocks stays 0 whatever it meets.
void CheckPadding() {
  std::mt19937_64 random(6);
  for (const std::int32_t block : {4, 16}) {
    Matrix matrix;
    Build(50, 50, block, block, [](std::int64_t, std::int64_t) { return true; }, &random, &matrix);
    const std::vector<float> x(5 * 50, INFINITY), dy(5 * 50, NAN);
    Output dvalues(matrix.s.stored * matrix.Area());
    sp::SampleProduct(matrix.s, x.data(), dy.data(), 5, dvalues.data(), {keras_lth::isa::Choose("")});
    for (std::int64_t g = 0; g < matrix.s.ColGroups(); ++g) {
      for (std::int64_t id = matrix.s.by_col.starts[g]; id < matrix.s.by_col.starts[g + 1]; ++id) {
        for (std::int64_t at = 0; at < matrix.Area(); ++at) {
          const bool filled_up =
              matrix.s.by_col.others[id] * block + at / block >= 50 || g * block + at % block >= 50;
          const float got = dvalues[id * matrix.Area() + at];
          Expect(filled_up ? got == 0.0F : std::isnan(got), "padding of block " + std::to_string(id));
        }
      }
    }
  }
}

void CheckRefusals() {
  std::mt19937_64 random(5);
  const auto refused = [&random](const std::string& part, const std::function<void(Matrix*)>& change) {
    Matrix matrix;
    Build(40, 40, 4, 4, [](std::int64_t r, std::int64_t c) { return (r + c) % 2 == 0; }, &random, &matrix);
    sp::Check(matrix.s, 1);
    change(&matrix);
    for (const unsigned threads : {1U, 2U}) {
      try {
        sp::Check(matrix.s, threads);
        Fail("accepted: a structure with bad " + part);
      } catch (const std::invalid_argument& error) {
        Expect(std::string(error.what()).find(part) != std::string::npos, std::string("says: ") + error.what());
      }
    }
  };
  refused("by_col.starts", [](Matrix* m) { m->by_col.starts[3] = 1000; });
  refused("by_col.starts", [](Matrix* m) { m->by_col.starts[3] = -1; });
  refused("by_col.starts", [](Matrix* m) { m->by_col.starts[0] = 1; });
  refused("by_row.starts", [](Matrix* m) { m->by_row.starts.back() += 1; });
  refused("by_row.starts", [](Matrix* m) { m->s.by_row.starts = nullptr; });
  refused("by_col.others", [](Matrix* m) { m->by_col.others[7] = 10; });
  refused("by_col.others", [](Matrix* m) { m->by_col.others[7] = -1; });
  refused("by_col.others", [](Matrix* m) { std::swap(m->by_col.others[0], m->by_col.others[1]); });
  refused("by_row.others", [](Matrix* m) { m->by_row.others[1] = m->by_row.others[0]; });
  refused("by_row.others", [](Matrix* m) { m->by_row.others.back() = 1 << 30; });
  refused("by_row.ids", [](Matrix* m) { m->by_row.ids[0] = static_cast<std::int32_t>(m->s.stored); });
  refused("by_row.ids", [](Matrix* m) { m->by_row.ids[0] = -1; });
  refused("by_row.ids", [](Matrix* m) { m->s.by_row.ids = nullptr; });
  refused("by_col.ids", [](Matrix* m) { m->s.by_col.ids = m->by_row.ids.data(); });
  refused("block", [](Matrix* m) { m->s.block_rows = 0; });
  refused("taps", [](Matrix* m) { m->s.taps = 0; });
  refused("structure", [](Matrix* m) { m->s.rows = -4; });
  refused("groups", [](Matrix* m) { m->s.cols = std::int64_t{1} << 40; });
  refused("starts", [](Matrix* m) { m->s.stored -= 1; });
  refused("stores", [](Matrix* m) { m->s.stored = -1; });
  Matrix matrix;
  Build(40, 40, 4, 4, [](std::int64_t, std::int64_t) { return true; }, &random, &matrix);
  matrix.s.taps = 2;
  Output y(40);
  const std::vector<float> x = Noise(80, &random);
  try {
    sp::Multiply(matrix.s, {matrix.values.data(), sp::Storage::kFloat32}, x.data(), 1, {}, y.data(),
                 {keras_lth::isa::Choose("")});
    Fail("a product accepts 2 taps");
  } catch (const std::invalid_argument& error) {
    Expect(std::string(error.what()).find("tap") != std::string::npos, error.what());
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bool quick = argc > 1 && std::strcmp(argv[1], "quick") == 0;
  std::printf("instruction set %s\n", keras_lth::isa::Name(keras_lth::isa::Choose("")));
  CheckProducts(quick);
  CheckEdges();
  CheckNotFinite();
  CheckPadding();
  CheckRefusals();
  if (!quick) CheckLong();
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
