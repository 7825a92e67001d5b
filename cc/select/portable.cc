// Plain C++ for any processor; simple loops over 64 values that a compiler can vectorise for its baseline.
#include "cc/select/kernels.h"

namespace keras_lth::select::portable {

namespace {

// Bit i of the result = bytes[i], for eight bytes of 0 or 1.
inline std::uint64_t Pack8(const std::uint8_t* bytes) {
  std::uint64_t word;
  __builtin_memcpy(&word, bytes, sizeof(word));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  word = __builtin_bswap64(word);
#endif
  return (word * 0x0102040810204080U) >> 56;
}

inline std::uint64_t Pack(const std::uint8_t* flags) {
  std::uint64_t bits = 0;
  for (int i = 0; i < 8; ++i) bits |= Pack8(flags + 8 * i) << (8 * i);
  return bits;
}

inline std::uint64_t Collapse(const std::uint8_t* bytes) {
  std::uint8_t flags[64];
  for (int i = 0; i < 64; ++i) flags[i] = bytes[i] != 0;
  return Pack(flags);
}

inline void Expand(std::uint64_t bits, std::uint8_t* bytes) {
  for (int i = 0; i < 8; ++i) {
    // Bit j of the byte alone in byte j, then any non-zero byte becomes 1.
    const std::uint64_t spread = (((bits >> (8 * i)) & 0xFFU) * 0x0101010101010101U) & 0x8040201008040201U;
    std::uint64_t word = ((spread + 0x7F7F7F7F7F7F7F7FU) >> 7) & 0x0101010101010101U;
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    __builtin_memcpy(bytes + 8 * i, &word, sizeof(word));
  }
}

template <class T, bool kPlain>
class Comparer {
 public:
  Comparer(const Range<T>& range, T mark)
      : mark_(mark),
        lo_(range.lo),
        hi_(range.hi),
        infinity_(range.infinity),
        signed_(range.order.by_value ? T{-1} : T{0}),
        reversed_(range.order.largest ? T{0} : T{-1}) {}

  void operator()(const T* x, std::uint64_t* above, std::uint64_t* within) {
    std::uint8_t high[64], in[64];
    T largest = 0;
    for (int i = 0; i < 64; ++i) {
      const T magnitude = static_cast<T>(x[i] & kMagnitude<T>);
      T key = magnitude;
      if constexpr (!kPlain) {
        const T flip = static_cast<T>(((x[i] < 0 ? T{-1} : T{0}) & signed_) ^ reversed_);
        key = static_cast<T>((magnitude ^ flip) - flip);
      }
      high[i] = key > mark_;
      in[i] = static_cast<std::uint8_t>((key >= lo_) & (key <= hi_));
      largest = magnitude > largest ? magnitude : largest;
    }
    nan_ |= largest > infinity_;
    *above = Pack(high);
    *within = Pack(in);
  }

  bool nan() const { return nan_; }

 private:
  T mark_, lo_, hi_, infinity_, signed_, reversed_;
  bool nan_ = false;
};

#define KERAS_LTH_KERNELS_NAME "portable"
#include "cc/select/kernels_body.inc"

}  // namespace

const Kernels& Table() { return kKernels; }

}  // namespace keras_lth::select::portable
