// Arrays of scores in any format, with eligible values and room for a selection, as bytes or bits.
#ifndef KERAS_LTH_CC_FUZZ_SCORES_H_
#define KERAS_LTH_CC_FUZZ_SCORES_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cc/fuzz/fuzz.h"
#include "cc/select/kernels.h"
#include "cc/select/select.h"

namespace keras_lth::fuzz {

// Booleans of which every array is exactly as long as it has to be.
struct Booleans {
  std::vector<std::uint8_t> data;
  std::size_t size = 0;
  bool packed = false;

  void Resize(std::size_t count, bool in_bits);
  bool Get(std::size_t i) const;
  void Set(std::size_t i, std::uint8_t true_byte);
};

struct Scores {
  select::Format format;
  std::vector<std::uint8_t> values;
  std::vector<double> numbers;  // what the values stand for
  bool masked = false;
  Booleans eligible, selected;
  std::optional<std::size_t> nan;  // the first one

  std::size_t size() const { return numbers.size(); }
  bool Eligible(std::size_t i) const { return !masked || eligible.Get(i); }
  std::uint64_t Bits(std::size_t i) const;
  select::Array View();
};

// What the bits of a format stand for.
double Number(std::uint64_t bits, select::Format format);

select::Format Format(Bytes* bytes);
select::Order Order(Bytes* bytes);

// `size` scores: ties, edges of the format, patterns that mislead samples; some of them eligible. Seldom with a NaN.
Scores MakeScores(Bytes* bytes, select::Format format, std::size_t size, bool may_pack);

// Sizes around those at which an inner loop or a piece of work ends; large ones are rare.
std::size_t Size(Bytes* bytes);

// One that the order selects first is greater.
double Rank(double number, select::Order order);

std::string Name(select::Format format, select::Order order);

}  // namespace keras_lth::fuzz

#endif  // KERAS_LTH_CC_FUZZ_SCORES_H_
