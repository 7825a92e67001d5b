// Random sparse matrices, guarded outputs and runs with several numbers of threads, for the tests of the products.
#ifndef KERAS_LTH_CC_TEST_SPMM_TESTING_H_
#define KERAS_LTH_CC_TEST_SPMM_TESTING_H_

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

#include "cc/sparse/spmm.h"

namespace keras_lth::testing {

namespace sp = keras_lth::sparse;

inline int failures = 0;

inline void Fail(const std::string& what) {
  if (++failures <= 20) std::printf("FAILED: %s\n", what.c_str());
}

inline void Expect(bool ok, const std::string& what) {
  if (!ok) Fail(what);
}

struct Lists {
  std::vector<std::int64_t> starts{0};
  std::vector<std::int32_t> others, places;
  std::vector<std::uint16_t> narrow_others, narrow_places;  // once Narrow was called
};

// A structure, its arrays, and the matrix as it is without zeros left out.
struct Matrix {
  sp::Structure s;
  Lists by_col, by_row;
  std::vector<float> values;             // [room, block_rows, block_cols]
  std::vector<std::uint16_t> halves;     // the same in bfloat16: `values` are exact in it
  std::vector<float> dense;              // [rows, cols]

  std::int64_t Area() const { return std::int64_t{s.block_rows} * s.block_cols; }
  std::int64_t At(std::int64_t id, std::int64_t i, std::int64_t j) const {
    return id * Area() + i * s.block_cols + j;
  }
};

using Keep = std::function<bool(std::int64_t, std::int64_t)>;

inline float Rounded(float x, std::uint16_t* bits) {
  std::uint32_t whole;
  std::memcpy(&whole, &x, sizeof(whole));
  *bits = static_cast<std::uint16_t>(whole >> 16);
  whole &= 0xFFFF0000U;
  std::memcpy(&x, &whole, sizeof(whole));
  return x;
}

inline void Build(std::int64_t rows, std::int64_t cols, std::int32_t block_rows, std::int32_t block_cols, const Keep& keep,
           std::mt19937_64* random, Matrix* matrix) {
  sp::Structure& s = matrix->s;
  s = {rows, cols, 1, block_rows, block_cols, 0, {}, {}};
  const std::int64_t row_groups = s.RowGroups(), col_groups = s.ColGroups();
  std::vector<std::vector<std::pair<std::int32_t, std::int32_t>>> of_row(static_cast<std::size_t>(row_groups));
  for (std::int64_t c = 0; c < col_groups; ++c) {
    for (std::int64_t r = 0; r < row_groups; ++r) {
      if (!keep(r, c)) continue;
      const auto place = static_cast<std::int32_t>(static_cast<std::int64_t>(matrix->by_col.others.size()) -
                                                   matrix->by_col.starts.back());
      matrix->by_col.others.push_back(static_cast<std::int32_t>(r));
      of_row[static_cast<std::size_t>(r)].emplace_back(static_cast<std::int32_t>(c), place);
    }
    matrix->by_col.starts.push_back(static_cast<std::int64_t>(matrix->by_col.others.size()));
  }
  for (const auto& row : of_row) {
    for (const auto& [c, place] : row) {
      matrix->by_row.others.push_back(c);
      matrix->by_row.places.push_back(place);
    }
    matrix->by_row.starts.push_back(static_cast<std::int64_t>(matrix->by_row.others.size()));
  }
  s.room = static_cast<std::int64_t>(matrix->by_col.others.size());
  s.by_col = {matrix->by_col.starts.data(), matrix->by_col.others.data(), nullptr, nullptr};
  s.by_row = {matrix->by_row.starts.data(), matrix->by_row.others.data(), matrix->by_row.places.data(),
              matrix->by_col.starts.data()};
  matrix->values.assign(static_cast<std::size_t>(s.room * matrix->Area()), 0.0F);
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

// Gives the matrix room for `more` blocks, full of what no kernel may use.
inline void GiveRoom(std::int64_t more, Matrix* matrix) {
  sp::Structure& s = matrix->s;
  s.room += more;
  for (std::vector<std::int32_t>* numbers : {&matrix->by_col.others, &matrix->by_row.others, &matrix->by_row.places}) {
    numbers->resize(static_cast<std::size_t>(s.room), -7);
  }
  matrix->values.resize(static_cast<std::size_t>(s.room * matrix->Area()), NAN);
  matrix->halves.resize(matrix->values.size(), 0x7FC0);
  s.by_col.others = matrix->by_col.others.data();
  s.by_row.others = matrix->by_row.others.data();
  s.by_row.places = matrix->by_row.places.data();
}

// Lets the structure look at numbers of 16 bits.
inline void Narrow(Matrix* matrix) {
  sp::Structure& s = matrix->s;
  const auto narrow = [](const std::vector<std::int32_t>& from, std::vector<std::uint16_t>* to) -> sp::Index {
    to->clear();
    for (const std::int32_t number : from) to->push_back(static_cast<std::uint16_t>(number));
    return to->data();
  };
  s.by_col.others = narrow(matrix->by_col.others, &matrix->by_col.narrow_others);
  s.by_row.others = narrow(matrix->by_row.others, &matrix->by_row.narrow_others);
  s.by_row.places = narrow(matrix->by_row.places, &matrix->by_row.narrow_places);
}

inline std::vector<float> Noise(std::int64_t count, std::mt19937_64* random) {
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
  const float* data() const { return data_.data() + kGuard; }
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
inline bool Near(double expected, double got, std::int64_t terms, double magnitude) {
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
inline Output Run(const std::string& name, std::int64_t count, const std::function<void(float*, const sp::Run&)>& product) {
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

}  // namespace keras_lth::testing

#endif  // KERAS_LTH_CC_TEST_SPMM_TESTING_H_
