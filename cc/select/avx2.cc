// AVX2, POPCNT, BMI and BMI2; compiled with these flags on x86-64, empty elsewhere.
#if defined(__AVX2__)
#include <immintrin.h>

#include "cc/select/kernels.h"

namespace keras_lth::select::avx2 {

namespace {

inline __m256i Set1(std::int16_t v) { return _mm256_set1_epi16(v); }
inline __m256i Set1(std::int32_t v) { return _mm256_set1_epi32(v); }
inline __m256i Set1(std::int64_t v) { return _mm256_set1_epi64x(v); }

inline __m256i Load(const void* x) { return _mm256_loadu_si256(static_cast<const __m256i*>(x)); }

template <class T>
inline __m256i Greater(__m256i a, __m256i b) {
  if constexpr (sizeof(T) == 2) return _mm256_cmpgt_epi16(a, b);
  if constexpr (sizeof(T) == 4) return _mm256_cmpgt_epi32(a, b);
  if constexpr (sizeof(T) == 8) return _mm256_cmpgt_epi64(a, b);
}

template <class T>
inline __m256i Subtract(__m256i a, __m256i b) {
  if constexpr (sizeof(T) == 2) return _mm256_sub_epi16(a, b);
  if constexpr (sizeof(T) == 4) return _mm256_sub_epi32(a, b);
  if constexpr (sizeof(T) == 8) return _mm256_sub_epi64(a, b);
}

inline std::uint64_t Bits(__m256i bytes) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(_mm256_movemask_epi8(bytes)));
}

inline std::uint64_t Collapse(const std::uint8_t* bytes) {
  const __m256i zero = _mm256_setzero_si256();
  return ~(Bits(_mm256_cmpeq_epi8(Load(bytes), zero)) | Bits(_mm256_cmpeq_epi8(Load(bytes + 32), zero)) << 32);
}

inline void Expand32(std::uint64_t bits, std::uint8_t* bytes) {
  const __m256i byte_of = _mm256_setr_epi64x(0x0000000000000000, 0x0101010101010101, 0x0202020202020202,
                                             0x0303030303030303);
  const __m256i bit_of = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201U));
  const __m256i spread =
      _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int>(bits & 0xFFFFFFFFU)), byte_of), bit_of);
  const __m256i flags = _mm256_and_si256(_mm256_cmpeq_epi8(spread, bit_of), _mm256_set1_epi8(1));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(bytes), flags);
}

inline void Expand(std::uint64_t bits, std::uint8_t* bytes) {
  Expand32(bits, bytes);
  Expand32(bits >> 32, bytes + 32);
}

template <class T, bool kPlain>
class Comparer {
 public:
  Comparer(const Range<T>& range, T mark)
      : mark_(Set1(mark)),
        lo_(Subtract<T>(Set1(range.lo), Set1(static_cast<T>(-kMagnitude<T> - 1)))),
        beyond_(Subtract<T>(Set1(static_cast<T>(range.hi + 1)), lo_)),
        infinity_(Set1(range.infinity)),
        signed_(Set1(range.order.by_value ? T{-1} : T{0})),
        reversed_(Set1(range.order.largest ? T{0} : T{-1})),
        nan_(_mm256_setzero_si256()) {}

  void operator()(const T* x, std::uint64_t* above, std::uint64_t* within) {
    std::uint64_t high = 0, in = 0;
    if constexpr (sizeof(T) == 2) {
      for (int i = 0; i < 64; i += 32) {
        const __m256i a = KeyOf(x + i), b = KeyOf(x + i + 16);
        high |= Narrow(Greater<T>(a, mark_), Greater<T>(b, mark_)) << i;
        in |= Narrow(Within(a), Within(b)) << i;
      }
    } else {
      constexpr int kInRegister = 32 / sizeof(T);
      for (int i = 0; i < 64; i += kInRegister) {
        const __m256i key = KeyOf(x + i);
        high |= LaneBits(Greater<T>(key, mark_)) << i;
        in |= LaneBits(Within(key)) << i;
      }
    }
    *above = high;
    *within = in;
  }

  bool nan() const { return _mm256_testz_si256(nan_, nan_) == 0; }

 private:
  __m256i KeyOf(const T* x) {
    const __m256i v = Load(x);
    const __m256i magnitude = _mm256_and_si256(v, Set1(kMagnitude<T>));
    nan_ = _mm256_or_si256(nan_, Greater<T>(magnitude, infinity_));
    if constexpr (kPlain) return magnitude;
    const __m256i negative = Greater<T>(_mm256_setzero_si256(), v);
    const __m256i flip = _mm256_xor_si256(_mm256_and_si256(negative, signed_), reversed_);
    return Subtract<T>(_mm256_xor_si256(magnitude, flip), flip);
  }

  // key - lo <= hi - lo without signs, as there are only signed comparisons: both moved down to the least number.
  __m256i Within(__m256i key) const { return Greater<T>(beyond_, Subtract<T>(key, lo_)); }

  static std::uint64_t Narrow(__m256i a, __m256i b) {
    // packs works within halves of 128 bits; the permutation puts the quarters back into order.
    return Bits(_mm256_permute4x64_epi64(_mm256_packs_epi16(a, b), 0xD8));
  }

  static std::uint64_t LaneBits(__m256i v) {
    if constexpr (sizeof(T) == 4) {
      return static_cast<std::uint64_t>(_mm256_movemask_ps(_mm256_castsi256_ps(v)));
    } else {
      return static_cast<std::uint64_t>(_mm256_movemask_pd(_mm256_castsi256_pd(v)));
    }
  }

  __m256i mark_, lo_, beyond_, infinity_, signed_, reversed_, nan_;
};

#define KERAS_LTH_KERNELS_NAME "avx2"
#include "cc/select/kernels_body.inc"

}  // namespace

const Kernels& Table() { return kKernels; }

}  // namespace keras_lth::select::avx2
#endif  // __AVX2__
