// AVX-512 F, BW, DQ and VL; compiled with these flags on x86-64, empty elsewhere.
#if defined(__AVX512BW__)
#include <immintrin.h>

#include "cc/select/kernels.h"

namespace keras_lth::select::avx512 {

namespace {

inline __m512i Set1(std::int16_t v) { return _mm512_set1_epi16(v); }
inline __m512i Set1(std::int32_t v) { return _mm512_set1_epi32(v); }
inline __m512i Set1(std::int64_t v) { return _mm512_set1_epi64(v); }

// Through a general register: g++ 12 spills a mask that it widens itself with its low half only, and reads all of it.
inline std::uint64_t Widened(std::uint32_t mask) {
  __asm__("" : "+r"(mask));
  return mask;
}

template <class T>
inline std::uint64_t Greater(__m512i a, __m512i b) {
  if constexpr (sizeof(T) == 2) return Widened(_mm512_cmpgt_epi16_mask(a, b));
  if constexpr (sizeof(T) == 4) return Widened(_mm512_cmpgt_epi32_mask(a, b));
  if constexpr (sizeof(T) == 8) return Widened(_mm512_cmpgt_epi64_mask(a, b));
}

// Without signs.
template <class T>
inline std::uint64_t AtMost(__m512i a, __m512i b) {
  if constexpr (sizeof(T) == 2) return Widened(_mm512_cmple_epu16_mask(a, b));
  if constexpr (sizeof(T) == 4) return Widened(_mm512_cmple_epu32_mask(a, b));
  if constexpr (sizeof(T) == 8) return Widened(_mm512_cmple_epu64_mask(a, b));
}

// All ones where the value is negative. Zero-masked with a full mask: g++ 12 warns inside the plain forms.
template <class T>
inline __m512i SignOf(__m512i v) {
  if constexpr (sizeof(T) == 2) return _mm512_srai_epi16(v, 15);
  if constexpr (sizeof(T) == 4) return _mm512_maskz_srai_epi32(static_cast<__mmask16>(-1), v, 31);
  if constexpr (sizeof(T) == 8) return _mm512_maskz_srai_epi64(static_cast<__mmask8>(-1), v, 63);
}

template <class T>
inline __m512i Subtract(__m512i a, __m512i b) {
  if constexpr (sizeof(T) == 2) return _mm512_sub_epi16(a, b);
  if constexpr (sizeof(T) == 4) return _mm512_sub_epi32(a, b);
  if constexpr (sizeof(T) == 8) return _mm512_sub_epi64(a, b);
}

template <class T>
inline __m512i Larger(__m512i a, __m512i b) {
  if constexpr (sizeof(T) == 2) return _mm512_max_epi16(a, b);
  if constexpr (sizeof(T) == 4) return _mm512_maskz_max_epi32(static_cast<__mmask16>(-1), a, b);
  if constexpr (sizeof(T) == 8) return _mm512_maskz_max_epi64(static_cast<__mmask8>(-1), a, b);
}

inline std::uint64_t Collapse(const std::uint8_t* bytes) {
  const __m512i v = _mm512_loadu_si512(bytes);
  return _mm512_test_epi8_mask(v, v);
}

inline void Expand(std::uint64_t bits, std::uint8_t* bytes) {
  _mm512_storeu_si512(bytes, _mm512_maskz_set1_epi8(bits, 1));
}

template <class T, bool kPlain>
class Comparer {
 public:
  Comparer(const Range<T>& range, T mark)
      : mark_(Set1(mark)),
        lo_(Set1(range.lo)),
        width_(Subtract<T>(Set1(range.hi), lo_)),
        infinity_(Set1(range.infinity)),
        signed_(Set1(range.order.by_value ? T{-1} : T{0})),
        reversed_(Set1(range.order.largest ? T{0} : T{-1})) {}

  void operator()(const T* x, std::uint64_t* above, std::uint64_t* within) {
    constexpr int kInRegister = 64 / sizeof(T);
    std::uint64_t high = 0, in = 0;
    for (int i = 0; i < 64; i += kInRegister) {
      const __m512i v = _mm512_loadu_si512(x + i);
      const __m512i magnitude = _mm512_and_si512(v, Set1(kMagnitude<T>));
      __m512i key = magnitude;
      if constexpr (!kPlain) {
        const __m512i flip = _mm512_xor_si512(_mm512_and_si512(SignOf<T>(v), signed_), reversed_);
        key = Subtract<T>(_mm512_xor_si512(magnitude, flip), flip);
      }
      high |= Greater<T>(key, mark_) << i;
      in |= AtMost<T>(Subtract<T>(key, lo_), width_) << i;
      most_ = Larger<T>(most_, magnitude);
    }
    *above = high;
    *within = in;
  }

  bool nan() const { return Greater<T>(most_, infinity_) != 0; }

 private:
  __m512i mark_, lo_, width_, infinity_, signed_, reversed_;
  __m512i most_ = _mm512_setzero_si512();
};

#define KERAS_LTH_KERNELS_NAME "avx512"
#include "cc/select/kernels_body.inc"

}  // namespace

const Kernels& Table() { return kKernels; }

}  // namespace keras_lth::select::avx512
#endif  // __AVX512BW__
