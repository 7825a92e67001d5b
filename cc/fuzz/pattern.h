// Structures of stored blocks: sound ones, and ones that Check must refuse.
#ifndef KERAS_LTH_CC_FUZZ_PATTERN_H_
#define KERAS_LTH_CC_FUZZ_PATTERN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "cc/fuzz/fuzz.h"
#include "cc/sparse/spmm.h"
#include "cc/sparse/structure.h"

namespace keras_lth::fuzz {

struct Lists {
  std::vector<std::int64_t> starts;
  std::vector<std::int32_t> others, places;
  std::vector<std::uint16_t> narrow_others, narrow_places;
};

// A structure and what it looks at. Every array is exactly as long as it has to be.
struct Pattern {
  sparse::Structure structure{};
  Lists by_col, by_row;
  bool narrow = false;  // its numbers are of 16 bits
  bool broken = false;  // somebody has meddled with it, so that by_col and by_row need not mean the same

  // Some blocks of a matrix, or of `taps` of them, at random.
  Pattern(Bytes* bytes, std::int64_t rows, std::int64_t cols, std::int64_t taps);
  Pattern(const Pattern&) = delete;
  Pattern& operator=(const Pattern&) = delete;

  // Changes a few fields or entries.
  void Break(Bytes* bytes);

  // By the definition in structure.h, as far as a product reads it.
  bool Sound(sparse::Reads reads) const;

  std::int64_t Area() const { return std::int64_t{structure.block_rows} * structure.block_cols; }

  std::string Name() const;

 private:
  bool SoundNumbers() const;
  void Fit();
};

// Calls Check, and says whether it accepted; it must do so if and only if the structure is sound, as far as it is read.
bool Accepted(const Pattern& pattern, unsigned threads, sparse::Reads reads = sparse::Reads::kBoth);

// What loops in double precision say a float must be, and how far off its sums in float32 may be.
struct Expected {
  double sum = 0.0, magnitude = 0.0;
  std::int64_t terms = 0;

  void Add(double term) {
    sum += term;
    magnitude += term < 0.0 ? -term : term;
    ++terms;
  }
  bool Near(float got) const;
};

// Every float is near what is expected, or cut off at 0; anything else is wrong.
void ExpectNear(const std::vector<float>& got, const std::vector<Expected>& expected, bool relu,
                const std::string& name);

// The same bits, but for which NaN it is.
void ExpectSame(const std::vector<float>& got, const std::vector<float>& other, const std::string& name);

// Floats in (-1, 1), sometimes with a few that are denormal, -0, or, where they may be, infinite or not numbers.
std::vector<float> Floats(Bytes* bytes, std::int64_t count, bool finite = false);

// The values of the blocks: 0 where by_col's block lies over the edge of the matrix, NaN behind the last block.
std::vector<float> Blocks(Bytes* bytes, const Pattern& pattern, bool finite);

// The values as they are, or in bfloat16 where that holds them exactly; `halves` then has them.
sparse::Values Stored(Bytes* bytes, const std::vector<float>& values, std::vector<std::uint16_t>* halves);

}  // namespace keras_lth::fuzz

#endif  // KERAS_LTH_CC_FUZZ_PATTERN_H_
