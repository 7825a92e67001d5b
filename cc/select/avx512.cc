// AVX-512 F, BW, DQ and VL; compiled with these flags on x86-64, empty elsewhere.
#if defined(__AVX512BW__)
#include <immintrin.h>

#include "cc/select/kernels.h"

namespace keras_lth::select::avx512 {

namespace {

inline __m512i Set1(std::int16_t v) { return _mm512_set1_epi16(v); }
inline __m512i Set1(std::int32_t v) { return _mm512_set1_epi32(v); }
inline __m512i Set1(std::int64_t v) { return _mm512_set1_epi64(v); }

template <class T>
inline std::uint64_t Greater(__m512i a, __m512i b) {
  if constexpr (sizeof(T) == 2) return _mm512_cmpgt_epi16_mask(a, b);
  if constexpr (sizeof(T) == 4) return _mm512_cmpgt_epi32_mask(a, b);
  if constexpr (sizeof(T) == 8) return _mm512_cmpgt_epi64_mask(a, b);
}

inline std::uint64_t Collapse(const std::uint8_t* bytes) {
  const __m512i v = _mm512_loadu_si512(bytes);
  return _mm512_test_epi8_mask(v, v);
}

inline void Expand(std::uint64_t bits, std::uint8_t* bytes) {
  _mm512_storeu_si512(bytes, _mm512_maskz_set1_epi8(bits, 1));
}

template <class T>
class Comparer {
 public:
  Comparer(T lo, T hi, T infinity) : below_(Set1(static_cast<T>(lo - 1))), hi_(Set1(hi)), infinity_(Set1(infinity)) {}

  void operator()(const T* x, std::uint64_t* above, std::uint64_t* at_least) {
    constexpr int kLanes = 64 / sizeof(T);
    const __m512i magnitude = Set1(kMagnitude<T>);
    std::uint64_t high = 0, low = 0;
    for (int i = 0; i < 64; i += kLanes) {
      const __m512i v = _mm512_and_si512(_mm512_loadu_si512(x + i), magnitude);
      high |= Greater<T>(v, hi_) << i;
      low |= Greater<T>(v, below_) << i;
      nan_ |= Greater<T>(v, infinity_);
    }
    *above = high;
    *at_least = low;
  }

  bool nan() const { return nan_ != 0; }

 private:
  __m512i below_, hi_, infinity_;
  std::uint64_t nan_ = 0;
};

#define KERAS_LTH_KERNELS_NAME "avx512"
#include "cc/select/kernels_body.inc"

}  // namespace

const Kernels& Table() { return kKernels; }

}  // namespace keras_lth::select::avx512
#endif  // __AVX512BW__
