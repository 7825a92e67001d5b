#include "cc/select/groups.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "cc/select/rank.h"
#include "cc/threads/for_each.h"

namespace keras_lth::select {

namespace {

constexpr std::size_t kTile = 512;  // columns whose sums are kept at once
constexpr std::size_t kColumns = 16;
constexpr std::size_t kSums = 8;
constexpr std::size_t kValuesPerThread = std::size_t{1} << 18;

unsigned Workers(unsigned threads, std::size_t values) {
  if (threads != 0) return threads;
  return static_cast<unsigned>(
      std::clamp<std::size_t>(values / kValuesPerThread, 1, std::max<std::size_t>(1, threads::Size())));
}

std::size_t Width(Format format) {
  if (format == Format::kFloat64) return 8;
  return format == Format::kFloat32 ? 4 : 2;
}

// Denormals are numbers as long as it lives, also on a thread that flushes them.
class WithDenormals {
 public:
#if defined(__SSE2__)
  WithDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ & ~0x8040U); }
  ~WithDenormals() { _mm_setcsr(before_); }

 private:
  unsigned before_;
#else
  WithDenormals() {}
#endif
 public:
  WithDenormals(const WithDenormals&) = delete;
  WithDenormals& operator=(const WithDenormals&) = delete;
};

// One task: consecutive groups of one outer index. Small groups by the kernel.
template <class T>
class Chooser {
 public:
  Chooser(const Along& array, const Range<T>& range, std::size_t n, std::size_t m, const Kernels& kernels)
      : array_(array), values_(static_cast<const T*>(array.values)), range_(range), n_(n), m_(m), of_(Of<T>(kernels)) {}

  // Of the group of `m` at `at`, or of `count` such side by side; the last two arguments as in KernelsOf::n_of_m.
  bool Run(std::size_t at, std::size_t count, std::size_t lane_stride, std::size_t m) const {
    const std::uint8_t* eligible = array_.eligible == nullptr ? nullptr : array_.eligible + at;
    if (m > kMostOfM) return Large(at, count, lane_stride, m);
    bool nan = false;
    for (std::size_t lane = 0; lane < count; lane += kLanes) {
      const std::size_t skip = lane * lane_stride;
      nan |= of_.n_of_m(values_ + at + skip, eligible == nullptr ? nullptr : eligible + skip,
                        array_.selected + at + skip, std::min(kLanes, count - lane), lane_stride, m, array_.inner,
                        n_, range_);
    }
    return nan;
  }

 private:
  bool Large(std::size_t at, std::size_t count, std::size_t lane_stride, std::size_t m) const {
    constexpr T kNever = std::numeric_limits<T>::min();
    const std::size_t wide = lane_stride == 1 ? kColumns : 1;
    std::vector<T> keys(wide * m), sorted(m);
    bool nan = false;
    for (std::size_t first = 0; first < count; first += wide) {
      const std::size_t columns = std::min(wide, count - first);
      const std::size_t begin = at + first * lane_stride;
      for (std::size_t j = 0; j < m; ++j) {
        for (std::size_t c = 0; c < columns; ++c) {
          const std::size_t from = begin + j * array_.inner + c;
          nan |= (values_[from] & kMagnitude<T>) > range_.infinity;
          const bool open = array_.eligible == nullptr || array_.eligible[from] != 0;
          keys[c * m + j] = open ? KeyOf(values_[from], range_.order) : kNever;
        }
      }
      for (std::size_t c = 0; c < columns; ++c) {
        const T* of_column = keys.data() + c * m;
        std::copy(of_column, of_column + m, sorted.begin());
        const auto place = sorted.begin() + static_cast<std::ptrdiff_t>(std::min(n_, m)) - 1;
        std::nth_element(sorted.begin(), place, sorted.end(), std::greater<T>());
        const T threshold = *place;
        auto left = static_cast<std::size_t>(std::count(sorted.begin(), place + 1, threshold));
        for (std::size_t j = 0; j < m; ++j) {
          const bool tie = of_column[j] == threshold && left > 0;
          left -= tie;
          array_.selected[begin + j * array_.inner + c] =
              static_cast<std::uint8_t>(of_column[j] != kNever && (of_column[j] > threshold || tie));
        }
      }
    }
    return nan;
  }

  const Along& array_;
  const T* values_;
  const Range<T> range_;
  const std::size_t n_, m_;
  const KernelsOf<T>& of_;
};

template <class T>
std::optional<std::size_t> Choose(const Along& array, T infinity, Order order, std::size_t n, std::size_t m,
                                  const Kernels& kernels, unsigned threads) {
  const std::size_t size = array.outer * array.length * array.inner;
  if (size == 0) return std::nullopt;
  const Chooser<T> chooser(array, Everything(infinity, order), n, m, kernels);
  const std::size_t whole = array.length / m, rest = array.length % m;
  std::atomic<bool> nan{false};
  const auto note = [&](bool found) {
    if (found) nan.store(true);
  };
  if (array.inner == 1) {
    const std::size_t step = std::max<std::size_t>(1, kChunk / m);  // groups in a task
    const std::size_t tasks = (whole + step - 1) / step + (rest != 0);
    threads::ForEach(Workers(threads, size), array.outer * tasks, [&](unsigned, std::size_t i) {
      const std::size_t group = i % tasks * step, at = i / tasks * array.length + group * m;
      const bool last = rest != 0 && i % tasks == tasks - 1;
      note(last ? chooser.Run(i / tasks * array.length + whole * m, 1, 1, rest)
                : chooser.Run(at, std::min(step, whole - group), m, m));
    });
  } else {
    const std::size_t groups = whole + (rest != 0);
    const std::size_t step = std::max<std::size_t>(kLanes, kChunk / std::min(m, array.length) / kLanes * kLanes);
    const std::size_t tasks = (array.inner + step - 1) / step;
    threads::ForEach(Workers(threads, size), array.outer * groups * tasks, [&](unsigned, std::size_t i) {
      const std::size_t column = i % tasks * step, group = i / tasks % groups, outer = i / tasks / groups;
      const std::size_t at = (outer * array.length + group * m) * array.inner + column;
      note(chooser.Run(at, std::min(step, array.inner - column), 1, group < whole ? m : rest));
    });
  }
  if (!nan.load()) return std::nullopt;
  return FirstNan<T>({{array.values, {}, {}, size}}, infinity).index;
}

// Adds columns of one block to its eight sums. Those of earlier tiles were a multiple of eight.
template <class T>
void Fold(const T* columns, std::size_t n, T* sums) {
  static_assert(kTile % kSums == 0, "a tile begins with the first sum");
  for (std::size_t c = 0; c < n; ++c) sums[c % kSums] += columns[c];
}

std::optional<std::size_t> NanIndex(const void* values, std::size_t size, Format format) {
  const std::vector<Array> one = {{values, {}, {}, size}};
  const std::int64_t infinity = Infinity(format);
  if (format == Format::kFloat64) return FirstNan<std::int64_t>(one, infinity).index;
  if (format == Format::kFloat32) return FirstNan(one, static_cast<std::int32_t>(infinity)).index;
  return FirstNan(one, static_cast<std::int16_t>(infinity)).index;
}

}  // namespace

std::optional<std::size_t> NOfM(const Along& array, Format format, Order order, std::size_t n, std::size_t m,
                                const Kernels& kernels, unsigned threads) {
  if (n < 1 || n > m) throw std::invalid_argument("n of m: 1 <= n <= m is needed");
  const std::int64_t infinity = Infinity(format);
  if (format == Format::kFloat64) return Choose<std::int64_t>(array, infinity, order, n, m, kernels, threads);
  if (format == Format::kFloat32) {
    return Choose(array, static_cast<std::int32_t>(infinity), order, n, m, kernels, threads);
  }
  return Choose(array, static_cast<std::int16_t>(infinity), order, n, m, kernels, threads);
}

std::optional<std::size_t> ScoreBlocks(const void* values, const Blocked& blocks, Format format, bool by_value,
                                       bool mean, const Kernels& kernels, unsigned threads, double* scores,
                                       std::int64_t* counts) {
  const Accumulate accumulate = kernels.accumulate[static_cast<std::size_t>(format)];
  const std::size_t width = Width(format), size = blocks.taps * blocks.rows * blocks.cols;
  const std::size_t bands = blocks.taps * blocks.RowBlocks(), of_row = blocks.ColBlocks();
  // A task is as many whole blocks of a band as fit a tile, at least one.
  const std::size_t step = std::max<std::size_t>(1, kTile / blocks.block_cols);
  const std::size_t tasks = (of_row + step - 1) / step;
  std::atomic<bool> nan{false};
  threads::ForEach(Workers(threads, size), bands * tasks, [&](unsigned, std::size_t i) {
    const WithDenormals with_denormals;
    const std::size_t band = i / tasks, tap = band / blocks.RowBlocks();
    const std::size_t row = band % blocks.RowBlocks() * blocks.block_rows;
    const std::size_t rows = std::min(blocks.block_rows, blocks.rows - row);
    const std::size_t begin = i % tasks * step * blocks.block_cols;
    const std::size_t end = std::min(blocks.cols, begin + step * blocks.block_cols);
    double sums[kTile], of_block[kSums];
    std::int64_t numbers[kTile], number_of_block[kSums];
    bool found = false;
    for (std::size_t from = begin; from < end; from += kTile) {
      const std::size_t n = std::min(kTile, end - from);
      std::fill_n(sums, n, 0.0);
      std::fill_n(numbers, n, blocks.eligible == nullptr ? static_cast<std::int64_t>(rows) : 0);
      for (std::size_t r = row; r < row + rows; ++r) {
        const std::size_t at = (tap * blocks.rows + r) * blocks.cols + from;
        found |= accumulate(static_cast<const char*>(values) + at * width,
                            blocks.eligible == nullptr ? nullptr : blocks.eligible + at, n, by_value, sums, numbers);
      }
      for (std::size_t c = 0; c < n;) {
        const std::size_t inside = (from + c) % blocks.block_cols;
        const std::size_t count = std::min(n - c, blocks.block_cols - inside);
        if (inside == 0) {
          std::fill_n(of_block, kSums, 0.0);
          std::fill_n(number_of_block, kSums, 0);
        }
        Fold(sums + c, count, of_block);
        Fold(numbers + c, count, number_of_block);
        c += count;
        if (inside + count < blocks.block_cols && from + c < blocks.cols) continue;  // goes on in the next tile
        double score = 0.0;
        std::int64_t number = 0;
        for (std::size_t s = 0; s < kSums; ++s) score += of_block[s];
        for (std::size_t s = 0; s < kSums; ++s) number += number_of_block[s];
        const std::size_t block = band * of_row + (from + c - 1) / blocks.block_cols;
        scores[block] = mean && number > 0 ? score / static_cast<double>(number) : score;
        counts[block] = number;
      }
    }
    if (found) nan.store(true);
  });
  if (!nan.load()) return std::nullopt;
  return NanIndex(values, size, format);
}

void ExpandBlocks(const std::uint8_t* of_blocks, const Blocked& blocks, unsigned threads, std::uint8_t* selected) {
  const std::size_t of_row = blocks.ColBlocks(), size = blocks.taps * blocks.rows * blocks.cols;
  threads::ForEach(Workers(threads, size), blocks.taps * blocks.RowBlocks(), [&](unsigned, std::size_t band) {
    const std::size_t tap = band / blocks.RowBlocks(), row = band % blocks.RowBlocks() * blocks.block_rows;
    std::uint8_t* first = selected + (tap * blocks.rows + row) * blocks.cols;
    for (std::size_t b = 0; b < of_row; ++b) {
      const std::size_t col = b * blocks.block_cols;
      std::memset(first + col, of_blocks[band * of_row + b] != 0, std::min(blocks.block_cols, blocks.cols - col));
    }
    const std::size_t rows = std::min(blocks.block_rows, blocks.rows - row);
    for (std::size_t r = 1; r < rows; ++r) std::memcpy(first + r * blocks.cols, first, blocks.cols);
    if (blocks.eligible == nullptr) return;
    const std::uint8_t* eligible = blocks.eligible + (first - selected);
    for (std::size_t i = 0; i < rows * blocks.cols; ++i) {
      first[i] = static_cast<std::uint8_t>(first[i] & (eligible[i] != 0));
    }
  });
}

}  // namespace keras_lth::select
