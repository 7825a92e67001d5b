// The sparse products at their edges: values that are not finite, what fills up the last blocks, arguments that are
// refused. Prints and returns as spmm_test does.
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
#include "cc/sparse/spmm.h"
#include "cc/test/spmm_testing.h"

namespace {

using namespace keras_lth::testing;

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

int main() {
  std::printf("instruction set %s\n", keras_lth::isa::Name(keras_lth::isa::Choose("")));
  CheckNotFinite();
  CheckPadding();
  CheckRefusals();
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
