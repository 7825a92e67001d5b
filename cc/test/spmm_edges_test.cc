// The sparse products at their edges: values that are not finite, what fills up the last blocks, arguments that are
// refused. Prints and returns as spmm_test does.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "cc/isa/isa.h"
#include "cc/sparse/columns.h"
#include "cc/sparse/phases.h"
#include "cc/sparse/plan.h"
#include "cc/sparse/spmm.h"
#include "cc/test/spmm_testing.h"
#include "cc/threads/for_each.h"

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
    Output dvalues(matrix.s.room * matrix.Area());
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

// Room for more blocks changes no bit of a result, and its gradient is 0; nor do indices of 16 bits.
void CheckRoom() {
  std::mt19937_64 random(8);
  for (const std::int32_t block : {1, 4, 8, 16}) {
    for (const std::int64_t m : {0, 1, 3, 40, 200}) {
      for (const int density : {0, 30, 100}) {
        const std::string name = "room, block " + std::to_string(block) + ", M " + std::to_string(m);
        Matrix matrix, roomy;
        const auto keep = [&](std::int64_t r, std::int64_t c) { return (r * 37 + c * 61) % 100 < density; };
        std::mt19937_64 again = random;
        Build(90, 70, block, block, keep, &random, &matrix);
        Build(90, 70, block, block, keep, &again, &roomy);
        GiveRoom(9, &roomy);
        sp::Check(roomy.s, 2);
        Expect(roomy.s.Stored() == matrix.s.room, name + ": blocks that there are");
        const std::vector<float> x = Noise(m * 90, &random), dy = Noise(m * 70, &random);
        const auto results = [&](const Matrix& of, bool half) {
          const sp::Values values = half ? sp::Values{of.halves.data(), sp::Storage::kBfloat16}
                                         : sp::Values{of.values.data(), sp::Storage::kFloat32};
          Output all(m * 160 + of.s.room * of.Area());
          const sp::Run run{keras_lth::isa::Choose("")};
          sp::Multiply(of.s, values, x.data(), m, {}, all.data(), run);
          sp::MultiplyTransposed(of.s, values, dy.data(), m, all.data() + m * 70, run);
          sp::SampleProduct(of.s, x.data(), dy.data(), m, all.data() + m * 160, run);
          return all;
        };
        for (const bool half : {false, true}) {
          const std::int64_t same = m * 160 + matrix.s.room * matrix.Area();
          Output got = results(roomy, half), wanted = results(matrix, half);
          const sp::Structure wide = roomy.s;
          Narrow(&roomy);
          sp::Check(roomy.s, 2);
          Expect(results(roomy, half).Same(got), name + ": other bits from indices of 16 bits");
          roomy.s = wide;
          Expect(got.Guarded(), name + ": written outside of the result");
          Expect(std::memcmp(got.data(), wanted.data(), static_cast<std::size_t>(same) * sizeof(float)) == 0,
                 name + ": other bits");
          for (std::int64_t i = 0; i < 9 * matrix.Area(); ++i) Expect(got[same + i] == 0.0F, name + ": a gradient");
        }
      }
    }
  }
}

// A small product wakes nobody; whoever names a number of threads gets it.
void CheckThreads() {
  keras_lth::threads::SetSize(4);
  const auto level = keras_lth::isa::Choose("");
  const auto threads = [level](unsigned named, double multiplications) {
    return std::to_string(sp::ThreadsFor({level, named}, multiplications));
  };
  Expect(threads(0, 0) == "1" && threads(0, 1.9e6) == "1", "a small product has " + threads(0, 1.9e6) + " threads");
  Expect(threads(0, 2e6) == "2" && threads(0, 1e12) == "4", "large products have " + threads(0, 2e6) + " and " +
                                                                threads(0, 1e12) + " threads");
  Expect(threads(3, 0) == "3", "instead of 3 threads there are " + threads(3, 0));
  keras_lth::threads::SetSize(0);
}

// A number that does not ascend is found wherever it is, at the end of the parts that Check cuts long lists into, too;
// and from one group to the next numbers may go down, or not.
void CheckOrder() {
  std::mt19937_64 random(9);
  constexpr std::int64_t kPart = std::int64_t{1} << 16;
  for (const std::int64_t rows : {kPart - 3, 4 * kPart + 5}) {
    Matrix matrix;
    Build(rows, 3, 1, 1, [&](std::int64_t r, std::int64_t c) { return c == 0 || (c == 2 && r > rows / 2); }, &random,
          &matrix);
    std::vector<std::int32_t>& others = matrix.by_col.others;
    for (const unsigned threads : {1U, 3U}) {
      sp::Check(matrix.s, threads);
      for (const std::int64_t at : {std::int64_t{0}, std::int64_t{1}, rows - 1, rows, kPart - 1, kPart, kPart + 1,
                                    static_cast<std::int64_t>(others.size()) - 1}) {
        // At the beginning of a group only the next number shows that it is wrong.
        const bool begins = at == 0 || at == rows;
        const std::int32_t before = others[static_cast<std::size_t>(at)];
        others[static_cast<std::size_t>(at)] = others[static_cast<std::size_t>(begins ? at + 1 : at - 1)];
        try {
          sp::Check(matrix.s, threads);
          Fail("accepted: the same number twice, at " + std::to_string(at));
        } catch (const std::invalid_argument& error) {
          Expect(std::string(error.what()) == "by_col.others does not ascend within a group", error.what());
        }
        others[static_cast<std::size_t>(at)] = before;
      }
    }
  }
}

// A product of single weights refuses places that lead out of the values, where nobody has checked them, too.
void CheckUnplaced() {
  std::mt19937_64 random(6);
  const auto level = keras_lth::isa::Choose("");
  for (const std::int64_t m : {1, 40, 200}) {
    Matrix matrix;
    Build(700, 300, 1, 1, [](std::int64_t r, std::int64_t c) { return (r + c) % 3 == 0; }, &random, &matrix);
    const sp::Structure& s = matrix.s;
    const std::int64_t samples = sp::ColumnTiles(m).Count() * sp::ColumnTiles(m).full;
    const std::vector<float> dy = Noise(m * s.cols, &random), columns = Noise(samples * 700, &random);
    Output dx(samples * s.rows), dvalues(s.room), dbias(s.cols);
    for (const bool half : {false, true}) {
      const sp::Values values = half ? sp::Values{matrix.halves.data(), sp::Storage::kBfloat16}
                                     : sp::Values{matrix.values.data(), sp::Storage::kFloat32};
      for (const std::int32_t wrong : {1 << 20, -(1 << 20)}) {
        for (const unsigned threads : {1U, 3U}) {
          const sp::Run run{level, threads};
          const auto refused = [&](const std::string& name, const std::function<void()>& product) {
            std::int32_t& place = matrix.by_row.places[matrix.by_row.places.size() - 2];
            const std::int32_t before = place;
            product();
            place = wrong;
            sp::Check(s, threads, sp::Reads::kByRow, sp::Places::kLeft);
            try {
              product();
              Fail(name + " accepts a place that leads out of the values");
            } catch (const std::invalid_argument& error) {
              Expect(std::string(error.what()).rfind("by_row.places holds", 0) == 0, error.what());
            }
            place = before;
          };
          refused("dX", [&] { sp::MultiplyTransposed(s, values, dy.data(), m, dx.data(), run); });
          refused("dX of columns", [&] {
            sp::MultiplyColumnsTransposed(s, values, columns.data(), m, dx.data(), run);
          });
          refused("all gradients", [&] {
            sp::ColumnsBackward(s, values, columns.data(), columns.data(), m, false,
                                {dx.data(), dvalues.data(), dbias.data()}, run);
          });
        }
      }
    }
    Expect(dx.Guarded() && dvalues.Guarded() && dbias.Guarded(), "written outside of the gradients");
  }
}

void CheckRefusals() {
  std::mt19937_64 random(5);
  const auto refused = [&random](const std::string& part, const std::function<void(Matrix*)>& change) {
    Matrix matrix;
    Build(40, 40, 4, 4, [](std::int64_t r, std::int64_t c) { return (r + c) % 2 == 0; }, &random, &matrix);
    sp::Check(matrix.s, 1);
    change(&matrix);
    // What a product does not read may be anything.
    if (part == "by_col.others") sp::Check(matrix.s, 1, sp::Reads::kByRow);
    if (part == "by_row.others") sp::Check(matrix.s, 1, sp::Reads::kByCol);
    const sp::Reads reads = part.rfind("by_row", 0) == 0 ? sp::Reads::kByRow : sp::Reads::kByCol;
    for (const unsigned threads : {1U, 2U}) {
      try {
        sp::Check(matrix.s, threads, threads == 1 ? sp::Reads::kBoth : reads);
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
  refused("by_row.places", [](Matrix* m) { m->by_row.places[0] = 5; });
  refused("by_row.places", [](Matrix* m) { m->by_row.places[0] = -1; });
  refused("by_row.places", [](Matrix* m) { m->s.by_row.places = nullptr; });
  refused("by_col.places", [](Matrix* m) { m->s.by_col.places = m->by_row.places.data(); });
  refused("block", [](Matrix* m) { m->s.block_rows = 0; });
  refused("taps", [](Matrix* m) { m->s.taps = 0; });
  refused("structure", [](Matrix* m) { m->s.rows = -4; });
  refused("groups", [](Matrix* m) { m->s.cols = std::int64_t{1} << 40; });
  refused("by_col.starts", [](Matrix* m) { m->s.room -= 1; });
  refused("by_col.starts", [](Matrix* m) { m->by_col.starts.back() = -1; });
  refused("by_row.starts", [](Matrix* m) { m->by_row.starts.back() -= 1; });
  refused("room", [](Matrix* m) { m->s.room = -1; });
  refused("by_row.firsts", [](Matrix* m) { m->s.by_row.firsts = m->by_row.starts.data(); });
  // With room for more the limit of every number is still that of the blocks that there are.
  refused("by_row.places", [](Matrix* m) {
    m->by_row.places[3] = 5;
    GiveRoom(5, m);
  });
  refused("by_row.starts", [](Matrix* m) {
    GiveRoom(5, m);
    m->by_row.starts.back() += 1;
  });
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
  CheckRoom();
  CheckThreads();
  CheckOrder();
  CheckUnplaced();
  CheckRefusals();
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
