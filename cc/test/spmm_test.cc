// Holds the sparse products and their gradients against loops in double precision over the dense matrix. Prints what
// fails and returns 1, or 0 when nothing does. The instruction set is the best one, or the one KERAS_LTH_ISA names.
// With the argument "quick" fewer sizes are taken: enough for the sanitizers.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "cc/isa/isa.h"
#include "cc/sparse/columns.h"
#include "cc/sparse/plan.h"
#include "cc/sparse/spmm.h"
#include "cc/test/spmm_testing.h"

namespace {

using namespace keras_lth::testing;

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
  const Output dvalues = Run(name, s.room * c.matrix.Area(), [&](float* out, const sp::Run& run) {
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
  Output y(c.m * s.cols), dx(c.m * s.rows), dvalues(s.room * c.matrix.Area());
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

// The same products on columns, against the row-major ones: equal up to the order of sums. What is behind the last sample
// must be 0.
void CheckColumns(const Case& c) {
  const sp::Structure& s = c.matrix.s;
  const sp::Tiles tiles = sp::ColumnTiles(c.m);
  const std::int64_t samples = tiles.Count() * tiles.full;
  const sp::Run best{keras_lth::isa::Choose("")};
  const auto pack = [&](const std::string& name, const float* rows, std::int64_t features) {
    return Run(c.name + ", " + name, samples * features, [&](float* out, const sp::Run& run) {
      sp::PackColumns(rows, c.m, features, out, run);
    });
  };
  const auto at = [&](std::int64_t features, std::int64_t t, std::int64_t f) {
    return (t / tiles.full * features + f) * tiles.full + t % tiles.full;
  };
  const auto same = [&](const std::string& name, const Output& columns, std::int64_t features, const float* rows,
                        std::int64_t terms) {
    for (std::int64_t t = 0; t < samples; ++t) {
      for (std::int64_t f = 0; f < features; ++f) {
        const double wanted = t < c.m ? static_cast<double>(rows[t * features + f]) : 0.0;
        if (Near(wanted, static_cast<double>(columns[at(features, t, f)]), terms, static_cast<double>(terms))) continue;
        Fail(c.name + ", columns, " + name + ": feature " + std::to_string(f) + " of sample " + std::to_string(t));
        return;
      }
    }
  };
  const Output x = pack("x", c.x.data(), s.rows), dy = pack("dy", c.dy.data(), s.cols);
  same("packed", x, s.rows, c.x.data(), 0);
  const Output back = Run(c.name + ", unpacked", c.m * s.rows, [&](float* out, const sp::Run& run) {
    sp::UnpackColumns(x.data(), c.m, s.rows, out, run);
  });
  Expect(std::equal(c.x.begin(), c.x.end(), back.data()), c.name + ": packed and unpacked");
  for (const int kind : {0, 1, 2, 3, 4}) {
    const sp::Epilogue epilogue{(kind & 1) != 0 ? c.bias.data() : nullptr, (kind & 2) != 0};
    const sp::Values values = kind == 4 ? sp::Values{c.matrix.halves.data(), sp::Storage::kBfloat16}
                                        : sp::Values{c.matrix.values.data(), sp::Storage::kFloat32};
    Output wanted(c.m * s.cols);
    sp::Multiply(s, values, c.x.data(), c.m, epilogue, wanted.data(), best);
    same("forward", Run(c.name + ", columns, forward", samples * s.cols, [&](float* out, const sp::Run& run) {
           sp::MultiplyColumns(s, values, x.data(), c.m, epilogue, out, run);
         }), s.cols, wanted.data(), s.rows + 1);
  }
  const sp::Values values{c.matrix.values.data(), sp::Storage::kFloat32};
  Output dx(c.m * s.rows), dvalues(s.room);
  sp::MultiplyTransposed(s, values, c.dy.data(), c.m, dx.data(), best);
  sp::SampleProduct(s, c.x.data(), c.dy.data(), c.m, dvalues.data(), best);
  same("dX", Run(c.name + ", columns, dX", samples * s.rows, [&](float* out, const sp::Run& run) {
         sp::MultiplyColumnsTransposed(s, values, dy.data(), c.m, out, run);
       }), s.rows, dx.data(), s.cols);
  const auto all = [&](const std::string& name, const float* weights, const float* bias) {
    for (std::int64_t i = 0; i < s.room; ++i) {
      Expect(Near(static_cast<double>(dvalues[i]), static_cast<double>(weights[i]), c.m, static_cast<double>(c.m)),
             c.name + ", columns, " + name + ": weight " + std::to_string(i));
    }
    for (std::int64_t j = 0; j < s.cols; ++j) {
      double sum = 0;
      for (std::int64_t t = 0; t < c.m; ++t) sum += static_cast<double>(c.dy[static_cast<std::size_t>(t * s.cols + j)]);
      Expect(Near(sum, static_cast<double>(bias[j]), c.m, static_cast<double>(c.m)),
             c.name + ", columns, " + name + ": bias " + std::to_string(j));
    }
  };
  const Output sampled = Run(c.name + ", columns, dW", s.room + s.cols, [&](float* out, const sp::Run& run) {
    sp::SampleColumns(s, x.data(), dy.data(), c.m, out, out + s.room, run);
  });
  all("dW", sampled.data(), sampled.data() + s.room);
  for (const bool gated : {false, true}) {
    const Output back_all =
        Run(c.name + ", columns, backward", samples * s.rows + s.room + s.cols, [&](float* out, const sp::Run& run) {
          float* const weights = out + samples * s.rows;
          sp::ColumnsBackward(s, values, x.data(), dy.data(), c.m, gated, {out, weights, weights + s.room}, run);
        });
    for (std::int64_t i = 0; gated && i < c.m * s.rows; ++i) {
      if (!(c.x[static_cast<std::size_t>(i)] > 0)) dx.data()[i] = 0.0F;
    }
    same("backward", back_all, s.rows, dx.data(), s.cols);
    all("backward", back_all.data() + samples * s.rows, back_all.data() + samples * s.rows + s.room);
  }
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
  if (s.block_rows == 1 && s.block_cols == 1) CheckColumns(c);
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
void CheckLong(bool quick) {
  std::mt19937_64 random(2);
  const auto draw = [&random](double p) { return std::uniform_real_distribution<double>(0, 1)(random) < p; };
  struct Long {
    std::int64_t rows, cols, m;
    std::int32_t block_rows, block_cols;
    double density;
  };
  // The first two have columns whose entries are in one of two panels of inputs, or in none.
  for (const Long& l : {Long{2100, 20, 128, 1, 1, 0.003}, Long{2100, 20, 120, 1, 1, 0.1}, Long{9000, 9, 128, 1, 1, 0.1},
                        Long{6000, 21, 200, 1, 1, 0.02}, Long{5000, 7, 33, 1, 1, 0.3}, Long{7, 5000, 130, 1, 1, 0.3},
                        Long{2000, 33, 65, 4, 4, 0.2}, Long{65000, 16, 300, 16, 16, 0.01}, Long{16, 65000, 300, 16, 16, 0.01},
                        Long{3000, 50, 40, 1, 16, 0.1}, Long{1000, 1000, 20, 1, 1, 0.05}}) {
    if (quick && l.rows != 2100) continue;
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

}  // namespace

int main(int argc, char** argv) {
  const bool quick = argc > 1 && std::strcmp(argv[1], "quick") == 0;
  std::printf("instruction set %s\n", keras_lth::isa::Name(keras_lth::isa::Choose("")));
  CheckProducts(quick);
  CheckEdges();
  CheckLong(quick);
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
