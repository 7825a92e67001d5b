// n of every m, the scores of blocks, and their masks, against loops.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "cc/fuzz/fuzz.h"
#include "cc/fuzz/scores.h"
#include "cc/select/groups.h"

namespace keras_lth::fuzz {

namespace {

std::size_t Small(Bytes* bytes, std::int64_t most) { return static_cast<std::size_t>(bytes->Between(0, most)); }

const std::uint8_t* Eligible(const Scores& scores) { return scores.masked ? scores.eligible.data.data() : nullptr; }

Outcome NOfM(Bytes* bytes) {
  const select::Format format = Format(bytes);
  const select::Order order = Order(bytes);
  const std::size_t outer = Small(bytes, 4), length = Small(bytes, bytes->OneOf({20, 100, 3})),
                    inner = bytes->Chance(128) ? 1 : Small(bytes, bytes->OneOf({5, 90, 20}));
  Scores scores = MakeScores(bytes, format, outer * length * inner, false);
  const std::size_t m = static_cast<std::size_t>(bytes->OneOf({4, 2, 1, 7, 32, 33, 64, 100, 5}));
  std::size_t n = 1 + Small(bytes, static_cast<std::int64_t>(m) - 1);
  if (bytes->Chance(20)) n = bytes->OneOf({std::size_t{0}, m + 1, SIZE_MAX});
  const select::Kernels& kernels = select::KernelsFor(Level(bytes));
  const std::string name = "n of m, " + Name(format, order) + ", " + std::to_string(n) + " of " + std::to_string(m) +
                           ", [" + std::to_string(outer) + ", " + std::to_string(length) + ", " +
                           std::to_string(inner) + "], " + kernels.name;
  std::optional<std::size_t> nan;
  try {
    nan = select::NOfM({scores.values.data(), Eligible(scores), scores.selected.data.data(), outer, length, inner},
                       format, order, n, m, kernels, Workers(bytes));
  } catch (const std::invalid_argument&) {
    Expect(n < 1 || n > m, name + ": refused");
    return Outcome::kRefused;
  }
  Expect(n >= 1 && n <= m, name + ": accepted");
  Expect(nan == scores.nan, name + ": NaN");
  if (nan) return Outcome::kDone;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    const std::size_t along = i / inner % length, first = along / m * m;
    std::size_t before = 0;
    for (std::size_t j = first; j < std::min(length, first + m); ++j) {
      const std::size_t other = i + j * inner - along * inner;
      const double rank = Rank(scores.numbers[i], order), others = Rank(scores.numbers[other], order);
      before += scores.Eligible(other) && (others > rank || (others == rank && j < along));
    }
    const bool expected = scores.Eligible(i) && before < n;
    if (scores.selected.data[i] != (expected ? 1 : 0)) Wrong(name + ": index " + std::to_string(i));
  }
  return Outcome::kDone;
}

Outcome BlockScores(Bytes* bytes) {
  const select::Format format = Format(bytes);
  const std::size_t taps = 1 + Small(bytes, 3), rows = Small(bytes, 50), cols = Small(bytes, bytes->OneOf({50, 700}));
  Scores scores = MakeScores(bytes, format, taps * rows * cols, false);
  const std::size_t block_rows = 1 + Small(bytes, 20), block_cols = 1 + Small(bytes, bytes->OneOf({20, 700}));
  const select::Blocked blocks{Eligible(scores), taps, rows, cols, block_rows, block_cols};
  const bool by_value = bytes->Chance(128), mean = bytes->Chance(128);
  const select::Kernels& kernels = select::KernelsFor(Level(bytes));
  const unsigned threads = Workers(bytes);
  const std::string name = "blocks " + std::to_string(block_rows) + " x " + std::to_string(block_cols) + " of [" +
                           std::to_string(taps) + ", " + std::to_string(rows) + ", " + std::to_string(cols) + "], " +
                           Name(format, {by_value, true}) + (mean ? ", mean, " : ", sum, ") + kernels.name;
  const std::size_t count = taps * blocks.RowBlocks() * blocks.ColBlocks();
  std::vector<double> got(count, -7.0);
  std::vector<std::int64_t> counts(count, -7);
  const auto nan = select::ScoreBlocks(scores.values.data(), blocks, format, by_value, mean, kernels, threads,
                                       got.data(), counts.data());
  Expect(nan == scores.nan, name + ": NaN");
  std::vector<std::uint8_t> of_blocks(count);
  for (std::size_t b = 0; b < count; ++b) {
    const std::size_t tap = b / blocks.ColBlocks() / blocks.RowBlocks();
    const std::size_t row = b / blocks.ColBlocks() % blocks.RowBlocks() * block_rows;
    const std::size_t col = b % blocks.ColBlocks() * block_cols;
    of_blocks[b] = static_cast<std::uint8_t>(b % 3 == 0 ? 0 : b);
    double sums[8] = {}, total = 0.0;
    std::int64_t number = 0;
    for (std::size_t c = 0; c < block_cols && col + c < cols; ++c) {
      double of_column = 0.0;
      for (std::size_t r = 0; r < block_rows && row + r < rows; ++r) {
        const std::size_t i = (tap * rows + row + r) * cols + col + c;
        if (!scores.Eligible(i)) continue;
        of_column += by_value ? scores.numbers[i] : std::fabs(scores.numbers[i]);
        ++number;
      }
      sums[c % 8] += of_column;
    }
    for (const double sum : sums) total += sum;
    if (mean && number > 0) total /= static_cast<double>(number);
    if (nan) continue;
    // Infinities of both signs give a NaN.
    Expect(got[b] == total || (std::isnan(got[b]) && std::isnan(total)), name + ": block " + std::to_string(b));
    Expect(counts[b] == number, name + ": the number of block " + std::to_string(b));
  }
  select::ExpandBlocks(of_blocks.data(), blocks, threads, scores.selected.data.data());
  for (std::size_t i = 0; i < scores.size(); ++i) {
    const std::size_t tap = i / cols / rows, row = i / cols % rows / block_rows, col = i % cols / block_cols;
    const std::size_t block = (tap * blocks.RowBlocks() + row) * blocks.ColBlocks() + col;
    const bool expected = of_blocks[block] != 0 && scores.Eligible(i);
    if (scores.selected.data[i] != (expected ? 1 : 0)) Wrong(name + ": the mask at " + std::to_string(i));
  }
  return Outcome::kDone;
}

}  // namespace

Outcome Groups(Bytes* bytes) { return bytes->Chance(128) ? BlockScores(bytes) : NOfM(bytes); }

}  // namespace keras_lth::fuzz
