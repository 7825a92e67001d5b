// AVX-512 F, BW, DQ and VL; compiled with these flags on x86-64, empty elsewhere.
#if defined(__AVX512BW__)
#include <cstdint>

#include "cc/norm/kernels.h"

namespace keras_lth::norm::avx512 {

namespace {

#include "cc/norm/kernels_body.inc"

}  // namespace

const Kernels& Table() { return kKernels; }

}  // namespace keras_lth::norm::avx512
#endif  // __AVX512BW__
