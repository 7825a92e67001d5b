// Random sparse kernels, and the convolution's definition as a list of pairs of pixels.
#ifndef KERAS_LTH_CC_TEST_CONV_TESTING_H_
#define KERAS_LTH_CC_TEST_CONV_TESTING_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <random>
#include <vector>

#include "cc/sparse/conv.h"

namespace keras_lth::testing {

namespace sp = keras_lth::sparse;

inline std::mt19937_64 randoms(7);

inline float Random() { return static_cast<float>(static_cast<double>(randoms() >> 11) * 0x1p-52 - 1.0); }

inline std::vector<float> Randoms(std::int64_t n) {
  std::vector<float> values(static_cast<std::size_t>(n));
  for (float& v : values) v = Random();
  return values;
}

template <class T>
T& At(std::vector<T>& v, std::int64_t i) {
  return v[static_cast<std::size_t>(i)];
}
template <class T>
const T& At(const std::vector<T>& v, std::int64_t i) {
  return v[static_cast<std::size_t>(i)];
}

// A structure and its arrays, with the dense kernel [taps, rows, cols] and whether each weight is stored.
struct Sparse {
  std::vector<std::int64_t> col_starts, row_starts;
  std::vector<std::int32_t> col_others, row_others, row_places;
  std::vector<std::uint16_t> narrow_col_others, narrow_row_others, narrow_row_places;  // once Narrow was called
  std::vector<float> values;
  std::vector<double> dense;
  std::vector<std::int64_t> place;  // of [taps, rows, cols] in the values; -1: not stored
  sp::Structure structure{};
};

inline Sparse Make(std::int64_t taps, std::int64_t rows, std::int64_t cols, std::int32_t block_rows,
                   std::int32_t block_cols, double density) {
  Sparse s;
  s.structure.rows = rows;
  s.structure.cols = cols;
  s.structure.taps = taps;
  s.structure.block_rows = block_rows;
  s.structure.block_cols = block_cols;
  const std::int64_t row_groups = s.structure.RowGroups(), col_groups = s.structure.ColGroups();
  std::vector<std::int64_t> ids(static_cast<std::size_t>(taps * row_groups * col_groups), -1);
  s.col_starts.push_back(0);
  for (std::int64_t c = 0; c < col_groups; ++c) {
    for (std::int64_t r = 0; r < taps * row_groups; ++r) {
      if (Random() * 0.5 + 0.5 >= density) continue;
      At(ids, r * col_groups + c) = static_cast<std::int64_t>(s.col_others.size());
      s.col_others.push_back(static_cast<std::int32_t>(r));
    }
    s.col_starts.push_back(static_cast<std::int64_t>(s.col_others.size()));
  }
  s.row_starts.push_back(0);
  for (std::int64_t r = 0; r < taps * row_groups; ++r) {
    for (std::int64_t c = 0; c < col_groups; ++c) {
      if (At(ids, r * col_groups + c) < 0) continue;
      s.row_others.push_back(static_cast<std::int32_t>(c));
      s.row_places.push_back(static_cast<std::int32_t>(At(ids, r * col_groups + c) - At(s.col_starts, c)));
    }
    s.row_starts.push_back(static_cast<std::int64_t>(s.row_others.size()));
  }
  const std::int64_t block = std::int64_t{block_rows} * block_cols;
  s.structure.room = static_cast<std::int64_t>(s.col_others.size());
  s.values.assign(static_cast<std::size_t>(s.structure.room * block), 0.0F);
  s.dense.assign(static_cast<std::size_t>(taps * rows * cols), 0.0);
  s.place.assign(s.dense.size(), -1);
  for (std::int64_t i = 0; i < taps * rows * cols; ++i) {
    const std::int64_t tap = i / (rows * cols), row = i / cols % rows, col = i % cols;
    const std::int64_t id = At(ids, (tap * row_groups + row / block_rows) * col_groups + col / block_cols);
    if (id < 0) continue;
    const std::int64_t place = id * block + row % block_rows * block_cols + col % block_cols;
    At(s.place, i) = place;
    // Also a number that bfloat16 holds.
    At(s.values, place) = std::round(Random() * 64) / 64;
    At(s.dense, i) = static_cast<double>(At(s.values, place));
  }
  s.structure.by_col = {s.col_starts.data(), s.col_others.data(), nullptr, nullptr};
  s.structure.by_row = {s.row_starts.data(), s.row_others.data(), s.row_places.data(), s.col_starts.data()};
  return s;
}

// Gives it room for `more` blocks, full of what no kernel may use.
inline void GiveRoom(std::int64_t more, Sparse* sparse) {
  sp::Structure& s = sparse->structure;
  s.room += more;
  for (std::vector<std::int32_t>* numbers : {&sparse->col_others, &sparse->row_others, &sparse->row_places}) {
    numbers->resize(static_cast<std::size_t>(s.room), -7);
  }
  sparse->values.resize(static_cast<std::size_t>(s.room * s.block_rows * s.block_cols), NAN);
  s.by_col.others = sparse->col_others.data();
  s.by_row.others = sparse->row_others.data();
  s.by_row.places = sparse->row_places.data();
}

// Lets the structure look at numbers of 16 bits.
inline void Narrow(Sparse* sparse) {
  const auto narrow = [](const std::vector<std::int32_t>& from, std::vector<std::uint16_t>* to) -> sp::Index {
    to->clear();
    for (const std::int32_t number : from) to->push_back(static_cast<std::uint16_t>(number));
    return to->data();
  };
  sparse->structure.by_col.others = narrow(sparse->col_others, &sparse->narrow_col_others);
  sparse->structure.by_row.others = narrow(sparse->row_others, &sparse->narrow_row_others);
  sparse->structure.by_row.places = narrow(sparse->row_places, &sparse->narrow_row_places);
}

// TensorFlow's rule, written from its documentation.
inline std::int64_t Out(std::int64_t extent, std::int64_t kernel, std::int64_t stride, bool same) {
  std::int64_t n = 0;
  for (std::int64_t at = 0; same ? at < extent : at + kernel <= extent; at += stride) ++n;
  return n;
}
inline std::int64_t Before(std::int64_t extent, std::int64_t kernel, std::int64_t stride, bool same) {
  if (!same) return 0;
  const std::int64_t total = extent % stride == 0 ? kernel - stride : kernel - extent % stride;
  return std::max<std::int64_t>(total, 0) / 2;
}

// Calls visit(x index of channel 0, y index of channel 0, tap) for every pair of pixels that a tap joins.
inline void Pairs(const sp::ConvShape& s, std::int64_t cin, std::int64_t cout,
                  const std::function<void(std::int64_t, std::int64_t, std::int64_t)>& visit) {
  const std::int64_t oh = Out(s.height, s.kernel_height, s.stride_height, s.same);
  const std::int64_t ow = Out(s.width, s.kernel_width, s.stride_width, s.same);
  const std::int64_t top = Before(s.height, s.kernel_height, s.stride_height, s.same);
  const std::int64_t left = Before(s.width, s.kernel_width, s.stride_width, s.same);
  for (std::int64_t n = 0; n < s.batch; ++n) {
    for (std::int64_t oy = 0; oy < oh; ++oy) {
      for (std::int64_t ox = 0; ox < ow; ++ox) {
        for (std::int64_t tap = 0; tap < std::int64_t{s.kernel_height} * s.kernel_width; ++tap) {
          const std::int64_t y = oy * s.stride_height - top + tap / s.kernel_width;
          const std::int64_t x = ox * s.stride_width - left + tap % s.kernel_width;
          if (y < 0 || y >= s.height || x < 0 || x >= s.width) continue;
          visit(((n * s.height + y) * s.width + x) * cin, ((n * oh + oy) * ow + ox) * cout, tap);
        }
      }
    }
  }
}

// |got - expected| against the sum of the magnitudes that were added up.
inline bool Close(const std::vector<float>& got, const std::vector<double>& expected, const std::vector<double>& magnitude) {
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (!(std::abs(static_cast<double>(got[i]) - expected[i]) <= 4e-6 * magnitude[i] + 1e-30)) return false;
  }
  return true;
}

}  // namespace keras_lth::testing

#endif  // KERAS_LTH_CC_TEST_CONV_TESTING_H_
