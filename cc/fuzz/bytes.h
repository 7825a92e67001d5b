// Decodes arguments from the bytes that a fuzzer makes. When they are used up everything is 0, the simplest choice.
#ifndef KERAS_LTH_CC_FUZZ_BYTES_H_
#define KERAS_LTH_CC_FUZZ_BYTES_H_

#include <cstddef>
#include <cstdint>
#include <initializer_list>

namespace keras_lth::fuzz {

class Bytes {
 public:
  Bytes(const std::uint8_t* data, std::size_t size) : data_(data), left_(size) {}

  std::uint64_t Word(int bytes) {
    std::uint64_t word = 0;
    for (; bytes > 0 && left_ > 0; --bytes, --left_) word = word << 8 | *data_++;
    return word;
  }

  // In [low, high].
  std::int64_t Between(std::int64_t low, std::int64_t high) {
    const auto span = static_cast<std::uint64_t>(high - low) + 1;
    return low + static_cast<std::int64_t>(Word(span <= 256 ? 1 : 4) % span);
  }

  // True in about `of_256` of 256 cases.
  bool Chance(int of_256) { return static_cast<int>(255 - Word(1)) < of_256 && of_256 > 0 && left_ > 0; }

  template <class T>
  T OneOf(std::initializer_list<T> choices) {
    return choices.begin()[Between(0, static_cast<std::int64_t>(choices.size()) - 1)];
  }

 private:
  const std::uint8_t* data_;
  std::size_t left_;
};

// Fills arrays from a seed of a few bytes (xorshift64*).
class Noise {
 public:
  explicit Noise(std::uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15U | 1) {}

  std::uint64_t Next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545F4914F6CDD1DU;
  }

  std::uint64_t Below(std::uint64_t n) { return (Next() >> 16) % n; }

  // In (-1, 1), a multiple of 2^-7: exact in bfloat16.
  float Weight() { return static_cast<float>(static_cast<std::int64_t>(Below(255)) - 127) / 128.0F; }

 private:
  std::uint64_t state_;
};

}  // namespace keras_lth::fuzz

#endif  // KERAS_LTH_CC_FUZZ_BYTES_H_
