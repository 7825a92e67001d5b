// Holds n of every m, scores of blocks and their masks against loops over decoded values. Prints what fails and returns
// 1, or 0 when nothing does. The instruction set is the best one, or the one KERAS_LTH_ISA names.
#include "cc/select/groups.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "cc/test/formats.h"

namespace {

namespace sel = keras_lth::select;
using keras_lth::test::Bytes;
using keras_lth::test::Decode;
using keras_lth::test::Expect;
using keras_lth::test::kOrders;
using keras_lth::test::Name;
using keras_lth::test::Rank;


const sel::Kernels& Table() { return sel::KernelsFor(keras_lth::isa::Choose("")); }

template <class T>
std::vector<T> Numbers(std::size_t n, T infinity, bool few, std::mt19937_64& random) {
  std::vector<T> values(n);
  for (T& value : values) {
    const std::uint64_t magnitude = few ? random() % 3 : random() % static_cast<std::uint64_t>(infinity);
    value = static_cast<T>(magnitude);
    if (random() % 2 == 0) value = static_cast<T>(value | std::numeric_limits<T>::min());
  }
  return values;
}

Bytes Mask(std::size_t n, std::mt19937_64& random) {
  Bytes mask(n);
  for (auto& byte : mask) byte = static_cast<std::uint8_t>(random() % 3 == 0 ? 0 : 1 + random() % 255);
  return mask;
}

template <class T>
void CheckNOfM(sel::Format format, T infinity, const std::string& name) {
  std::mt19937_64 random(2);
  const std::size_t sides[][3] = {{1, 1000, 1}, {3, 70, 1}, {2, 9, 5}, {1, 40, 200}, {1, 0, 3}, {2, 100, 17}};
  const std::size_t pairs[][2] = {{2, 4}, {1, 1}, {3, 7}, {5, 32}, {20, 33}, {1, 100}, {60, 60}};
  std::size_t turn = 0;
  for (const auto& [outer, length, inner] : sides) {
    for (const auto& [n, m] : pairs) {
      const std::size_t size = outer * length * inner;
      const sel::Order order = kOrders[turn++ % 4];
      const std::vector<T> values = Numbers(size, infinity, turn % 3 == 0, random);
      const Bytes mask = Mask(size, random);
      for (const bool masked : {false, true}) {
        Bytes expected(size, 0), got(size, 7);
        for (std::size_t o = 0; o < outer; ++o) {
          for (std::size_t i = 0; i < inner; ++i) {
            const auto at = [&](std::size_t j) { return (o * length + j) * inner + i; };
            const auto rank = [&](std::size_t j) { return Rank(values[at(j)], format, order); };
            for (std::size_t j = 0; j < length; ++j) {
              std::size_t before = 0;
              const std::size_t begin = j / m * m, end = std::min(length, begin + m);
              for (std::size_t other = begin; other < end; ++other) {
                if (masked && mask[at(other)] == 0) continue;
                before += rank(other) > rank(j) || (rank(other) == rank(j) && other < j);
              }
              expected[at(j)] = before < n && !(masked && mask[at(j)] == 0);
            }
          }
        }
        const sel::Along along{values.data(), masked ? mask.data() : nullptr, got.data(), outer, length, inner};
        const auto nan = sel::NOfM(along, format, order, n, m, Table(), 3);
        Expect(!nan && got == expected, name + Name(order) + ", " + std::to_string(n) + " of " + std::to_string(m) +
                                            ", length " + std::to_string(length) + (masked ? ", masked" : ""));
      }
    }
  }
  for (const std::size_t m : {4, 50}) {
    std::vector<T> values(3000, T{1});
    values[2222] = static_cast<T>(infinity + 1);
    Bytes out(values.size());
    const auto nan = sel::NOfM({values.data(), nullptr, out.data(), 1, 3000, 1}, format, {}, 2, m, Table(), 2);
    Expect(nan && *nan == 2222, name + ": NaN of m");
  }
}

// The sum in the order that ScoreBlocks promises.
double Sum(const std::vector<std::vector<double>>& rows) {
  std::vector<double> columns(rows[0].size(), 0.0);
  for (const auto& row : rows) {
    for (std::size_t c = 0; c < row.size(); ++c) columns[c] += row[c];
  }
  double eight[8] = {}, sum = 0.0;
  for (std::size_t c = 0; c < columns.size(); ++c) eight[c % 8] += columns[c];
  for (const double part : eight) sum += part;
  return sum;
}

template <class T>
void CheckBlocks(sel::Format format, T infinity, const std::string& name) {
  std::mt19937_64 random(3);
  const std::size_t shapes[][5] = {{1, 64, 64, 16, 16}, {9, 20, 37, 4, 4}, {2, 7, 1300, 3, 600}, {1, 1, 50, 1, 1},
                                   {1, 33, 100, 33, 1}, {1, 3, 2000, 1, 2000}, {1, 40, 16, 1, 16}, {3, 0, 4, 2, 2}};
  for (const auto& [taps, rows, cols, block_rows, block_cols] : shapes) {
    for (const bool by_value : {false, true}) {
      for (const bool masked : {false, true}) {
        const std::size_t size = taps * rows * cols;
        // Below the largest exponents, so that no sum of a double is infinite.
        const std::vector<T> values = Numbers(size, static_cast<T>(infinity / 4 * 3), false, random);
        const Bytes mask = Mask(size, random);
        const sel::Blocked blocks{masked ? mask.data() : nullptr, taps, rows, cols, block_rows, block_cols};
        const std::size_t n = taps * blocks.RowBlocks() * blocks.ColBlocks();
        std::vector<double> scores(n), means(n);
        std::vector<std::int64_t> counts(n);
        std::string what = name + ", blocks " + std::to_string(block_rows) + " x " + std::to_string(block_cols);
        what += std::string(by_value ? ", values" : "") + (masked ? ", masked" : "");
        Expect(!sel::ScoreBlocks(values.data(), blocks, format, by_value, true, Table(), 2, means.data(),
                                 counts.data()) &&
                   !sel::ScoreBlocks(values.data(), blocks, format, by_value, false, Table(), 3, scores.data(),
                                     counts.data()),
               what + ": no NaN");
        Bytes chosen(n), expanded(size, 7), expected(size, 0);
        for (auto& byte : chosen) byte = static_cast<std::uint8_t>(random() % 2);
        for (std::size_t b = 0; b < n; ++b) {
          const std::size_t tap = b / (blocks.RowBlocks() * blocks.ColBlocks());
          const std::size_t row = b / blocks.ColBlocks() % blocks.RowBlocks() * block_rows;
          const std::size_t col = b % blocks.ColBlocks() * block_cols;
          std::vector<std::vector<double>> terms;
          std::int64_t count = 0;
          for (std::size_t r = row; r < std::min(rows, row + block_rows); ++r) {
            terms.emplace_back();
            for (std::size_t c = col; c < std::min(cols, col + block_cols); ++c) {
              const std::size_t at = (tap * rows + r) * cols + c;
              const bool open = !masked || mask[at] != 0;
              const double value = Decode(static_cast<std::make_unsigned_t<T>>(values[at]), format);
              terms.back().push_back(open ? (by_value ? value : std::fabs(value)) : 0.0);
              count += open;
              expected[at] = open && chosen[b] != 0;
            }
          }
          const double sum = Sum(terms);
          Expect(scores[b] == sum && counts[b] == count && means[b] == (count ? sum / static_cast<double>(count) : sum),
                 what + ", block " + std::to_string(b));
        }
        sel::ExpandBlocks(chosen.data(), blocks, 2, expanded.data());
        Expect(expanded == expected, what + ", expanded");
      }
    }
  }
  std::vector<T> values(5000, T{1});
  values[4321] = static_cast<T>(infinity + 1);
  const Bytes closed(values.size(), 0);
  std::vector<double> scores(50);
  std::vector<std::int64_t> counts(50);
  const auto nan = sel::ScoreBlocks(values.data(), {closed.data(), 1, 50, 100, 10, 10}, format, false, true, Table(), 2,
                                    scores.data(), counts.data());
  Expect(nan && *nan == 4321, name + ": NaN in a block that is not eligible");
}

void CheckDenormals() {
#if defined(__SSE2__)
  const unsigned before = _mm_getcsr();
  _mm_setcsr(before | 0x8040U);  // as TensorFlow's threads: flush to zero, denormals are zero
  const std::vector<std::int32_t> values = {1, 2, 3, 0x00400000};
  double score = 0.0;
  std::int64_t count = 0;
  sel::ScoreBlocks(values.data(), {nullptr, 1, 1, 4, 1, 4}, sel::Format::kFloat32, false, false, Table(), 1, &score,
                   &count);
  Expect((_mm_getcsr() & 0x8040U) == 0x8040U, "the state is put back");
  _mm_setcsr(before);
  Expect(score == std::ldexp(6.0, -149) + std::ldexp(1.0, -127), "denormals are numbers");
#endif
}

template <class T>
void CheckFormat(sel::Format format, T infinity, const std::string& name) {
  CheckNOfM(format, infinity, name);
  CheckBlocks(format, infinity, name);
}

}  // namespace

int main(int argc, char** argv) {
  const bool all = argc < 2 || std::strcmp(argv[1], "float32") != 0;
  std::printf("instruction set %s\n", keras_lth::isa::Name(keras_lth::isa::Choose("")));
  CheckFormat<std::int32_t>(sel::Format::kFloat32, 0x7F800000, "float32");
  CheckDenormals();
  if (all) {
    CheckFormat<std::int16_t>(sel::Format::kFloat16, 0x7C00, "float16");
    CheckFormat<std::int16_t>(sel::Format::kBfloat16, 0x7F80, "bfloat16");
    CheckFormat<std::int64_t>(sel::Format::kFloat64, 0x7FF0000000000000, "float64");
  }
  try {
    sel::NOfM({nullptr, nullptr, nullptr, 0, 0, 0}, sel::Format::kFloat32, {}, 3, 2, Table(), 1);
    Expect(false, "3 of 2 is accepted");
  } catch (const std::invalid_argument& error) {
    Expect(std::string(error.what()).find("1 <= n <= m") != std::string::npos, error.what());
  }
  std::printf("%d failures\n", keras_lth::test::failures);
  return keras_lth::test::failures == 0 ? 0 : 1;
}
